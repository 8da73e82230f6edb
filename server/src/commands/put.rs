//! `holdfast put`: set a key, always or on a condition.

use std::ffi::OsString;
use std::io::Read;

use bytes::Bytes;
use protocol::{Expect, VALUE_BYTES_MAX};
use serde_json::json;

use super::connect::{Cluster, ConnectArgs, block_on, bytes_of, shown};
use super::outcome::{Exit, Failure};
use super::output::{Format, Output, OutputArgs};

const LONG_ABOUT: &str = "\
Sets a key and answers the revision of the write, once a majority of the nodes has it on disk.

With --if-absent, --if-value or --if-revision the key is set only if it is as stated; if it is not, \
nothing changes and the exit code is 4.";

const AFTER_HELP: &str = "\
Examples:
  holdfast put city Berlin
  holdfast put config - < config.json         the value from stdin
  holdfast put leader node-1 --if-absent      only if nobody has set it
  holdfast put counter 8 --if-value 7         only if it is still 7
  holdfast put counter 8 --if-revision 1234   only if it has not changed since";

/// Set a key
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The key, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    key: OsString,
    /// The value; `-` reads it from stdin
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    value: OsString,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Condition {
    /// Only if there is no such key
    #[arg(id = "if_absent", long = "if-absent")]
    absent: bool,
    /// Only if its value is V
    #[arg(id = "if_value", long = "if-value", value_name = "V", allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Only if its last change was at revision N
    #[arg(id = "if_revision", long = "if-revision", value_name = "N")]
    revision: Option<u64>,
}

impl Condition {
    fn expect(self) -> Option<Expect> {
        let absent = self.absent.then_some(Expect::Absent);
        let value = self.value.map(|value| Expect::Value(bytes_of(value)));
        absent.or(value).or(self.revision.map(Expect::Revision))
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let key = bytes_of(args.key);
    let value = if args.value == "-" { from_stdin()? } else { bytes_of(args.value) };
    let format = args.output.format;
    block_on(async {
        let cluster = args.connect.cluster()?;
        match args.condition.expect() {
            None => put(&cluster, key, value, format).await,
            Some(expect) => put_if(&cluster, key, expect, value, format).await,
        }
    })
}

async fn put(cluster: &Cluster, key: Bytes, value: Bytes, format: Format) -> Result<Exit, Failure> {
    let revision = cluster.client.put(key, value).await?;
    report(revision, format)?;
    Ok(Exit::Done)
}

async fn put_if(
    cluster: &Cluster,
    key: Bytes,
    expect: Expect,
    value: Bytes,
    format: Format,
) -> Result<Exit, Failure> {
    let reply = cluster.client.compare_and_set(key.clone(), expect, Some(value)).await?;
    if reply.swapped {
        report(reply.revision, format)?;
        return Ok(Exit::Done);
    }
    if format == Format::Json {
        let done = json!({ "swapped": false, "mod_revision": reply.mod_revision });
        Output::stdout().json(&done)?;
    }
    Err(condition_false(&key, reply.mod_revision))
}

fn report(revision: u64, format: Format) -> Result<(), Failure> {
    let mut output = Output::stdout();
    match format {
        Format::Plain => output.line(&format!("revision {revision}"))?,
        Format::Json => output.json(&json!({ "swapped": true, "revision": revision }))?,
    };
    Ok(())
}

fn condition_false(key: &[u8], mod_revision: u64) -> Failure {
    let key = shown(key);
    let message = match mod_revision {
        0 => format!("nothing was set: there is no key `{key}`"),
        _ => format!("nothing was set: key `{key}` was last changed at revision {mod_revision}"),
    };
    Failure::new(Exit::ConditionFalse, message)
}

fn from_stdin() -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let limit = u64::try_from(VALUE_BYTES_MAX).expect("8 MiB fit") + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut value)
        .map_err(|error| Failure::failed(format!("cannot read the value from stdin: {error}")))?;
    if value.len() > VALUE_BYTES_MAX {
        let message = format!("the value on stdin is longer than {VALUE_BYTES_MAX} bytes");
        return Err(Failure::failed(message).hint("no node takes longer ones"));
    }
    Ok(Bytes::from(value))
}
