//! From a request to its response: over resolution and the pure rooms. Knows no sockets.

use std::io;
use std::path::Path;

use http::{Method, Request, Response};
use tokio::task::spawn_blocking;

use crate::body::FileBody;
use crate::error::RequestError;
use crate::resolve::{Found, Root, TargetPath};
use crate::respond::respond;

/// The files below one directory, as answers to requests.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: Root,
}

impl Files {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self { root: Root::open(directory)? })
    }

    pub(crate) async fn answer<B>(&self, request: &Request<B>) -> Response<FileBody> {
        let method = request.method();
        let target = match *method {
            Method::GET | Method::HEAD => TargetPath::parse(request.uri().path()),
            _ => Err(RequestError::Method),
        };
        let query = request.uri().query();
        match target {
            Err(error) => respond(method, Err(error), String::new),
            Ok(target) => {
                let found = self.find(&target).await;
                respond(method, found, || match query {
                    None => target.with_slash(),
                    Some(query) => format!("{}?{query}", target.with_slash()),
                })
            }
        }
    }

    /// Names that the kernel has in its cache are looked up here; others on a thread that may
    /// wait for the disk.
    async fn find(&self, target: &TargetPath) -> Result<Found, RequestError> {
        if let Some(found) = self.root.find_cached(target) {
            return found;
        }
        let (root, target) = (self.root.clone(), target.clone());
        let looked_up = spawn_blocking(move || root.find(&target)).await;
        looked_up.unwrap_or_else(|failure| Err(RequestError::Io(io::Error::other(failure))))
    }
}
