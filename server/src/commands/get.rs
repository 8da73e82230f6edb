//! `holdfast get`: read a key.

use std::ffi::OsString;

use bytes::Bytes;
use protocol::{Item, Request, Response};
use serde_json::{Map, Value};

use super::connect::{ConnectArgs, FreshnessArgs, block_on, bytes_of, shown, unexpected};
use super::outcome::{Exit, Failure};
use super::output::{Format, Output, OutputArgs, insert_bytes};

const LONG_ABOUT: &str = "\
Reads a key and writes its value, byte for byte, with a line end after it.

The value is the newest that anybody was told is written, from whichever node it is read. With --stale \
one node answers from what it has, which may be old; that also works without a majority.";

const AFTER_HELP: &str = "\
Examples:
  holdfast get city
  holdfast get city -o json      with revisions and version
  holdfast get city --stale      even if no majority answers";

/// Read a key
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The key
    #[arg(value_name = "KEY")]
    key: OsString,
    #[command(flatten)]
    freshness: FreshnessArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let key = bytes_of(args.key);
    let consistency = args.freshness.consistency();
    let request = Request::Get { consistency, key: key.clone() };
    let response =
        block_on(async { Ok(args.connect.cluster()?.read(consistency, request).await?) })?;
    let Response::Get { revision, item } = response else { return Err(unexpected(&response)) };
    let Some(item) = item else {
        let message = format!("there is no key `{}` at revision {revision}", shown(&key));
        return Err(Failure::new(Exit::NotFound, message));
    };
    write(&key, revision, &item, args.output.format)?;
    Ok(Exit::Done)
}

fn write(key: &Bytes, revision: u64, item: &Item, format: Format) -> Result<(), Failure> {
    let mut output = Output::stdout();
    match format {
        Format::Plain => output.write(&item.value)? && output.write(b"\n")?,
        Format::Json => {
            let mut object = item_json(key, item, Values::Shown);
            object.insert("revision".to_owned(), Value::from(revision));
            output.json(&Value::from(object))?
        }
    };
    Ok(())
}

/// Whether an item's value is part of its JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// It is.
    Shown,
    /// It is not, as it was not asked for.
    Left,
}

/// A key and its item as a JSON object.
pub fn item_json(key: &[u8], item: &Item, values: Values) -> Map<String, Value> {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", key);
    if values == Values::Shown {
        insert_bytes(&mut object, "value", &item.value);
    }
    for (name, number) in [
        ("create_revision", item.create_revision),
        ("mod_revision", item.mod_revision),
        ("version", item.version),
    ] {
        object.insert(name.to_owned(), Value::from(number));
    }
    if item.session != 0 {
        object.insert("session".to_owned(), Value::from(item.session));
    }
    object
}
