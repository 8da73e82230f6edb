//! `holdfast serve`: one node.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches};
use tracing_subscriber::EnvFilter;

use super::exec::ParentArgs;
use super::outcome::{Exit, Failure};
use crate::config::{ConfigError, NodeConfig, SETTINGS};
use crate::node::{self, NodeError};
use crate::shutdown::Stop;

const LONG_ABOUT: &str = "\
Runs one node of a cluster until SIGTERM or ctrl-C.

Settings come from four places, each stronger than the one before: defaults, the file of --config \
(TOML, the flags' names with _ for -), environment variables HOLDFAST_…, flags. Everything is checked \
before anything starts.

A node finds its peers by --peers, the same list on every node, and founds the cluster with them when \
all are there for the first time. Its log goes to stderr; HOLDFAST_LOG sets the level \
(error, warn, info, debug).";

const AFTER_HELP: &str = "\
Examples:
  holdfast serve --data /var/lib/holdfast
      a cluster of one
  holdfast serve --id 1 --data /var/lib/holdfast --listen 10.0.0.1:7400 \\
      --peers 1=10.0.0.1:7410,2=10.0.0.2:7410,3=10.0.0.3:7410
      the first of three; the others differ in --id and --listen
  holdfast serve --config /etc/holdfast.toml
      the same from a file, with lines like: id = 1";

/// Run one node
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    #[arg(long, value_name = "FILE", help = "A TOML file with settings [env: HOLDFAST_CONFIG]")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    parent: ParentArgs,
}

/// The settings that were given as flags.
#[derive(Debug)]
struct Settings(Vec<(&'static str, String)>);

impl clap::Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        SETTINGS.iter().fold(command, |command, setting| {
            let help = format!("{} [env: {}]", setting.help, setting.env_name());
            let arg = Arg::new(setting.flag).long(setting.flag);
            command.arg(arg.value_name(setting.value_name).help(help))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Settings::augment_args(command)
    }
}

impl clap::FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Settings, clap::Error> {
        let given = |flag| Some((flag, matches.get_one::<String>(flag)?.clone()));
        Ok(Settings(SETTINGS.iter().filter_map(|setting| given(setting.flag)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Settings::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let config = load(args)?;
    args.parent.die_with_parent()?;
    start_logging()?;
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    node::run(&config, Stop::on_signals()).map_err(|error| failure(&error))?;
    Ok(Exit::Done)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "about most errors there is nothing to do that the message does not say"
)]
fn failure(error: &NodeError) -> Failure {
    match error {
        NodeError::Listen { flag, .. } => Failure::failed(error.to_string())
            .hint(format!("stop what listens there, or choose another port with {flag}")),
        NodeError::OtherPeers { .. } => {
            Failure::usage(error.to_string()).hint("the members of a cluster cannot be changed yet")
        }
        _ => Failure::failed(error.to_string()),
    }
}

fn load(args: &Args) -> Result<NodeConfig, Failure> {
    let env = |name: &str| std::env::var_os(name);
    let file = args.config.clone().or_else(|| config_file_of(env("HOLDFAST_CONFIG")));
    let loaded = NodeConfig::load(file.as_deref(), env, &args.settings.0);
    loaded.map_err(|error| usage(&error, file.as_deref()))
}

fn config_file_of(variable: Option<OsString>) -> Option<PathBuf> {
    variable.filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn usage(error: &ConfigError, file: Option<&Path>) -> Failure {
    let failure = Failure::usage(error.to_string());
    match (error, file) {
        (ConfigError::Conflict(_), Some(path)) => {
            failure.hint(format!("the settings of {} count as flags here", path.display()))
        }
        _ => failure.hint("`holdfast serve --help` lists all settings"),
    }
}

fn start_logging() -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("HOLDFAST_LOG")
        .from_env()
        .map_err(|error| Failure::usage(format!("HOLDFAST_LOG: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // They would be told on the stream that could not be written, which ends the process.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| Failure::failed(format!("cannot log: {error}")))
}
