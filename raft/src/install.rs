//! Taking over a snapshot when the leader's log no longer reaches back far enough.
//!
//! The core only decides; the bytes travel from driver to driver. An offer is of committed state,
//! so finishing one that the present leader has not made is still right; what must not happen is
//! that the state machine goes back, hence an install ends as soon as the log has caught up.
//!
//! Invariant: while an install is under way, `handed_index < meta.last.index`.

use crate::mutant::Mutant;
use crate::raft::{Replay, Role};
use crate::{
    AppendOutcome, Batch, Event, InstallId, LogId, LogIndex, NodeId, Raft, SendId, SnapshotMeta,
    SnapshotOrder, StepError,
};

/// One attempt.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Install {
    id: InstallId,
    meta: SnapshotMeta,
    from: NodeId,
    send: SendId,
    /// The term has changed since: the caller is told to stop with the next `Ready`.
    pub(crate) is_outdated: bool,
}

impl Raft {
    /// The leader offers a snapshot.
    pub(crate) fn handle_snapshot(
        &mut self,
        from: NodeId,
        meta: SnapshotMeta,
        send: SendId,
    ) -> Result<(), StepError> {
        if meta.membership != self.membership {
            return Err(StepError::OtherMembership { from });
        }
        if meta.last.term > self.term {
            return Err(StepError::OutOfRange { from });
        }
        let LogId { index, .. } = meta.last;
        let is_needed = index > self.commit_index;
        let follower = self.follow(from)?;
        if !is_needed {
            follower.owe_answer(index);
            return Ok(());
        }
        if index <= follower.matched() && !self.log.contains(meta.last) {
            return Err(StepError::ContradictsMatched { index });
        }
        let known = |i: &Install| !i.is_outdated && (i.from, i.send) == (from, send);
        if self.install.as_ref().is_some_and(known) {
            return Ok(());
        }
        self.stop_install();
        let id = InstallId(self.fresh_number());
        let order = SnapshotOrder::Install { id, meta: meta.clone(), from, send };
        self.queued.snapshots.push(order);
        self.install = Some(Install { id, meta, from, send, is_outdated: false });
        Ok(())
    }

    /// While a snapshot is on its way, whatever matches beyond its last entry must hold that entry:
    /// the log would go when the snapshot has come, and with it what was acknowledged.
    pub(crate) fn check_against_install(
        &self,
        upto: LogIndex,
        batches: &[Batch],
    ) -> Result<(), StepError> {
        let Some(Install { meta: SnapshotMeta { last, .. }, .. }) = &self.install else {
            return Ok(());
        };
        let told = batches.iter().find(|b| (b.first()..=b.last()).contains(&last.index));
        let term = told.map(Batch::term).or_else(|| self.log.term(last.index));
        if upto >= last.index && term != Some(last.term) {
            return Err(StepError::ContradictsMatched { index: last.index });
        }
        Ok(())
    }

    /// The snapshot is durable and loaded into the state machine, or will not come. An install
    /// that has been stopped or replaced in the meantime is ignored; the caller must not load a
    /// snapshot after [`SnapshotOrder::StopInstalling`].
    pub fn snapshot_received(&mut self, install: InstallId, ok: bool) {
        let Some(taken) = self.install.take_if(|current| current.id == install) else { return };
        if ok {
            self.install(taken.meta);
        } else if !taken.is_outdated {
            // Said also when the leader is out of hearing: it is still the leader of this term, and
            // waits for nothing else.
            let hint = self.log.id(self.commit_index).expect("the log reaches the commit index");
            let outcome = AppendOutcome::Rejected { prev: taken.meta.last, hint };
            self.send(taken.from, self.append_reply(outcome));
        }
    }

    /// The state machine now stands at the snapshot. A log that holds the snapshot's last entry
    /// holds nothing that contradicts it and keeps what comes after; any other log goes, whole.
    fn install(&mut self, meta: SnapshotMeta) {
        let last = meta.last;
        assert!(last.index > self.handed_index);
        assert!(!matches!(self.role, Role::Leader(_)));
        let wrong = self.config.mutant(Mutant::InstallKeepsConflictingTail)
            && self.log.last_index() >= last.index;
        if self.log.contains(last) || wrong {
            self.commit_to(last.index);
            self.log.covered_by_snapshot(last.index);
        } else {
            if self.log.last_index() > self.commit_index {
                self.queued.events.push(Event::Truncated { from: self.commit_index.next() });
            }
            self.log.reset(meta, self.commit_index);
            self.commit_index = self.commit_index.max(last.index);
        }
        self.handed_index = last.index;
        self.applied_index = last.index;
        self.replay = Replay::default();
        if let Role::Follower(follower) = &mut self.role {
            follower.matches_upto(last.index);
            follower.owe_answer(last.index);
        }
    }

    /// Ends an install of an earlier term, or one that the log has made pointless.
    pub(crate) fn stop_outdated_install(&mut self) {
        let committed = self.commit_index;
        let is_over = |i: &Install| i.is_outdated || i.meta.last.index <= committed;
        if self.install.as_ref().is_some_and(is_over) {
            self.stop_install();
        }
    }

    fn stop_install(&mut self) {
        if let Some(install) = self.install.take() {
            self.queued.snapshots.push(SnapshotOrder::StopInstalling { id: install.id });
        }
    }
}
