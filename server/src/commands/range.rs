//! `holdfast range`: read keys in order.

use std::ffi::OsString;

use protocol::{Consistency, KeyRange, RangeItem, Request, Response};
use serde_json::Value;

use super::connect::{Cluster, ConnectArgs, FreshnessArgs, block_on, bytes_of, unexpected};
use super::get::{Values, item_json};
use super::outcome::{Exit, Failure};
use super::output::{Format, Output, OutputArgs};

const LONG_ABOUT: &str = "\
Reads keys in byte order and writes one line for each: the key, a tab, the value, byte for byte.

A long range is read page by page; each page is as fresh as `get`, but keys may change between pages.";

const AFTER_HELP: &str = "\
Examples:
  holdfast range                            every key
  holdfast range user/                      all that begin with user/ (the same as --prefix user/)
  holdfast range --from a --to c            a and what follows it, up to but without c
  holdfast range user/ --keys-only --limit 10
  holdfast range user/ -o json              {\"items\":[…],\"more\":false,\"revision\":7}";

/// Read keys in order
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// What the keys begin with [default: nothing, which is every key]
    #[arg(value_name = "PREFIX", conflicts_with_all = ["prefix", "from", "to"])]
    beginning: Option<OsString>,
    #[command(flatten)]
    range: RangeArgs,
    /// At most this many keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    freshness: FreshnessArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The flags that say which keys.
#[derive(Clone, Debug, clap::Args)]
pub struct RangeArgs {
    /// The keys that begin with P
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
    /// The keys from A on
    #[arg(long, value_name = "A")]
    from: Option<OsString>,
    /// The keys before B
    #[arg(long, value_name = "B")]
    to: Option<OsString>,
}

impl RangeArgs {
    /// The keys; all if no flag is given.
    pub fn range(&self) -> KeyRange {
        if let Some(prefix) = self.prefix.clone() {
            return KeyRange::prefix(bytes_of(prefix));
        }
        let start = self.from.clone().map(bytes_of).unwrap_or_default();
        KeyRange { start, end: self.to.clone().map(bytes_of) }
    }

    /// Whether a prefix is given that every key has.
    pub fn is_empty_prefix(&self) -> bool {
        self.prefix.as_ref().is_some_and(|prefix| prefix.is_empty())
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let range = match args.beginning {
        Some(prefix) => KeyRange::prefix(bytes_of(prefix)),
        None => args.range.range(),
    };
    let mut pages = Pages {
        rest: Some(range),
        left: args.limit.unwrap_or(u64::MAX),
        revision: 0,
        values: if args.keys_only { Values::Left } else { Values::Shown },
        consistency: args.freshness.consistency(),
    };
    block_on(async {
        let cluster = args.connect.cluster()?;
        match args.output.format {
            Format::Plain => write_plain(&cluster, &mut pages, &mut Output::stdout()).await,
            Format::Json => write_json(&cluster, &mut pages, &mut Output::stdout()).await,
        }
    })?;
    Ok(Exit::Done)
}

async fn write_plain(
    cluster: &Cluster,
    pages: &mut Pages,
    output: &mut Output,
) -> Result<(), Failure> {
    while let Some(items) = pages.next(cluster).await? {
        let mut lines = Vec::new();
        for RangeItem { key, item } in &items {
            lines.extend_from_slice(key);
            if pages.values == Values::Shown {
                lines.push(b'\t');
                lines.extend_from_slice(&item.value);
            }
            lines.push(b'\n');
        }
        if !output.write(&lines)? {
            break;
        }
    }
    Ok(())
}

/// One object, written as the pages arrive.
async fn write_json(
    cluster: &Cluster,
    pages: &mut Pages,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut separator = "{\"items\":[";
    while let Some(items) = pages.next(cluster).await? {
        let mut text = String::new();
        for RangeItem { key, item } in &items {
            text.push_str(std::mem::replace(&mut separator, ","));
            text.push_str(&Value::from(item_json(key, item, pages.values)).to_string());
        }
        if !output.write(text.as_bytes())? {
            return Ok(());
        }
    }
    let begin = if separator == "," { "" } else { separator };
    output.line(&format!(
        "{begin}],\"more\":{},\"revision\":{}}}",
        pages.more(),
        pages.revision
    ))?;
    Ok(())
}

/// A range on its way, page by page.
struct Pages {
    /// What has not been read; `None` at the end of the range.
    rest: Option<KeyRange>,
    /// How many keys may still be read.
    left: u64,
    /// The revision that the last page saw.
    revision: u64,
    values: Values,
    consistency: Consistency,
}

impl Pages {
    /// The next page; `None` when everything wanted has been read.
    async fn next(&mut self, cluster: &Cluster) -> Result<Option<Vec<RangeItem>>, Failure> {
        let Some(range) = self.rest.clone().filter(|_| self.left > 0) else { return Ok(None) };
        let request = Request::Range {
            consistency: self.consistency,
            range: range.clone(),
            limit: u32::try_from(self.left).unwrap_or(0),
            keys_only: self.values == Values::Left,
        };
        let response = cluster.read(self.consistency, request).await?;
        let Response::Range { revision, items, more } = response else {
            return Err(unexpected(&response));
        };
        self.revision = revision;
        self.left = self.left.saturating_sub(u64::try_from(items.len()).unwrap_or(u64::MAX));
        self.rest = items.last().filter(|_| more).map(|last| range.after(&last.key));
        Ok(Some(items))
    }

    /// Whether the limit left keys unread.
    fn more(&self) -> bool {
        self.rest.is_some()
    }
}
