//! The directory of a cluster: `node-1/`, `node-2/`, … with data, `node-1.log`, … with what they say.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::commands::outcome::Failure;
use crate::config::NODES_MAX;

/// How many nodes there are when nobody says.
const NODES_DEFAULT: usize = 3;

/// Where a cluster lives.
pub(super) struct Home {
    path: PathBuf,
    /// Removed when this is dropped.
    temporary: Option<TempDir>,
}

impl Home {
    /// The given directory, made if it is not there; or a temporary one.
    pub(super) fn open(dir: Option<PathBuf>) -> Result<Home, Failure> {
        let Some(dir) = dir else { return Home::temporary() };
        let failed = |error| Failure::failed(format!("--dir {}: {error}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed)?;
        let path = fs::canonicalize(&dir).map_err(failed)?;
        Ok(Home { path, temporary: None })
    }

    fn temporary() -> Result<Home, Failure> {
        let dir = tempfile::Builder::new().prefix("holdfast-dev-").tempdir().map_err(|error| {
            Failure::failed(format!("cannot make a temporary directory: {error}"))
                .hint("--dir says where to put the data; so does TMPDIR")
        })?;
        Ok(Home { path: dir.path().to_owned(), temporary: Some(dir) })
    }

    /// How many nodes the cluster has: as it was founded, or as wanted.
    pub(super) fn nodes_count(&self, wanted: Option<usize>) -> Result<usize, Failure> {
        let founded = (1..=NODES_MAX).take_while(|id| self.data(*id).is_dir()).count();
        if founded == 0 {
            return Ok(wanted.unwrap_or(NODES_DEFAULT));
        }
        match wanted {
            Some(wanted) if wanted != founded => {
                let path = self.path.display();
                let message =
                    format!("--nodes {wanted}: {path} holds a cluster of {founded} nodes");
                Err(Failure::usage(message).hint("leave --nodes out, or choose another --dir"))
            }
            _ => Ok(founded),
        }
    }

    /// A node's data directory.
    pub(super) fn data(&self, id: usize) -> PathBuf {
        self.path.join(format!("node-{id}"))
    }

    /// The file with what a node says.
    pub(super) fn log(&self, id: usize) -> PathBuf {
        self.path.join(format!("node-{id}.log"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Removes it if it is temporary. No node may run any more.
    pub(super) fn remove(self) -> Result<(), Failure> {
        let failed =
            |error| Failure::failed(format!("cannot remove {}: {error}", self.path.display()));
        self.temporary.map_or(Ok(()), TempDir::close).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_with_a_cluster_says_how_many_nodes_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path().join("new/cluster"))).unwrap();
        assert_eq!(home.nodes_count(None), Ok(3));
        assert_eq!(home.nodes_count(Some(5)), Ok(5));
        for id in 1..=5 {
            fs::create_dir(home.data(id)).unwrap();
        }
        assert_eq!(home.nodes_count(None), Ok(5));
        assert_eq!(home.nodes_count(Some(5)), Ok(5));
        let refused = home.nodes_count(Some(3)).unwrap_err();
        assert!(refused.message.contains("holds a cluster of 5 nodes"), "{refused}");
    }

    #[test]
    fn temporary_directory_is_removed_and_a_given_one_is_kept() {
        let temporary = Home::open(None).unwrap();
        let path = temporary.path().to_owned();
        fs::write(temporary.log(1), "said").unwrap();
        temporary.remove().unwrap();
        assert!(!path.exists());

        let dir = tempfile::tempdir().unwrap();
        Home::open(Some(dir.path().to_owned())).unwrap().remove().unwrap();
        assert!(dir.path().exists());
    }
}
