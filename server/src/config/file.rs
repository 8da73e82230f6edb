//! The configuration file: TOML, one key per setting.

use std::path::Path;

use toml::{Table, Value};

use super::error::ConfigError;
use super::settings::{Draft, SETTINGS, Setting};

/// Reads the file at `path` into the draft.
pub(super) fn apply(path: &Path, draft: &mut Draft) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let table: Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: syntax_message(&text, &error),
    })?;
    for (key, value) in &table {
        let setting = Setting::by_key(key).ok_or_else(|| unknown_key(path, key))?;
        let origin = format!("{key} in {}", path.display());
        let text = as_text(value).ok_or_else(|| ConfigError::Value {
            origin: origin.clone(),
            value: value.to_string(),
            allowed: "a number, a string or, for peers, a table from id to address".to_owned(),
        })?;
        setting.apply(&origin, &text, draft)?;
    }
    Ok(())
}

fn unknown_key(path: &Path, key: &str) -> ConfigError {
    let known: Vec<String> = SETTINGS.iter().map(Setting::key).collect();
    ConfigError::UnknownKey { path: path.to_owned(), key: key.to_owned(), known: known.join(", ") }
}

fn syntax_message(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', ", "))
}

/// A value as the text that a flag would have. `{1 = "a", 2 = "b"}` reads `1=a,2=b`.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Table(table) => {
            let pair = |(id, addr): (&String, &Value)| Some(format!("{id}={}", addr.as_str()?));
            let pairs: Option<Vec<String>> = table.iter().map(pair).collect();
            Some(pairs?.join(","))
        }
        Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => None,
    }
}
