//! `holdfast del`: delete a key or a range of keys.

use std::ffi::OsString;

use client::DeleteReply;
use serde_json::json;

use super::connect::{ConnectArgs, block_on, bytes_of};
use super::outcome::{Exit, Failure};
use super::output::{Format, Output, OutputArgs};
use super::range::RangeArgs;

const LONG_ABOUT: &str = "\
Deletes one key, or all keys of a range as one change, and answers how many there were. If there was \
none, the exit code is 3.";

const AFTER_HELP: &str = "\
Examples:
  holdfast del city
  holdfast del --prefix user/             all keys that begin with user/
  holdfast del --from a --to c            a and what follows it, up to but without c
  holdfast del --all                      every key";

/// Delete keys
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The key
    #[arg(value_name = "KEY", conflicts_with_all = ["prefix", "from", "to", "all"])]
    #[arg(required_unless_present_any = ["prefix", "from", "to", "all"])]
    key: Option<OsString>,
    #[command(flatten)]
    range: RangeArgs,
    /// All keys
    #[arg(long, conflicts_with_all = ["prefix", "from", "to"])]
    all: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Exit, Failure> {
    if args.range.is_empty_prefix() {
        return Err(Failure::usage("--prefix: an empty prefix is every key")
            .hint("if that is what you mean, say `holdfast del --all`"));
    }
    let range = args.range.range();
    let key = args.key.map(bytes_of);
    let reply = block_on(async {
        let client = args.connect.cluster()?.client;
        let reply = match key {
            Some(key) => client.delete(key).await,
            None => client.delete_range(range).await,
        };
        Ok(reply?)
    })?;
    report(reply, args.output.format)
}

fn report(reply: DeleteReply, format: Format) -> Result<Exit, Failure> {
    let DeleteReply { revision, deleted } = reply;
    let mut output = Output::stdout();
    match format {
        Format::Plain => output.line(&format!("deleted {deleted}"))?,
        Format::Json => output.json(&json!({ "deleted": deleted, "revision": revision }))?,
    };
    Ok(if deleted == 0 { Exit::NotFound } else { Exit::Done })
}
