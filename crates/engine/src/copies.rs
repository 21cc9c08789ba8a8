//! Counts the bytes that the kernel's copy functions move while this thread sends: kprobe events
//! with histograms, in a tracefs instance of its own. Needs root.
//!
//! The functions that copy, in lib/, cannot be probed: the kernel does not trace that directory.
//! Those that call them can, and know the number of bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::MemfdFlags;

use crate::blocking::send;
use crate::error::TransferError;
use crate::route::{Route, RouteChoice};
use crate::source::{Payload, SourceFile};

/// Little enough to lie in the socket's buffers until nobody reads it.
const SAMPLE_BYTES: u64 = 64 * 1024;
/// What system calls copy besides: addresses, vectors, commands to tracefs.
const SLACK_BYTES: u64 = 4 * 1024;

/// Where on its way to the wire a byte is copied, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OutOfFile,
    UserMemory,
    Packets,
    ByReference,
}

/// A function of the kernel that tells how many bytes it, or what it calls, copies.
struct Function {
    stage: Stage,
    name: &'static str,
    /// `p` at its entry, `r` at its return with room for so many at once.
    probe: &'static str,
    bytes: &'static str,
}

const FUNCTIONS: [Function; 6] = [
    // read(2) of the page cache, and of tmpfs. Splicing passes by here too before Linux 6.5.
    at_return(Stage::OutOfFile, "filemap_read"),
    at_return(Stage::OutOfFile, "shmem_file_read_iter"),
    // Guards each copy from and to user memory, but for copies out of whole pages.
    at_entry(Stage::UserMemory, "__check_object_size", "$arg2"),
    // Both linearize or segment packets for a device without scatter-gather.
    at_entry(Stage::Packets, "skb_copy_bits", "$arg4:s32"),
    at_entry(Stage::Packets, "skb_copy_and_csum_bits", "$arg4:s32"),
    // Hangs the file's pages into a packet. Its presence tells Linux 6.5 and newer.
    at_return(Stage::ByReference, "skb_splice_from_iter"),
];

const fn at_entry(stage: Stage, name: &'static str, bytes: &'static str) -> Function {
    Function { stage, name, probe: "p", bytes }
}

const fn at_return(stage: Stage, name: &'static str) -> Function {
    Function { stage, name, probe: "r64", bytes: "$retval:s64" }
}

/// Bytes by what became of them between a file and the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copies {
    /// Copied out of the file by read(2), by the counting thread.
    pub out_of_file: u64,
    /// Copied from and to user memory otherwise, such as into a socket, by the counting thread.
    pub user_memory: u64,
    /// Copied to make packets for the device, by the whole system: it happens in interrupts.
    pub packets: u64,
    /// Passed into a socket as references to pages, by the counting thread: no copies.
    pub by_reference: u64,
}

impl Copies {
    /// All bytes that were copied.
    #[must_use]
    pub fn total(self) -> u64 {
        self.out_of_file + self.user_memory + self.packets
    }
}

