//! One ordered map that can be streamed as it was while it goes on changing.
//!
//! A view costs nothing until something changes ahead of its cursor: then the item as it was (its
//! *pre-image*) is set aside once, and the stream takes it instead of what is there by then.
//!
//! Invariants, while a view is open:
//! - an item at or before the cursor has been streamed and is never set aside;
//! - an item after the cursor without a pre-image is as it was when the view began;
//! - a pre-image of `None` says that the item did not exist then.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

#[derive(Clone)]
pub(super) struct Table<K, V> {
    items: BTreeMap<K, V>,
    view: Option<View<K, V>>,
}

#[derive(Clone)]
struct View<K, V> {
    cursor: Cursor<K>,
    saved: BTreeMap<K, Option<V>>,
}

#[derive(Clone)]
enum Cursor<K> {
    Start,
    After(K),
    End,
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub(super) fn new() -> Table<K, V> {
        Table { items: BTreeMap::new(), view: None }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.items.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.items.iter()
    }

    pub(super) fn last_key(&self) -> Option<&K> {
        self.items.last_key_value().map(|(key, _)| key)
    }

    /// The item, to be changed in place.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some(view) = &mut self.view
            && view.must_save(key)
            && let Some((key, value)) = self.items.get_key_value(key)
        {
            view.saved.insert(key.clone(), Some(value.clone()));
        }
        self.items.get_mut(key)
    }

    /// Adds an item.
    ///
    /// Requires: there is none under this key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if let Some(view) = &mut self.view
            && view.must_save(&key)
        {
            view.saved.insert(key.clone(), None);
        }
        let replaced = self.items.insert(key, value);
        assert!(replaced.is_none(), "an item was inserted over another");
    }

    /// Removes the item and says what `look` made of it.
    pub(super) fn remove<R>(&mut self, key: &K, look: impl FnOnce(&V) -> R) -> Option<R> {
        let (key, value) = self.items.remove_entry(key)?;
        let seen = look(&value);
        if let Some(view) = &mut self.view
            && view.must_save(&key)
        {
            view.saved.insert(key, Some(value));
        }
        Some(seen)
    }

    /// Opens a view of the items as they are now.
    ///
    /// Requires: none is open.
    pub(super) fn view_begin(&mut self) {
        assert!(self.view.is_none(), "one view at a time");
        self.view = Some(View { cursor: Cursor::Start, saved: BTreeMap::new() });
    }

    /// Passes items of the view to `emit`, in key order, until it breaks or none is left.
    /// `Continue` says that none is left.
    ///
    /// Requires: a view is open.
    pub(super) fn view_next(
        &mut self,
        mut emit: impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let view = self.view.as_mut().expect("the caller began a view");
        let Some(from) = view.cursor.bound() else {
            return ControlFlow::Continue(());
        };
        let mut live = self.items.range((from, Bound::Unbounded)).peekable();
        let mut saved = view.saved.range((from, Bound::Unbounded)).peekable();
        let stopped_at = loop {
            let (key, value) = match (live.peek(), saved.peek()) {
                (None, None) => break None,
                (Some((key, _)), Some((other, _))) if key < other => take_live(&mut live),
                (Some((key, _)), Some((other, _))) if key == other => {
                    live.next();
                    take_saved(&mut saved)
                }
                (Some(_), None) => take_live(&mut live),
                (_, Some(_)) => take_saved(&mut saved),
            };
            if let Some(value) = value
                && emit(key, value).is_break()
            {
                break Some(key.clone());
            }
        };
        view.advance(stopped_at)
    }

    /// Closes the view, if one is open.
    pub(super) fn view_end(&mut self) {
        self.view = None;
    }
}

fn take_live<'a, K, V>(live: &mut impl Iterator<Item = (&'a K, &'a V)>) -> (&'a K, Option<&'a V>) {
    let (key, value) = live.next().expect("just peeked");
    (key, Some(value))
}

fn take_saved<'a, K, V>(
    saved: &mut impl Iterator<Item = (&'a K, &'a Option<V>)>,
) -> (&'a K, Option<&'a V>) {
    let (key, value) = saved.next().expect("just peeked");
    (key, value.as_ref())
}

impl<K: Ord, V> View<K, V> {
    fn must_save(&self, key: &K) -> bool {
        let ahead = match &self.cursor {
            Cursor::Start => true,
            Cursor::After(last) => key > last,
            Cursor::End => false,
        };
        ahead && !self.saved.contains_key(key)
    }

    /// Moves the cursor to the last streamed key, or to the end, and drops what lies behind it.
    fn advance(&mut self, stopped_at: Option<K>) -> ControlFlow<()> {
        let Some(last) = stopped_at else {
            self.cursor = Cursor::End;
            self.saved.clear();
            return ControlFlow::Continue(());
        };
        while let Some(first) = self.saved.first_entry()
            && *first.key() <= last
        {
            first.remove();
        }
        self.cursor = Cursor::After(last);
        ControlFlow::Break(())
    }
}

impl<K> Cursor<K> {
    fn bound(&self) -> Option<Bound<&K>> {
        match self {
            Cursor::Start => Some(Bound::Unbounded),
            Cursor::After(last) => Some(Bound::Excluded(last)),
            Cursor::End => None,
        }
    }
}
