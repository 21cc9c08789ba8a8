//! The one integration binary: the real `pagewire` against real clients and real faults.
#![cfg(test)]

mod archives;
mod cli;
mod cold;
mod doctor;
mod downloads;
mod faults;
mod idle;
mod lab;
mod listing;
mod proof;
mod stuck;
mod support;
mod syscalls;
mod tidy;
mod tls_vm;
mod traversal;
mod vm;
