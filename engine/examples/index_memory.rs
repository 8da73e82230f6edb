//! What a key costs in memory, all in: a tree of 24-byte keys and 56-byte values, by the growth of the process.
//!
//! `cargo run --release -p engine --example index_memory -- random 10000000`; the orders are `ascending`, `descending`,
//! `random`, `built`, and `removed` (twice as many at random, of which half are removed).

use engine::tree::{Builder, Tree};
use std::{env, fs};

type Value = [u64; 7];

fn main() {
    let mut arguments = env::args().skip(1);
    let order = arguments.next().unwrap_or_else(|| "random".into());
    let count: u32 = arguments.next().map_or(10_000_000, |n| n.parse().expect("a number of keys"));
    let numbers = match &order[..] {
        "ascending" | "built" => (0..count).collect(),
        "descending" => (0..count).rev().collect(),
        "random" => shuffled(count),
        "removed" => shuffled(2 * count),
        _ => panic!("no such order"),
    };
    let before = resident_bytes();
    let tree = match &order[..] {
        "built" => built(&numbers),
        _ => inserted(&numbers, count),
    };
    let bytes = resident_bytes() - before;
    assert!(tree.len() == u64::from(count));
    eprintln!("{order}: {} bytes a key", bytes.div_ceil(count.into()));
}

fn built(numbers: &[u32]) -> Tree<Value> {
    let mut builder = Builder::new();
    for &n in numbers {
        builder.push(&key(n.into()), [n.into(); 7]);
    }
    builder.finish()
}

/// A tree in which all numbers were inserted and some removed, from the first on.
fn inserted(numbers: &[u32], count: u32) -> Tree<Value> {
    let mut tree = Tree::new();
    for &n in numbers {
        tree.insert(&key(n.into()), [n.into(); 7]);
    }
    for &n in &numbers[..numbers.len() - count as usize] {
        tree.remove(&key(n.into()));
    }
    tree
}

/// The numbers below `count` without order, the same in every run.
fn shuffled(count: u32) -> Vec<u32> {
    let mut numbers = (0..count).collect::<Vec<_>>();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..numbers.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let other = random % (at as u64 + 1);
        numbers.swap(at, usize::try_from(other).expect("below a usize"));
    }
    numbers
}

fn key(n: u64) -> [u8; 24] {
    let mut key = *b"key-00000000000000000000";
    let mut rest = n;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    key
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has one");
    let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    kib.expect("a number") * 1024
}
