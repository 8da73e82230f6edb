//! File descriptors: how many this process may have, and how many of them clients may take.
//!
//! A log that cannot open its next slot or checkpoint ends the node, so clients never get all.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What clients leave to the log, the peers and the refusals: a quarter of all, within these.
const RESERVE_MIN: u64 = 256;
const RESERVE_MAX: u64 = 4096;

/// As many clients as are wanted, or as many as the limit of open files leaves room for.
///
/// The soft limit, usually 1,024, is raised to the hard one first.
pub(crate) fn connections_max(wanted: usize) -> usize {
    let Some(limit) = raised_limit() else { return wanted };
    let allowed = share_of_clients(limit).min(wanted);
    if allowed < wanted {
        tracing::warn!(
            "--connections-max {wanted} is too much for a limit of {limit} open files (ulimit -n): \
             at most {allowed} clients can be connected"
        );
    }
    allowed
}

/// How many files may be open; `None` is no limit.
fn raised_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if current == maximum || setrlimit(Resource::Nofile, raised).is_ok() {
        return maximum;
    }
    current
}

fn share_of_clients(limit: u64) -> usize {
    let reserve = (limit / 4).clamp(RESERVE_MIN, RESERVE_MAX);
    usize::try_from(limit.saturating_sub(reserve)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_a_reserve_whatever_the_limit() {
        let shares = [0, 256, 300, 1024, 4096, 20_000, 1 << 20].map(share_of_clients);
        assert_eq!(shares, [1, 1, 44, 768, 3072, 15_904, (1 << 20) - 4096]);
    }

    #[test]
    fn soft_limit_is_raised_to_the_hard_one() {
        let allowed = connections_max(10);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(allowed <= 10);
    }
}
