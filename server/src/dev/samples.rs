//! What a newcomer reads.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::home::Home;
use super::plan::Plan;

/// Commands to try, and where things are.
pub(super) fn text(plan: &Plan, home: &Home) -> String {
    let holdfast = program();
    let endpoints = plan.client_addresses().join(",");
    let fate = if home.is_temporary() { "removed at the end; --dir keeps it" } else { "kept" };
    format!(
        "
Try it in another terminal:
  export HOLDFAST_ENDPOINTS={endpoints}
  {holdfast} put greeting hello
  {holdfast} get greeting
  {holdfast} range gr
  {holdfast} lock job -- sh -c 'echo fencing token $HOLDFAST_FENCE'
  {holdfast} status

Data and logs: {} ({fate}). Ctrl-C stops the cluster.
",
        home.path().display()
    )
}

/// Says something that is not a result.
pub(super) fn notice(text: &str) {
    // Nowhere is left to say that stderr is closed.
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// This program as the person would call it from here.
fn program() -> String {
    let Ok(path) = env::current_exe() else { return "holdfast".to_owned() };
    let found_by_name = env::var_os("PATH").is_some_and(|dirs| finds(&dirs, &path));
    if found_by_name {
        return path.file_name().unwrap_or(path.as_os_str()).display().to_string();
    }
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}

fn finds(dirs: &std::ffi::OsStr, path: &Path) -> bool {
    let dir: Option<PathBuf> = path.parent().map(Path::to_owned);
    env::split_paths(dirs).any(|candidate| Some(candidate) == dir)
}
