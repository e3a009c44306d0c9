//! The `ditscope` program.
fn main() {}
