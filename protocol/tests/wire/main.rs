//! What is on the wire: its bytes, what is refused, and that the document says the same.

mod corpus;
mod document;
mod frames;
mod golden;
mod messages;
mod samples;
