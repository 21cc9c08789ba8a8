//! The outgoing half of a connection: its records are sealed here or by the kernel, and what has
//! to go between them (alerts, key updates) goes in its place.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;
use rustls::ProtocolVersion;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::TlsError;
use super::batch::Batch;
use super::kernel::{Control, KernelOutbound, rekeys};
use super::mapped::Mapped;
use super::record::{ALERT, Alert, HANDSHAKE, Sealer, Traffic};
use crate::error::SendError;
use crate::routes::Cost;
use crate::sink::Sink;
use crate::transfer::{self, PartRef, Progress};

/// Keys are changed, or the connection ended, so many records before the limit of the cipher:
/// more than one step makes.
const LIMIT_MARGIN: u64 = 1 << 10;

/// What the kernel is given to seal in one step: it does so within the call, at a tenth of the
/// rate at which it passes plain bytes on.
pub(super) const KERNEL_STEP_BYTES_MAX: usize = 512 * 1024;

/// KeyUpdate that asks for none in return (RFC 8446 section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// rustls's part of a connection after its handshake: it makes new keys from the old.
pub(crate) type Secrets = KernelConnection<ServerConnectionData>;

pub(crate) struct Outbound {
    sealed_by: SealedBy,
    /// Records that one key may seal: `CipherSuiteCommon::confidentiality_limit`.
    records_max: u64,
    tls13: bool,
    /// The keys are new, and nothing was sent with them.
    renewed: bool,
}

enum SealedBy {
    Us(Us),
    Kernel(KernelOutbound),
}

struct Us {
    sealer: Sealer,
    batch: Option<Batch>,
    mapped: Mapped,
    /// Sealed control records, which follow the batch.
    control: Vec<u8>,
}

impl Outbound {
    pub(crate) fn in_user_space(traffic: &Traffic, records_max: u64) -> Result<Self, TlsError> {
        let (sealer, mapped) = (Sealer::new(traffic)?, Mapped::default());
        let us = Us { sealer, batch: None, mapped, control: Vec::new() };
        Ok(Self { sealed_by: SealedBy::Us(us), records_max, tls13: traffic.tls13, renewed: false })
    }

    /// For a socket that has the keys already.
    pub(crate) fn in_kernel(traffic: &Traffic, records_max: u64) -> Self {
        let mut kernel = KernelOutbound::default();
        kernel.records = traffic.sequence;
        Self {
            sealed_by: SealedBy::Kernel(kernel),
            records_max,
            tls13: traffic.tls13,
            renewed: false,
        }
    }

    pub(crate) fn is_in_kernel(&self) -> bool {
        matches!(self.sealed_by, SealedBy::Kernel(_))
    }

    /// Whether the next step sends bytes of files that it has yet to read.
    pub(crate) fn wants_gate(&self) -> bool {
        match &self.sealed_by {
            SealedBy::Us(us) => us.batch.as_ref().is_none_or(Batch::is_done),
            SealedBy::Kernel(_) => true,
        }
    }

