//! Moves bytes from files to sockets by the cheapest route the kernel has, and says which.
#![deny(clippy::print_stdout, clippy::print_stderr)]
