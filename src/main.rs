//! The `pagewire` program: parse, run one command, exit code.
#![forbid(unsafe_code)]

fn main() {}
