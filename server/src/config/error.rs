//! What can be wrong with a configuration.

use std::path::PathBuf;

/// Why there is no configuration. All are the caller's mistake, found before anything was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that its setting does not take.
    #[error("{origin}: `{value}` is not {allowed}")]
    Value {
        /// The flag, the environment variable, or the key and its file.
        origin: String,
        /// What stands there.
        value: String,
        /// What could stand there.
        allowed: String,
    },
    /// A key that no setting has.
    #[error("{}: unknown key `{key}`; the keys are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// All keys there are.
        known: String,
    },
    /// A file that cannot be read.
    #[error("--config {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that is not TOML.
    #[error("--config {}: not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// Settings that are fine alone and do not fit together.
    #[error("{0}")]
    Conflict(String),
}