    /// Whether `parts` begin with what is sealed already and waits to be reported.
    pub(crate) fn goes_on_with(&self, parts: &[PartRef<'_>]) -> bool {
        match &self.sealed_by {
            SealedBy::Us(Us { batch: Some(batch), .. }) => batch.is_of(parts),
            SealedBy::Us(_) | SealedBy::Kernel(_) => true,
        }
    }

    /// Has an alert sent after what is under way.
    pub(crate) fn alert(&mut self, alert: Alert) -> Result<(), TlsError> {
        // Warning or fatal.
        let level =
            if matches!(alert, Alert::CloseNotify | Alert::NoRenegotiation) { 1 } else { 2 };
        self.queue(ALERT, &[level, alert as u8])
    }

    fn queue(&mut self, kind: u8, payload: &[u8]) -> Result<(), TlsError> {
        match &mut self.sealed_by {
            SealedBy::Us(us) => us.control.extend(us.sealer.seal_copy(kind, payload)?),
            SealedBy::Kernel(kernel) => kernel.queue(Control::Record(kind, payload.into())),
        }
        Ok(())
    }

    /// Whether keys can be changed in the middle of this connection.
    pub(crate) fn can_rekey(&self) -> bool {
        self.tls13 && (!self.is_in_kernel() || rekeys())
    }

    /// Whether a request for new keys is answered already: one update does for all that come
    /// while nothing is sent (RFC 8446 section 4.6.3).
    pub(crate) fn is_renewed(&self) -> bool {
        self.renewed
    }

    /// Says that the keys change, and changes them, after what is under way.
    pub(crate) fn rekey(&mut self, secrets: &mut Secrets) -> Result<(), TlsError> {
        self.queue(HANDSHAKE, &KEY_UPDATE)?;
        let traffic = Traffic::new(ProtocolVersion::TLSv1_3, secrets.update_tx_secret()?)?;
        match &mut self.sealed_by {
            SealedBy::Us(us) => us.sealer = Sealer::new(&traffic)?,
            SealedBy::Kernel(kernel) => kernel.queue(Control::Keys(traffic)),
        }
        self.renewed = true;
        Ok(())
    }

    /// Changes the keys when they have sealed as many records as is safe.
    fn renew(&mut self, secrets: &mut Secrets) -> Result<(), TlsError> {
        let used = match &self.sealed_by {
            SealedBy::Us(us) => us.sealer.sequence(),
            SealedBy::Kernel(kernel) => kernel.records,
        };
        // New ones may wait for room in the socket.
        if self.renewed || used < self.records_max.saturating_sub(LIMIT_MARGIN) {
            return Ok(());
        }
        if self.can_rekey() { self.rekey(secrets) } else { Err(TlsError::KeyUsedUp) }
    }

    /// One step: see `transfer::step`.
    pub(crate) fn step(
        &mut self,
        secrets: &mut Secrets,
        sink: &mut Sink,
        socket: BorrowedFd<'_>,
        parts: &[PartRef<'_>],
        room: usize,
        progress: &mut Progress,
    ) -> Result<(), SendError> {
        if self.wants_gate() {
            self.renew(secrets)?;
        }
        let stepped = match &mut self.sealed_by {
            SealedBy::Us(us) => us.step(sink, socket, parts, room, progress),
            SealedBy::Kernel(kernel) => {
                match kernel.flush(socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        progress.blocked = true;
                        return Ok(());
                    }
                    flushed => flushed?,
                }
                let room = room.min(KERNEL_STEP_BYTES_MAX);
                let stepped = transfer::step(sink, socket, parts, room, progress);
                kernel.count(progress.bytes());
                stepped
            }
        };
        self.renewed &= progress.bytes() == 0;
        stepped
    }

    /// Whether everything that was sealed or queued was sent.
    pub(crate) fn is_flushed(&self) -> bool {
        match &self.sealed_by {
            SealedBy::Us(us) => {
                us.control.is_empty() && us.batch.as_ref().is_none_or(Batch::is_sent)
            }
            SealedBy::Kernel(kernel) => kernel.is_flushed(),
        }
    }

    /// Sends what is sealed or queued.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match &mut self.sealed_by {
            SealedBy::Us(us) => Ok(us.flush(socket, false, &mut Cost::default())?),
            SealedBy::Kernel(kernel) => kernel.flush(socket),
        }
    }
}

impl Us {
    fn step(
        &mut self,
        sink: &mut Sink,
        socket: BorrowedFd<'_>,
        parts: &[PartRef<'_>],
        room: usize,
        progress: &mut Progress,
    ) -> Result<(), SendError> {
        let mut cost = Cost::default();
        if self.batch.as_ref().is_none_or(Batch::is_done) {
            self.batch = None;
            match self.flush(socket, true, &mut cost) {
                Err(Errno::AGAIN) => {
                    progress.blocked = true;
                    return Ok(());
                }
                flushed => flushed?,
            }
            let Self { sealer, mapped, .. } = self;
            self.batch = Some(Batch::seal(sealer, sink, mapped, parts, room, &mut cost)?);
        }
        let Some(batch) = &mut self.batch else { return Ok(()) };
        let more = batch.is_short_of(parts);
        match batch.send(socket, more, &mut cost) {
            Err(Errno::AGAIN) => {
                progress.blocked = true;
                self.mapped.let_go();
            }
            sent => sent?,
        }
        batch.report(parts, cost, progress);
        if batch.is_done() {
            self.batch = None;
        }
        Ok(())
    }

    fn flush(&mut self, socket: BorrowedFd<'_>, more: bool, cost: &mut Cost) -> Result<(), Errno> {
        if let Some(batch) = &mut self.batch {
            batch.send(socket, more || !self.control.is_empty(), cost)?;
        }
        while !self.control.is_empty() {
            let sent = retry_on_intr(|| {
                cost.calls += 1;
                rustix::net::send(socket, &self.control, SendFlags::NOSIGNAL)
            })?;
            self.control.drain(..sent);
        }
        self.control = Vec::new();
        Ok(())
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sealed_by, records_max, tls13, renewed: _ } = self;
        let (records, batch) = match sealed_by {
            SealedBy::Us(us) => (us.sealer.sequence(), us.batch.as_ref()),
            SealedBy::Kernel(kernel) => (kernel.records, None),
        };
        f.debug_struct("Outbound")
            .field("in_kernel", &self.is_in_kernel())
            .field("records", &records)
            .field("records_max", records_max)
            .field("tls13", tls13)
            .field("batch", &batch)
            .finish_non_exhaustive()
    }
}
