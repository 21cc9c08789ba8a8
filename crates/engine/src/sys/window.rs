//! Bytes of a file, read where they are mapped while others may cut the file shorter. The kernel
//! then answers with SIGBUS (mmap(2)), which is caught here (sigaction(2)), and the reader is told.

use std::ffi::{c_int, c_void};
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};
use std::sync::{LazyLock, OnceLock};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};
use rustix::param::page_size;

/// A part of a file, mapped with `PROT_READ` and `MAP_SHARED`.
#[derive(Debug)]
pub(crate) struct Window {
    pages: Mmap,
    /// Where it begins in the file.
    position: u64,
    /// What was read of it and not let go.
    read: Range<usize>,
    /// Bytes were missing once: zeros lie in their place.
    torn: bool,
}

impl Window {
    /// Maps `len` bytes of `file` from `position` on. No page is touched, so none is read.
    ///
    /// ENODEV when the file system cannot map, ENOMEM when the address space or
    /// `vm.max_map_count` is used up, EINVAL when `len` is zero; those of sigaction(2).
    pub(crate) fn of(file: impl AsFd, position: u64, len: u64) -> io::Result<Self> {
        HANDLED.as_ref().map_err(|error| io::Error::from_raw_os_error(*error))?;
        let len = usize::try_from(len).map_err(|_| rustix::io::Errno::OVERFLOW)?;
        if len == 0 {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let mut options = MmapOptions::new();
        options.offset(position).len(len);
        // SAFETY: the mapping is private to this struct, lives as long as it, and is never
        // written through. It is read in `read` only, which says what happens when others change
        // the file meanwhile.
        let pages = unsafe { options.map(file.as_fd().as_raw_fd()) }?;
        Ok(Self { pages, position, read: 0..0, torn: false })
    }

    /// Has `read` read the `len` bytes at `position` of the file. `None` when they do not lie in
    /// the window or were not all there, because the file was cut or a disk failed: what `read`
    /// made of them is not to be used.
    ///
    /// Another process may change the bytes under way, and then it is not said which were read:
    /// `read` is to look at each of them once, and to decide nothing by it.
    pub(crate) fn read<R>(
        &mut self,
        position: u64,
        len: usize,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let start = usize::try_from(position.checked_sub(self.position)?).ok()?;
        let range = start..start.checked_add(len)?;
        let bytes = self.pages.get(range.clone()).filter(|_| !self.torn)?;
        self.read = match self.read.is_empty() {
            true => range,
            false => self.read.start.min(range.start)..self.read.end.max(range.end),
        };
        let guard = Guard::over(&self.pages);
        let made = read(bytes);
        self.torn = guard.was_hit();
        (!self.torn).then_some(made)
    }

    /// Bytes that were read and not let go.
    pub(crate) fn held(&self) -> usize {
        self.read.len()
    }

    /// Gives back what was read: it stays in the page cache, and is no longer counted as memory
    /// of this process (madvise(2), MADV_DONTNEED).
    pub(crate) fn let_go(&mut self) {
        let read = mem::take(&mut self.read);
        if read.is_empty() {
            return;
        }
        // SAFETY: the pages are a file's, shared and never written: whoever touches them again
        // finds the same.
        let advised = unsafe {
            self.pages.unchecked_advise_range(UncheckedAdvice::DontNeed, read.start, read.len())
        };
        if let Err(error) = advised {
            tracing::debug!(%error, "pages that were read stay mapped");
        }
    }
}

/// Whole pages of which this thread expects SIGBUS.
struct Guarded {
    start: AtomicUsize,
    end: AtomicUsize,
    hit: AtomicBool,
}

thread_local! {
    /// Made when it is compiled, and never dropped: a signal handler may look at it.
    static GUARDED: Guarded = const {
        Guarded {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            hit: AtomicBool::new(false),
        }
    };
}

/// Guards a mapping that this thread reads, until it is dropped.
struct Guard {
    of_this_thread: PhantomData<*const ()>,
}

impl Guard {
    fn over(pages: &Mmap) -> Self {
        let (first, page) = (pages.as_ptr().addr(), page_size());
        GUARDED.with(|guarded| {
            guarded.hit.store(false, Ordering::Relaxed);
            guarded.start.store(first & !(page - 1), Ordering::Relaxed);
            let end = (first + pages.len()).next_multiple_of(page);
            guarded.end.store(end, Ordering::Relaxed);
        });
        // The handler runs on this thread: only the compiler could change the order.
        compiler_fence(Ordering::SeqCst);
        Self { of_this_thread: PhantomData }
    }

    fn was_hit(&self) -> bool {
        compiler_fence(Ordering::SeqCst);
        GUARDED.with(|guarded| guarded.hit.load(Ordering::Relaxed))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        GUARDED.with(|guarded| guarded.end.store(0, Ordering::Relaxed));
    }
}

impl Guarded {
    /// The mapping that has `address`, if it is guarded.
    fn around(&self, address: usize) -> Option<Range<usize>> {
        let guarded = self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed);
        guarded.contains(&address).then_some(guarded)
    }
}

/// Whether SIGBUS comes to us first; its error number when it does not.
static HANDLED: LazyLock<Result<(), c_int>> = LazyLock::new(|| handle().map_err(number_of));

/// What handled SIGBUS before: the standard library, in most programs.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

fn number_of(error: io::Error) -> c_int {
    error.raw_os_error().unwrap_or(libc::ENOSYS)
}

