//! The state as the engine's cleaner sees it.

use engine::{Location, StoredValue, ValueIndex};
use raft::Kind;

use crate::peer_message::kind_of;
use crate::state_machine::{CommandRef, EntryReader, INLINE_BYTES_MAX, State};

/// A state whose values may move, for [`engine::Engine::clean`].
#[expect(missing_debug_implementations, reason = "a state is too long to be shown")]
pub struct Cleanable<'a>(pub &'a mut State);

impl ValueIndex for Cleanable<'_> {
    fn live_bytes(&self, slot: u32) -> u64 {
        self.0.live_bytes(slot)
    }

    fn values_of(&self, kind: u8, payload: &[u8], show: &mut dyn FnMut(StoredValue<'_>)) {
        if kind_of(kind) != Some(Kind::Normal) {
            return;
        }
        // An entry that was applied once decodes again.
        let Ok(entry) = EntryReader::open(payload) else { return };
        for decoded in entry.commands() {
            let (key, value) = match decoded.command {
                CommandRef::Put { key, value }
                | CommandRef::CompareAndSet { key, value: Some(value), .. } => (key, value),
                CommandRef::CompareAndSet { value: None, .. }
                | CommandRef::Delete { .. }
                | CommandRef::DeleteRange { .. }
                | CommandRef::SessionOpen { .. }
                | CommandRef::SessionClose { .. }
                | CommandRef::SessionExpire { .. }
                | CommandRef::LockAcquire { .. }
                | CommandRef::LockRelease { .. }
                | CommandRef::LockCancel { .. } => continue,
            };
            if value.len() > INLINE_BYTES_MAX {
                let (start, checksum) = (decoded.key_offset, decoded.value_checksum);
                show(StoredValue { start, key, value, checksum });
            }
        }
    }

    fn is_live(&self, key: &[u8], at: Location, checksum: u32) -> bool {
        self.0.lies_at(key, at, checksum)
    }

    fn relocate(&mut self, key: &[u8], from: Location, to: Location, checksum: u32) {
        self.0.relocate(key, from, to, checksum);
    }
}
