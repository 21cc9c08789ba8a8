//! What happens to bytes on their way from a file to one end of a connection: counted by the
//! engine's meter, and told by the mutation oracle. In this process, without HTTP.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, ensure};
use pagewire_engine::copies::{Copies, CopyCounters};
use pagewire_engine::proof::{self, Passage};
use pagewire_engine::{Count, Payload, Report, Route, RouteChoice, SourceFile, blocking, pacing};
use rustix::event::{Timespec, poll};
use rustix::net::RecvFlags;

use crate::lab::files::{Files, MIB, Target};
use crate::lab::place::Place;

/// Little enough to lie in the receiver's buffers until it is read.
const SAMPLE_BYTES: usize = 64 * 1024;
const ARRIVAL_LOOKS_MAX: u32 = 100_000;

/// Two places with a connection between them, from the server's to the client's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between<'a> {
    pub(crate) server: &'a Place,
    pub(crate) client: &'a Place,
}

impl Between<'_> {
    /// Sends the whole file by `route` and tells what the meter counted, and what `counters` in
    /// the kernel did.
    pub(crate) fn meter(
        self,
        files: &Files,
        target: &Target,
        route: Route,
        counters: Option<&CopyCounters>,
    ) -> anyhow::Result<(Count, Option<Copies>)> {
        let (sender, receiver) = self.connect()?;
        let source = SourceFile::new(File::open(files.on_disk(target))?)?;
        let payload = Payload::new().file(source.whole());
        let (tell, drained) = channel();
        let (report, copies) = thread::scope(|scope| {
            // Nobody listens when sending failed, which is told instead.
            scope.spawn(move || tell.send(self.client.run(move || drain(&receiver))).ok());
            self.server.run(|| {
                let send = move || -> anyhow::Result<Report> {
                    let report = blocking::send(payload, &sender, RouteChoice::Only(route))?;
                    // Packets are made until the last byte has arrived.
                    sender.shutdown(Shutdown::Write)?;
                    let received = drained.recv().context("the receiver panicked")??;
                    let sent = report.tally.total().bytes;
                    ensure!(received == sent, "{received} of {sent} bytes arrived");
                    Ok(report)
                };
                let Some(counters) = counters else { return Ok((send()?, None)) };
                let (report, copies) = counters.count(send)?;
                Ok((report?, Some(copies)))
            })
        })?;
        let count = report.tally.route(route);
        ensure!(count.bytes == target.bytes, "the kernel refuses {route} here");
        Ok((count, copies))
    }

    /// Whether bytes pass by reference to the receiver, by `route`.
    pub(crate) fn oracle(self, files: &Files, route: Route) -> anyhow::Result<Passage> {
        let scratch = proof::scratch_file_in(files.path());
        let scratch = scratch.or_else(|_| proof::scratch_file_in_memory())?;
        let (sender, receiver) = self.connect()?;
        Ok(proof::mutation_oracle(route, &scratch, sender, receiver)?)
    }

    /// Whether the socket copies what a process writes: memory is written, overwritten, and only
    /// then read at the other end. This is what tells the second copy of `read-write`.
    pub(crate) fn socket_copies_memory(self) -> anyhow::Result<bool> {
        const OLD: u8 = 0xA5;
        const NEW: u8 = 0x5A;
        let (mut sender, mut receiver) = self.connect()?;
        let mut memory = vec![OLD; SAMPLE_BYTES];
        sender.write_all(&memory)?;
        let mut looks = 0;
        while rustix::io::ioctl_fionread(&receiver)? < SAMPLE_BYTES as u64 {
            looks += 1;
            ensure!(looks < ARRIVAL_LOOKS_MAX, "a sample of {SAMPLE_BYTES} bytes did not arrive");
            let moment = Timespec { tv_sec: 0, tv_nsec: 100_000 };
            // A signal may end the pause early, which does no harm.
            poll(&mut [], Some(&moment)).ok();
        }
        memory.fill(NEW);
        let mut arrived = vec![0; SAMPLE_BYTES];
        receiver.read_exact(&mut arrived)?;
        Ok(arrived.iter().all(|byte| *byte == OLD))
    }

    fn connect(self) -> anyhow::Result<(TcpStream, TcpStream)> {
        let address = self.server.address;
        let listener = self.server.run(|| Ok(TcpListener::bind((address, 0))?))?;
        pacing::spare_loopback(&listener, address)?;
        let at = listener.local_addr()?;
        let receiver = self.client.run(|| Ok(TcpStream::connect(at)?));
        let receiver = receiver.with_context(|| format!("cannot connect to {at}"))?;
        let (sender, _) = listener.accept()?;
        Ok((sender, receiver))
    }
}

/// Drops in the kernel whatever arrives; returns how much it was.
fn drain(receiver: &TcpStream) -> anyhow::Result<u64> {
    let mut dropped = vec![MaybeUninit::uninit(); usize::try_from(MIB)?];
    let mut bytes = 0;
    loop {
        let (_, read) = rustix::net::recv(receiver, &mut dropped[..], RecvFlags::TRUNC)?;
        if read == 0 {
            return Ok(bytes);
        }
        bytes += read as u64;
    }
}
