//! The one integration binary: the real `pagewire` against real clients and real faults.
#![cfg(test)]

mod access;
mod acme;
mod admin;
mod archives;
mod bogo;
mod cli;
mod clients;
mod cold;
mod config;
mod doctor;
mod downloads;
mod faults;
mod http2;
mod https;
mod idle;
mod lab;
mod limits;
mod listing;
mod logs;
mod paper;
mod proof;
mod rekey_vm;
mod reload;
mod rfc9110;
mod sandbox;
mod site;
mod stuck;
mod support;
mod syscalls;
mod systemd;
mod tidy;
mod tls_clients;
mod tls_vm;
mod traversal;
mod vm;
