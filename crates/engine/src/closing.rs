//! Closes files that lie behind a server or a process: FUSE and NFS ask it at close(2), so that no
//! thread that has other things to do may. One thread for each file system in use, which ends when
//! it had nothing to do for a while; `source.rs` hands it what it drops.

use std::collections::HashMap;
use std::fs::File;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::sys::mapping::Mapping;

/// A thread that had nothing to close for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// What is left of a file that nobody holds any more.
#[derive(Debug)]
pub(crate) struct Closing {
    /// The device of its file system.
    pub(crate) device: u64,
    pub(crate) file: File,
    pub(crate) mapping: Option<Mapping>,
}

impl Closing {
    fn run(self) {
        drop((self.mapping, self.file));
    }
}

/// The threads, by the device whose files they close.
static THREADS: LazyLock<Mutex<HashMap<u64, Sender<Closing>>>> = LazyLock::new(Mutex::default);

fn threads() -> MutexGuard<'static, HashMap<u64, Sender<Closing>>> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a file without waiting for it.
pub(crate) fn close(closing: Closing) {
    let device = closing.device;
    let mut threads = threads();
    let sender = threads.entry(device).or_insert_with(|| {
        let (sender, receiver) = channel();
        let builder = thread::Builder::new().name("close".to_owned());
        if let Err(error) = builder.spawn(move || work(device, &receiver)) {
            tracing::warn!(%error, "no thread to close files of a server");
        }
        sender
    });
    let sent = sender.send(closing);
    if let Err(unsent) = sent {
        // There is no thread: the next file tries again to have one.
        threads.remove(&device);
        drop(threads);
        unsent.0.run();
    }
}

fn work(device: u64, receiver: &Receiver<Closing>) {
    loop {
        match receiver.recv_timeout(IDLE_MAX) {
            Ok(closing) => closing.run(),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let mut threads = threads();
                match receiver.try_recv() {
                    Ok(closing) => {
                        drop(threads);
                        closing.run();
                    }
                    Err(_) => {
                        threads.remove(&device);
                        return;
                    }
                }
            }
        }
    }
}
