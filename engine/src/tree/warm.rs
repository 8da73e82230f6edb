//! Loading what searches will read, for many keys level by level: their misses of the caches overlap.
//!
//! Safe Rust has no prefetch, so a word of each line is read, and the sum is given to nobody.

use super::node::{Kind, Node};
use std::hint::black_box;

/// Keys that go down together. With half as many memory idles, and twice as many are hardly faster.
const GROUP: usize = 16;

pub(super) fn warm<V>(root: &Node<V>, keys: &[&[u8]]) {
    for keys in keys.chunks(GROUP) {
        let mut nodes = [root; GROUP];
        let nodes = &mut nodes[..keys.len()];
        read(nodes.iter().map(|node| node.touch()));
        while descend(nodes, keys) {
            read(nodes.iter().map(|node| node.touch()));
        }
        warm_items(nodes, keys);
    }
}

/// The places first, then all the reads: as many as are few instructions apart go on at once.
fn warm_items<V>(leaves: &[&Node<V>], keys: &[&[u8]]) {
    let mut places = [0; GROUP];
    for ((place, leaf), key) in places.iter_mut().zip(leaves).zip(keys) {
        *place = leaf.leaf().guess(key);
    }
    read(leaves.iter().zip(places).map(|(leaf, place)| leaf.leaf().touch_item(place)));
}

/// Goes one level down with each key. False if these are leaves.
fn descend<V>(nodes: &mut [&Node<V>], keys: &[&[u8]]) -> bool {
    for (node, key) in nodes.iter_mut().zip(keys) {
        let Kind::Inner(inner) = node.kind() else {
            return false;
        };
        *node = &inner.children()[inner.route(key)];
    }
    true
}

/// The sum keeps the reads from being left out; nothing depends on it, so that none of them waits for another.
pub(super) fn read(words: impl Iterator<Item = usize>) {
    black_box(words.fold(0, usize::wrapping_add));
}
