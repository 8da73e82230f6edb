//! Who leads, as far as any connection has heard.

use parking_lot::Mutex;

/// The endpoints and the leader, shared by all connections.
#[derive(Debug)]
pub struct Directory {
    endpoints: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    leader: Option<String>,
    next: usize,
}

impl Directory {
    /// A directory that knows no leader. Requires: at least one endpoint.
    pub fn new(endpoints: Vec<String>) -> Directory {
        assert!(!endpoints.is_empty());
        Directory { endpoints, known: Mutex::new(Known::default()) }
    }

    /// The endpoints, separated by commas.
    pub fn endpoints(&self) -> String {
        self.endpoints.join(",")
    }

    /// Where to connect: the leader if one is known, else the endpoints in turn.
    pub fn candidate(&self) -> String {
        let mut known = self.known.lock();
        if let Some(leader) = &known.leader {
            return leader.clone();
        }
        let candidate = self.endpoints[known.next % self.endpoints.len()].clone();
        known.next = known.next.wrapping_add(1);
        candidate
    }

    /// Somebody says that `addr` leads; it need not be one of the endpoints.
    pub fn learn(&self, addr: &str) {
        let mut known = self.known.lock();
        if known.leader.as_deref() != Some(addr) {
            known.leader = Some(addr.to_owned());
        }
    }

    /// `addr` does not lead, or cannot be reached.
    pub fn forget(&self, addr: &str) {
        let mut known = self.known.lock();
        if known.leader.as_deref() == Some(addr) {
            known.leader = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_asked_in_turn_until_a_leader_is_known_and_after_it_is_lost() {
        let directory = Directory::new(vec!["a:1".into(), "b:1".into()]);
        assert_eq!(directory.candidate(), "a:1");
        assert_eq!(directory.candidate(), "b:1");
        directory.learn("c:1");
        assert_eq!(directory.candidate(), "c:1");
        directory.forget("a:1");
        assert_eq!(directory.candidate(), "c:1");
        directory.forget("c:1");
        assert_eq!(directory.candidate(), "a:1");
    }
}
