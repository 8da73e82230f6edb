//! Results on stdout, for people and for programs.

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::outcome::Failure;

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// Raw bytes and short lines.
    #[default]
    Plain,
    /// JSON; bytes that are not UTF-8 go into a field whose name ends in `_hex`
    Json,
}

/// The flag of every command that has a result.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArgs {
    /// How to write the result
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// Where results go. A reader that has gone away is no error: it wants no more.
#[derive(Debug)]
pub struct Output<W = std::io::StdoutLock<'static>> {
    to: W,
    /// Whether anybody still reads.
    open: bool,
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Output {
        Output::new(std::io::stdout().lock())
    }
}

impl<W: Write> Output<W> {
    fn new(to: W) -> Output<W> {
        Output { to, open: true }
    }

    /// Writes and makes visible at once; answers whether there is still a reader.
    pub fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        if !self.open {
            return Ok(false);
        }
        match self.to.write_all(bytes).and_then(|()| self.to.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.open = false,
            Err(error) => return Err(Failure::failed(format!("cannot write to stdout: {error}"))),
        }
        Ok(self.open)
    }

    /// The same with a line end.
    pub fn line(&mut self, text: &str) -> Result<bool, Failure> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// One JSON value on one line.
    pub fn json(&mut self, value: &Value) -> Result<bool, Failure> {
        self.line(&value.to_string())
    }
}

/// Adds bytes as a field: `name` with a string if they are UTF-8, else `name_hex` with their hex digits.
pub fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::from(text)),
        Err(_) => object.insert(format!("{name}_hex"), Value::from(hex(bytes))),
    };
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn reader_that_went_away_is_no_error_and_ends_the_output() {
        let mut output = Output::new(Broken(ErrorKind::BrokenPipe));
        assert_eq!(output.line("x"), Ok(false));
        assert_eq!(output.line("y"), Ok(false));
    }

    #[test]
    fn full_disk_behind_stdout_is_an_error() {
        let mut output = Output::new(Broken(ErrorKind::StorageFull));
        assert!(output.line("x").unwrap_err().message.contains("cannot write to stdout"));
    }

    #[test]
    fn bytes_that_are_not_text_become_hex() {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", "größe".as_bytes());
        insert_bytes(&mut object, "value", b"\x00\xff\x0a");
        assert_eq!(Value::from(object).to_string(), r#"{"key":"größe","value_hex":"00ff0a"}"#);
    }
}
