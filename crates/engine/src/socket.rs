//! What both kinds of tokio's sockets have in common that none of its traits names: readiness,
//! and how one that is not being written to learns that its peer is gone.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

/// A socket of tokio that a [`Wire`](crate::Wire) can be made of: [`TcpStream`] and [`UnixStream`].
pub trait Socket: AsyncRead + AsyncWrite + AsFd + Unpin + sealed::Readiness {}

impl Socket for TcpStream {}
impl Socket for UnixStream {}

pub(crate) mod sealed {
    use super::*;

    /// What both kinds of socket have and no trait of tokio's names.
    #[expect(unnameable_types, reason = "sealed: nobody else is to implement it")]
    pub trait Readiness {
        fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
        fn try_write<R>(&self, write: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
        /// The same socket, by a descriptor of its own.
        fn twin(&self) -> io::Result<Self>
        where
            Self: Sized;
        /// Ready when the socket has an error.
        fn broken(self) -> Broken;
    }

    pub(super) type Broken = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

    async fn until(ready: impl Future<Output = io::Result<Ready>>) {
        if ready.await.is_err() {
            // The runtime ends, and this task with it.
            std::future::pending().await
        }
    }

    macro_rules! readiness_of {
        ($($socket:ty),*) => {$(
            impl Readiness for $socket {
                fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                    self.poll_write_ready(cx)
                }

                fn try_write<R>(&self, write: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
                    self.try_io(Interest::WRITABLE, write)
                }

                fn twin(&self) -> io::Result<Self> {
                    Self::from_std(self.as_fd().try_clone_to_owned()?.into())
                }

                fn broken(self) -> Broken {
                    Box::pin(async move { until(self.ready(Interest::ERROR)).await })
                }
            }
        )*};
    }

    readiness_of!(TcpStream, UnixStream);
}

/// Waits until a socket has an error (EPOLLERR): RST came, or the network gave up. That the peer
/// sends nothing more (FIN) is none.
///
/// Over a descriptor of its own: tokio waits for errors alone only in a future that borrows the
/// socket, and one descriptor cannot be registered twice.
pub(crate) struct Watch(sealed::Broken);

impl Watch {
    pub(crate) fn over(twin: impl Socket) -> Self {
        Self(twin.broken())
    }

    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
