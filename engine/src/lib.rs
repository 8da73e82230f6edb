//! A segmented write-ahead log with durable, batched frames, and checkpoints, over one `Disk` trait.
pub mod buffer;
pub mod format;
pub mod io;
