//! The one queue into the replica's thread.

use std::sync::Arc;

use engine::io::Wake;
use parking_lot::Mutex;

use crate::replica::Input;

/// Filled by any thread, emptied by the replica's. What clients put in is bounded by their connections' windows.
pub struct Inbox {
    queue: Mutex<Vec<Input>>,
    waker: Arc<dyn Wake>,
}

impl Inbox {
    /// An empty queue; `waker` ends the wait of the thread that empties it.
    pub fn new(waker: Arc<dyn Wake>) -> Inbox {
        Inbox { queue: Mutex::new(Vec::new()), waker }
    }

    /// Adds one.
    pub fn push(&self, input: Input) {
        let mut queue = self.queue.lock();
        let was_empty = queue.is_empty();
        queue.push(input);
        drop(queue);
        self.wake_if(was_empty);
    }

    /// Adds all and leaves `inputs` empty.
    pub fn push_all(&self, inputs: &mut Vec<Input>) {
        if inputs.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        let was_empty = queue.is_empty();
        queue.append(inputs);
        drop(queue);
        self.wake_if(was_empty);
    }

    /// Takes everything, into an empty vector.
    pub fn take(&self, into: &mut Vec<Input>) {
        assert!(into.is_empty());
        std::mem::swap(&mut *self.queue.lock(), into);
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// A queue that was not empty has a wake-up under way already.
    fn wake_if(&self, was_empty: bool) {
        if was_empty {
            self.waker.wake();
        }
    }
}
