//! What the figures were measured on.

use std::fs;
use std::path::Path;

/// Cores, kernel, and the file system of `dir`.
pub(crate) fn description(dir: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, kernel {}, file system {}", kernel.trim(), file_system(dir))
}

/// The type of the deepest mount that holds `dir`.
fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').skip(1).take(2).collect::<Vec<_>>());
    let mut best = ("", "unknown");
    for mount in fields {
        if let [at, kind] = mount[..]
            && dir.starts_with(at)
            && at.len() >= best.0.len()
        {
            best = (at, kind);
        }
    }
    best.1.to_owned()
}