/// Why copies cannot be counted here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The kernel has no kprobe events, tracefs is not mounted, or we may not look into it.
    #[error(
        "no kprobe events in {} ({source}): needs root, tracefs and CONFIG_KPROBE_EVENTS",
        .tracefs.display()
    )]
    NoKprobes {
        /// Where tracefs should be.
        tracefs: PathBuf,
        /// What opening the events said.
        source: io::Error,
    },
    /// The kernel lacks the function, or does not let it be counted.
    #[error("cannot count {function} ({source}): needs Linux 6.5 and CONFIG_HARDENED_USERCOPY")]
    NoProbe {
        /// Its name.
        function: &'static str,
        /// What tracefs said.
        source: io::Error,
    },
    /// 64 KiB sent by read and write, two copies of each byte, were counted as something else.
    #[error(
        "this kernel copies elsewhere: {SAMPLE_BYTES} bytes read and written count as {counted:?}"
    )]
    Miscounted {
        /// What was counted.
        counted: Copies,
    },
    /// Sending the sample failed.
    #[error(transparent)]
    Send(#[from] TransferError),
    /// The sample's file or connection, or reading what was counted, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Counters in the kernel, removed when dropped.
#[derive(Debug)]
pub struct CopyCounters {
    tracefs: PathBuf,
    /// Told apart from those of other processes, and others of this one.
    name: String,
    /// What commands each histogram. Kept open: looking up a path counts as user memory.
    triggers: Vec<File>,
}

impl CopyCounters {
    /// Sets the counters up, and makes sure on a sample over loopback that they count.
    ///
    /// # Errors
    ///
    /// Those of [`Unavailable`]; nothing is then left behind in tracefs.
    pub fn open() -> Result<Self, Unavailable> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pagewire_{}_{number}", std::process::id());
        let tracefs = PathBuf::from("/sys/kernel/tracing");
        let mut counters = Self { tracefs, name, triggers: Vec::new() };
        if let Err(source) = append(&counters.events(), "\n") {
            return Err(Unavailable::NoKprobes { tracefs: counters.tracefs.clone(), source });
        }
        fs::create_dir(counters.instance())?;
        for function in &FUNCTIONS {
            let refused = |source| Unavailable::NoProbe { function: function.name, source };
            let trigger = counters.probe(function).map_err(refused)?;
            counters.triggers.push(trigger);
        }
        counters.check()?;
        Ok(counters)
    }

    /// Runs `work` and tells what was copied meanwhile.
    ///
    /// `work` sends on the calling thread, and returns when the last byte has arrived: until
    /// then packets may still be copied. Whoever receives does so on another thread. Packets are
    /// those of the whole system, so it should be quiet.
    ///
    /// # Errors
    ///
    /// Those of tracefs; `InvalidData` when the kernel missed calls, so that the count is short.
    pub fn count<T>(&self, work: impl FnOnce() -> T) -> io::Result<(T, Copies)> {
        self.command("clear")?;
        self.command("cont")?;
        let worked = work();
        self.command("pause")?;
        Ok((worked, self.copies()?))
    }

    fn check(&self) -> Result<(), Unavailable> {
        let file: File = rustix::fs::memfd_create("pagewire-copies", MemfdFlags::CLOEXEC)
            .map_err(io::Error::from)?
            .into();
        file.set_len(SAMPLE_BYTES)?;
        let sample = SourceFile::new(file)?.range(0, SAMPLE_BYTES);
        let sample = sample.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sender = TcpStream::connect(listener.local_addr()?)?;
        let payload = Payload::new().file(sample);
        let only = RouteChoice::Only(Route::ReadWrite);
        let (sent, counted) = self.count(|| send(payload, &sender, only))?;
        sent?;
        let expected = SAMPLE_BYTES..SAMPLE_BYTES + SLACK_BYTES;
        let right = counted.out_of_file == SAMPLE_BYTES && expected.contains(&counted.user_memory);
        if right { Ok(()) } else { Err(Unavailable::Miscounted { counted }) }
    }

    fn copies(&self) -> io::Result<Copies> {
        let mut copies = Copies::default();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        for function in &FUNCTIONS {
            let histogram = fs::read_to_string(self.of(function).join("hist"))?;
            if !histogram.contains("Dropped: 0\n") {
                return Err(missed(function.name));
            }
            let counts = histogram.lines().filter_map(Count::parse);
            let of_thread = |count: &Count| count.thread == i64::from(thread);
            let (sum, total) = match function.stage {
                Stage::OutOfFile => (&mut copies.out_of_file, sum(counts.filter(of_thread))),
                Stage::UserMemory => (&mut copies.user_memory, sum(counts.filter(of_thread))),
                Stage::Packets => (&mut copies.packets, sum(counts)),
                Stage::ByReference => (&mut copies.by_reference, sum(counts.filter(of_thread))),
            };
            *sum += total;
        }
        self.missed_none()?;
        Ok(copies)
    }

    /// Lines of the profile are: event, hits, misses.
    fn missed_none(&self) -> io::Result<()> {
        let profile = fs::read_to_string(self.tracefs.join("kprobe_profile"))?;
        for line in profile.lines().filter(|line| line.contains(&self.name)) {
            if line.split_whitespace().nth(2) != Some("0") {
                return Err(missed(line));
            }
        }
        Ok(())
    }

    fn probe(&self, function: &Function) -> io::Result<File> {
        let Function { name, probe, bytes, .. } = function;
        let event = self.event(function);
        append(&self.events(), &format!("{probe}:pagewire/{event} {name} bytes={bytes}\n"))?;
        let trigger = OpenOptions::new().append(true).open(self.of(function).join("trigger"))?;
        command(&trigger, "pause")?;
        Ok(trigger)
    }

    /// Tells each histogram to `pause`, `cont` or `clear`.
    fn command(&self, what: &str) -> io::Result<()> {
        self.triggers.iter().try_for_each(|trigger| command(trigger, what))
    }

    /// The list of all kprobe events; what is not appended to it replaces it.
    fn events(&self) -> PathBuf {
        self.tracefs.join("kprobe_events")
    }

    fn event(&self, function: &Function) -> String {
        format!("{}_{}", function.name, self.name)
    }

    fn instance(&self) -> PathBuf {
        self.tracefs.join("instances").join(&self.name)
    }

    fn of(&self, function: &Function) -> PathBuf {
        self.instance().join("events/pagewire").join(self.event(function))
    }
}

impl Drop for CopyCounters {
    fn drop(&mut self) {
        // Each holds the next: open files, instance, events. What was never made stays unmade.
        self.triggers.clear();
        fs::remove_dir(self.instance()).ok();
        for function in &FUNCTIONS {
            append(&self.events(), &format!("-:pagewire/{}\n", self.event(function))).ok();
        }
    }
}

fn command(mut trigger: &File, what: &str) -> io::Result<()> {
    // What returns an error copies nothing.
    let line = format!("hist:keys=common_pid:vals=bytes:{what} if bytes > 0\n");
    trigger.write_all(line.as_bytes())
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(line.as_bytes())
}

fn missed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the kernel missed calls: {what}"))
}

/// One line of a histogram: `{ common_pid: 159 } hitcount: 1 bytes: 15`.
struct Count {
    thread: i64,
    bytes: u64,
}

impl Count {
    fn parse(line: &str) -> Option<Self> {
        let (thread, values) = line.strip_prefix("{ common_pid:")?.split_once('}')?;
        let bytes = values.split_once("bytes:")?.1.trim().parse().ok()?;
        Some(Self { thread: thread.trim().parse().ok()?, bytes })
    }
}

fn sum(counts: impl Iterator<Item = Count>) -> u64 {
    counts.map(|count| count.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_summed_by_thread() {
        let histogram = "\
            # event histogram\n\
            # trigger info: hist:keys=common_pid:vals=hitcount,bytes:sort=hitcount:size=2048\n\
            \n\
            { common_pid:          0 } hitcount:          2  bytes:        816\n\
            { common_pid:        157 } hitcount:          9  bytes:    8000000\n\
            \n\
            Totals:\n    Hits: 11\n    Entries: 2\n    Dropped: 0\n";
        let counts = || histogram.lines().filter_map(Count::parse);
        assert_eq!(sum(counts()), 8_000_816);
        assert_eq!(sum(counts().filter(|count| count.thread == 157)), 8_000_000);
    }
}