fn handle() -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction: the default action, no flags, an empty mask.
    let (mut before, mut ours) = unsafe { mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    // SAFETY: both pointers are valid for the call, the first being null as the call allows.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    BEFORE.get_or_init(|| before);
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both pointers are valid for the call, the second being null as the call allows;
    // the handler does only what a signal handler may: it looks at memory that is there, and
    // calls mmap(2), sigaction(2) and raise(3).
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a handler with SA_SIGINFO is handed a valid siginfo_t, for as long as it runs.
    let Some(sent) = (unsafe { info.as_ref() }) else { return };
    let by_kernel = sent.si_code > 0;
    // SAFETY: the kernel's SIGBUS has an address.
    let address = by_kernel.then(|| unsafe { sent.si_addr() }.addr());
    let guarded = |address| GUARDED.try_with(|guarded| guarded.around(address)).ok().flatten();
    if let Some(mapping) = address.and_then(guarded)
        && replace(mapping)
    {
        GUARDED.with(|guarded| guarded.hit.store(true, Ordering::Relaxed));
        return;
    }
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => by_default(signal, before, by_kernel),
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: it was installed as a handler of this kind.
            let handler = unsafe { mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was installed as a handler of this kind.
            let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

/// Puts zeros in the place of `mapping`, so that the reader goes on. Of all of it: a part would
/// make three mappings of one, and there may be no more (`vm.max_map_count`).
fn replace(mapping: Range<usize>) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let wanted = ptr::with_exposed_provenance_mut(mapping.start);
    // SAFETY: the pages are those of a `Window` that this thread reads from, and of nothing else;
    // `Window::read` says that the bytes are not the file's, and never reads them again. errno,
    // which whoever was interrupted may be about to look at, changes only when it fails.
    let made = unsafe { libc::mmap(wanted, mapping.len(), libc::PROT_READ, flags, -1, 0) };
    made == wanted
}

/// Has what SIGBUS does by default done.
fn by_default(signal: c_int, before: &libc::sigaction, by_kernel: bool) {
    // SAFETY: the pointers are valid for the call, the second being null as the call allows.
    unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
    if !by_kernel {
        // SAFETY: raise(3) has no conditions. The kernel's comes again by itself, as soon as the
        // instruction that failed is tried again.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::hint::black_box;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::{env, thread};

    use super::*;

    fn pages_of(byte: u8, count: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![byte; count * page_size()]).unwrap();
        file
    }

    #[test]
    fn reads_what_lies_in_the_window() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 5000]).unwrap();
        file.write_all(b"page cache").unwrap();
        let mut window = Window::of(&file, 5000, 10).unwrap();
        assert_eq!(window.read(5005, 5, |bytes| bytes == b"cache"), Some(true));
        assert_eq!((window.read(5000, 4, <[u8]>::len), window.held()), (Some(4), 10));
        for (position, len) in [(4999, 1), (5000, 11), (u64::MAX, 1), (5001, usize::MAX)] {
            assert_eq!(window.read(position, len, <[u8]>::len), None, "{position} {len}");
        }
        window.let_go();
        assert_eq!(window.held(), 0);
        assert_eq!(window.read(5000, 4, |bytes| bytes == b"page"), Some(true));
        assert!(Window::of(&file, 0, 0).is_err());
    }

    #[test]
    fn a_file_that_was_cut_is_told_and_other_threads_read_on() {
        let (cut, whole) = (pages_of(1, 4), pages_of(2, 4));
        let page = page_size();
        let mut windows = [&cut, &whole].map(|file| Window::of(file, 0, 4 * page as u64).unwrap());
        cut.set_len(page as u64).unwrap();
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        let [window, other] = &mut windows;
        thread::scope(|scope| {
            let other = scope.spawn(|| other.read(0, 4 * page, sum));
            assert_eq!(window.read(0, page, sum), Some(page));
            assert_eq!(window.read(0, 4 * page, sum), None);
            assert_eq!(other.join().unwrap(), Some(8 * page));
        });
        // It does not come back with the file's length: zeros lie there now.
        cut.set_len(4 * page as u64).unwrap();
        assert_eq!(window.read(0, page, sum), None);
        assert_eq!(
            Window::of(&cut, 0, 4 * page as u64).unwrap().read(0, 4 * page, sum),
            Some(page)
        );
    }

    /// Runs itself in a process of its own, which is to die of the signal.
    #[test]
    fn what_is_not_guarded_ends_the_process_as_before() {
        const NAME: &str = "sys::window::tests::what_is_not_guarded_ends_the_process_as_before";
        let die = "PAGEWIRE_TEST_DIES";
        match env::var(die).as_deref() {
            Err(_) => {}
            Ok(way) => {
                let file = pages_of(1, 2);
                let both = || Window::of(&file, 0, 2 * page_size() as u64).unwrap();
                let (mut window, other) = (both(), both());
                file.set_len(0).unwrap();
                assert_eq!(window.read(0, 1, |bytes| bytes[0]), None);
                if way == "sent" {
                    // SAFETY: raise(3) has no conditions.
                    unsafe { libc::raise(libc::SIGBUS) };
                }
                black_box(other.pages[page_size()]);
                return;
            }
        }
        for way in ["read", "sent"] {
            let mut again = Command::new(env::current_exe().unwrap());
            let ended = again.args(["--exact", NAME]).env(die, way).output().unwrap();
            assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
        }
    }
}
