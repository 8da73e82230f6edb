//! Getting a ring out of the kernel: the best settings it accepts, or an error that says who refuses.

use std::io;

use io_uring::{Builder, IoUring, Probe, opcode};
use rustix::io::Errno;

/// Settings, best first. Each kernel that lacks one refuses with EINVAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rung {
    /// Completions are worked off only when the owner asks (Linux 6.1).
    Deferred,
    /// Completions do not interrupt the owner (5.19).
    Cooperative,
    /// No setting.
    Plain,
}

const LADDER: [Rung; 3] = [Rung::Deferred, Rung::Cooperative, Rung::Plain];

/// A ring that belongs to no thread yet.
pub(super) struct Made {
    pub(super) ring: IoUring,
    pub(super) rung: Rung,
    /// Whether files can be cut through the ring (6.9).
    pub(super) can_truncate: bool,
}

/// The call that asks the kernel for a ring; tests put another in its place.
pub(super) type Setup<'a> = &'a mut dyn FnMut(Rung, &Builder) -> io::Result<IoUring>;

/// Makes a ring with `entries` submission entries and checks that it can do what is asked of it.
pub(super) fn make(entries: u32) -> io::Result<Made> {
    make_with(&mut |_, builder| builder.build(entries))
}

pub(super) fn make_with(setup: Setup<'_>) -> io::Result<Made> {
    let mut made = climb(setup).map_err(|error| explain(&error))?;
    made.can_truncate = check(&made.ring)?;
    Ok(made)
}

/// Only EINVAL means "not these settings"; any other refusal concerns every ring.
fn climb(setup: Setup<'_>) -> io::Result<Made> {
    let mut refused = Errno::INVAL.into();
    for rung in LADDER {
        match setup(rung, &builder(rung)) {
            Ok(ring) => return Ok(Made { ring, rung, can_truncate: false }),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

fn builder(rung: Rung) -> Builder {
    let mut builder = IoUring::builder();
    match rung {
        // Disabled at first, so that the thread that enables it becomes the single issuer, wherever
        // the disk was opened.
        Rung::Deferred => builder
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all(),
        Rung::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all(),
        Rung::Plain => &mut builder,
    };
    builder.dontfork();
    builder
}

/// What the rest of the module relies on. Returns whether files can be cut through the ring.
fn check(ring: &IoUring) -> io::Result<bool> {
    let params = ring.params();
    // No completion is ever dropped (5.5), waits have timeouts (5.11), polls repeat (5.13, the release
    // of resource tagging).
    let features = params.is_feature_nodrop()
        && params.is_feature_ext_arg()
        && params.is_feature_resource_tagging();
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let operations = [
        opcode::OpenAt::CODE,
        opcode::Close::CODE,
        opcode::Fallocate::CODE,
        opcode::Fadvise::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Fsync::CODE,
        opcode::RenameAt::CODE,
        opcode::UnlinkAt::CODE,
        opcode::MkDirAt::CODE,
        opcode::PollAdd::CODE,
    ];
    if features && operations.iter().all(|code| probe.is_supported(*code)) {
        return Ok(probe.is_supported(opcode::Ftruncate::CODE));
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this kernel's io_uring is too old: Linux 5.15 or later has what is needed",
    ))
}

fn explain(error: &io::Error) -> io::Error {
    let why = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "; the sysctl kernel.io_uring_disabled or a seccomp profile forbids it"
        }
        Some(Errno::NOSYS) => "; the kernel was built without it or a seccomp profile hides it",
        Some(Errno::NOMEM) => "; the limit on locked memory (ulimit -l) is too low",
        _ => "",
    };
    io::Error::new(error.kind(), format!("the kernel refuses io_uring: {error}{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusing(errno: Errno, allowed: Option<Rung>) -> (io::Result<Made>, Vec<Rung>) {
        let mut tried = Vec::new();
        let made = make_with(&mut |rung, builder| {
            tried.push(rung);
            if allowed == Some(rung) { builder.build(8) } else { Err(errno.into()) }
        });
        (made, tried)
    }

    #[test]
    fn unknown_settings_are_left_out_step_by_step() {
        let (made, tried) = refusing(Errno::INVAL, None);
        assert_eq!(made.err().unwrap().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(tried, LADDER);
    }

    #[test]
    fn a_forbidden_ring_is_refused_at_once_with_the_reason() {
        for (errno, word) in
            [(Errno::PERM, "seccomp"), (Errno::NOSYS, "built without"), (Errno::NOMEM, "ulimit")]
        {
            let (made, tried) = refusing(errno, None);
            assert!(made.err().unwrap().to_string().contains(word));
            assert_eq!(tried, [Rung::Deferred]);
        }
    }

    #[test]
    fn every_rung_that_the_kernel_accepts_is_taken() {
        if let Err(error) = make(8) {
            eprintln!("skipped: {error}");
            return;
        }
        for rung in LADDER {
            let (made, tried) = refusing(Errno::INVAL, Some(rung));
            assert_eq!(made.unwrap().rung, rung);
            assert_eq!(tried.last(), Some(&rung));
        }
    }
}
