//! How client commands reach the cluster.

use std::ffi::OsString;
use std::future::Future;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientOptions, Error};
use protocol::{Consistency, Request, Response};

use super::outcome::Failure;
use crate::config::{check_address, parse_duration};

const ENDPOINTS_HELP: &str =
    "Nodes of the cluster, any of them will do [env: HOLDFAST_ENDPOINTS] [default: 127.0.0.1:7400]";

/// Where a cluster is looked for when nobody says where.
const ENDPOINT_DEFAULT: &str = "127.0.0.1:7400";

/// The flags of every client command.
#[derive(Clone, Debug, clap::Args)]
pub struct ConnectArgs {
    #[arg(long, value_name = "ADDR,…", help = ENDPOINTS_HELP)]
    endpoints: Option<String>,
    /// How long to wait for the cluster at most, as 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration_arg)]
    pub timeout: Duration,
}

/// Where a command's cluster is.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The nodes that were named.
    pub endpoints: Vec<String>,
}

impl ConnectArgs {
    /// A client of the cluster; must be called within a runtime. Nothing is sent yet.
    pub fn cluster(&self) -> Result<Cluster, Failure> {
        let endpoints = self.endpoints()?;
        let mut options = ClientOptions::default();
        "holdfast".clone_into(&mut options.name);
        options.timeout = self.timeout;
        Ok(Cluster { client: Client::connect(&endpoints, options)?, endpoints })
    }

    fn endpoints(&self) -> Result<Vec<String>, Failure> {
        let variable = std::env::var("HOLDFAST_ENDPOINTS").ok().filter(|list| !list.is_empty());
        let (origin, list) = match (&self.endpoints, variable) {
            (Some(list), _) => ("--endpoints", list.clone()),
            (None, Some(list)) => ("HOLDFAST_ENDPOINTS", list),
            (None, None) => ("the default endpoint", ENDPOINT_DEFAULT.to_owned()),
        };
        parse_endpoints(origin, &list)
    }
}

impl Cluster {
    /// Sends a read to the leader, or to whichever named node answers first when it may be stale.
    pub async fn read(
        &self,
        consistency: Consistency,
        request: Request,
    ) -> Result<Response, Error> {
        if consistency == Consistency::Linearizable {
            return self.client.call(request).await;
        }
        let mut last = Error::NoEndpoints;
        for endpoint in &self.endpoints {
            match self.client.call_endpoint(endpoint, request.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The flag of commands that read.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct FreshnessArgs {
    /// Read what the first node that answers has, without asking for a majority: may be old
    #[arg(long)]
    stale: bool,
}

impl FreshnessArgs {
    /// How fresh the read is.
    pub fn consistency(self) -> Consistency {
        if self.stale { Consistency::Stale } else { Consistency::Linearizable }
    }
}

fn parse_endpoints(origin: &str, list: &str) -> Result<Vec<String>, Failure> {
    let parse = |endpoint: &str| {
        check_address(endpoint.trim())
            .map_err(|allowed| Failure::usage(format!("{origin}: `{endpoint}` is not {allowed}")))
    };
    list.split(',').map(parse).collect()
}

/// A time with its unit, for clap.
pub fn duration_arg(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|allowed| format!("it has to be {allowed}"))
}

/// The bytes of an argument, whatever they are.
pub fn bytes_of(argument: OsString) -> Bytes {
    Bytes::from(argument.into_vec())
}

/// Bytes for a message to a person.
pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

/// Runs a command's future to its end.
///
/// On this thread: child processes are bound to the thread that starts them.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(future)
}

/// The failure of an answer that does not belong to the question.
pub fn unexpected(response: &Response) -> Failure {
    Failure::from(Error::UnexpectedReply { problem: format!("{response:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_a_list_of_addresses() {
        let parsed = parse_endpoints("--endpoints", "a:1, b:2,[::1]:3").unwrap();
        assert_eq!(parsed, ["a:1", "b:2", "[::1]:3"]);
    }

    #[test]
    fn bad_endpoint_is_named_with_its_origin() {
        let failure = parse_endpoints("HOLDFAST_ENDPOINTS", "a:1,b").unwrap_err();
        assert_eq!(failure.exit.code(), 2);
        assert!(failure.message.starts_with("HOLDFAST_ENDPOINTS: `b` is not an address"));
    }

    #[test]
    fn bytes_in_messages_cannot_disturb_a_terminal() {
        assert_eq!(shown(b"a\x1b[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(shown("größe".as_bytes()), "größe");
    }
}
