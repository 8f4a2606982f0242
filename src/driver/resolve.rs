//! Names to addresses, anew for each dial. A lookup blocks a thread for as long as the system's resolver likes, and no
//! deadline ends it. So each name has one under way at a time, which everybody who asks meanwhile waits for: a resolver
//! that hangs for one name costs one thread, and delays nobody who asks for another.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::limits::LOOKUPS_MAX;

/// The system's, or a test's. Called on a thread that may block.
type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What came of a lookup, for all who wait for it.
type Found = Option<Result<Vec<IpAddr>, (io::ErrorKind, String)>>;

/// See the module's text.
#[derive(Clone)]
pub(crate) struct Resolver {
    lookup: Arc<Lookup>,
    under_way: Arc<Mutex<HashMap<String, watch::Receiver<Found>>>>,
}

impl Resolver {
    /// The operating system's: `getaddrinfo`.
    pub(crate) fn system() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    pub(crate) fn new(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { lookup: Arc::new(lookup), under_way: Arc::default() }
    }

    /// All addresses of a name, in the resolver's order. Cancel safe; the thread goes on until the resolver answers.
    ///
    /// # Errors
    ///
    /// What the resolver says; `WouldBlock` when it hangs for [`LOOKUPS_MAX`] other names.
    pub(crate) async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found = self.join(name)?;
        let found = found.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        match found {
            Some(Ok(ips)) => Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
            Some(Err((kind, text))) => Err(io::Error::new(kind, text)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The lookup under way for this name; begun if there is none.
    fn join(&self, name: &str) -> io::Result<watch::Receiver<Found>> {
        let mut under_way = self.under_way.lock();
        if let Some(found) = under_way.get(name) {
            return Ok(found.clone());
        }
        if under_way.len() >= LOOKUPS_MAX {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the resolver hangs for too many names"));
        }
        let (tell, found) = watch::channel(None);
        under_way.insert(name.to_owned(), found.clone());
        drop(under_way);
        let done = Done { resolver: self.clone(), name: name.to_owned() };
        tokio::task::spawn_blocking(move || {
            let found = (done.resolver.lookup)(&done.name);
            // Who asks from now on asks anew.
            drop(done);
            tell.send_replace(Some(found.map_err(|error| (error.kind(), error.to_string()))));
        });
        Ok(found)
    }
}

/// Takes the name off the list, also if the lookup panics or never began.
struct Done {
    resolver: Resolver,
    name: String,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.resolver.under_way.lock().remove(&self.name);
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}
