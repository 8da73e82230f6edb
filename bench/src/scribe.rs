//! Writing the history: every operation, as it ends.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::tests::history::{Op, Outcome, Record, Reply};
use parking_lot::Mutex;

use crate::error::{Error, Failure};

/// The file, shared by all lanes.
#[derive(Debug)]
pub struct HistoryFile {
    path: PathBuf,
    out: Mutex<io::Result<BufWriter<File>>>,
}

impl HistoryFile {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<HistoryFile, Error> {
        let file = File::create(path);
        let file = file.map_err(|source| Error::History { path: path.to_owned(), source })?;
        Ok(HistoryFile { path: path.to_owned(), out: Mutex::new(Ok(BufWriter::new(file))) })
    }

    /// Writes one record. An error is kept for [`HistoryFile::finish`].
    fn write(&self, record: &Record) {
        let mut out = self.out.lock();
        let result = match &mut *out {
            Ok(out) => record.write_line(out),
            Err(_) => return,
        };
        if let Err(error) = result {
            *out = Err(error);
        }
    }

    /// Writes what is buffered; answers the first error of all.
    pub fn finish(&self) -> Result<(), Error> {
        let mut out = self.out.lock();
        let result = match &mut *out {
            Ok(out) => out.flush(),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        result.map_err(|source| Error::History { path: self.path.clone(), source })
    }
}

/// One lane's hand on the file. Each of its slots is a client.
#[derive(Debug, Clone)]
pub struct Scribe {
    file: Arc<HistoryFile>,
    first_client: u64,
    sequences: Vec<u64>,
}

/// An operation that a client has called.
#[derive(Debug, Clone)]
pub struct Asked {
    client: u64,
    seq: u64,
    key: String,
    /// What was asked.
    pub op: Op,
}

/// What came of it.
#[derive(Debug)]
pub struct Told {
    /// The answer, or why there is none.
    pub reply: Result<Reply, Failure>,
    /// The revision that came with the answer.
    pub revision: Option<u64>,
    /// The node that was asked.
    pub node: u64,
    /// When it was asked, in nanoseconds.
    pub call_ns: u64,
    /// When the answer came, in nanoseconds.
    pub return_ns: u64,
}

impl Scribe {
    /// The scribe of lane `lane`, with `inflight` clients.
    pub fn new(file: Arc<HistoryFile>, lane: u32, inflight: u32) -> Scribe {
        let first_client = u64::from(lane) * u64::from(inflight);
        Scribe { file, first_client, sequences: vec![0; inflight as usize] }
    }

    /// The client of `slot` calls an operation on `key`, which `op` makes of client and sequence number.
    pub fn ask(&mut self, slot: u32, key: &[u8], op: impl FnOnce(u64, u64) -> Op) -> Asked {
        let client = self.first_client + u64::from(slot);
        let seq = &mut self.sequences[slot as usize];
        *seq += 1;
        Asked {
            client,
            seq: *seq,
            key: String::from_utf8_lossy(key).into_owned(),
            op: op(client, *seq),
        }
    }

    /// Writes what came of an operation.
    pub fn tell(&self, asked: Asked, told: Told) {
        let Told { reply, revision, node, call_ns, return_ns } = told;
        let (outcome, error) = match reply {
            Ok(reply) => (Outcome::Ok { return_ns, reply }, None),
            Err(failure) => {
                let outcome = if failure.is_unknown {
                    Outcome::Unknown
                } else {
                    Outcome::Fail { return_ns: Some(return_ns) }
                };
                (outcome, Some(format!("{}: {}", failure.code, failure.message)))
            }
        };
        let Asked { client, seq, key, op } = asked;
        let node = Some(node);
        self.file.write(&Record { client, seq, key, op, call_ns, outcome, revision, node, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reply: Result<Reply, Failure>) -> Told {
        Told { reply, revision: Some(4), node: 2, call_ns: 10, return_ns: 20 }
    }

    #[test]
    fn what_is_written_reads_back_with_a_client_per_slot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.jsonl");
        let file = Arc::new(HistoryFile::create(&path).unwrap());
        let mut scribe = Scribe::new(Arc::clone(&file), 3, 4);
        let first = scribe.ask(1, b"k", |client, seq| Op::Put { value: format!("{client}-{seq}") });
        let second = scribe.ask(1, b"k", |_, _| Op::Get);
        scribe.tell(second, told(Ok(Reply::Get { value: None })));
        scribe.tell(first, told(Err(Failure::lost("disconnected", "gone"))));
        file.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let records = ::tests::history::read(text.as_bytes()).unwrap();
        assert_eq!((records[0].client, records[0].seq, records[0].node), (13, 2, Some(2)));
        assert_eq!(records[1].op, Op::Put { value: "13-1".to_owned() });
        assert_eq!(records[1].outcome, Outcome::Unknown);
        assert_eq!(records[1].error.as_deref(), Some("disconnected: gone"));
    }
}
