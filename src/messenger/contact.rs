//! Contacts: members reached at a well-known address, outside any view.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::driver::Driver;
use crate::member::{Endpoint, EndpointError, MemberId};
use crate::peer::ContactId;

/// Why there is no contact. Nothing is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// The address cannot be parsed, or nobody can be there.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// Waiting does not mend it: who is there belongs to another environment or network, speaks no common version, or one
    /// of the two certificates does not fit.
    #[error("{endpoint} refuses: {why}")]
    Refused {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong, with both names or both ranges.
        why: String,
    },
    /// Nobody was met in time.
    #[error("nobody was met at {endpoint}: {last}")]
    GaveUp {
        /// Where.
        endpoint: Endpoint,
        /// What the last attempt came to.
        last: String,
    },
    /// The messenger was closed.
    #[error("the messenger is closed: {0}")]
    Closed(&'static str),
}

/// Keeps the session with the member found at an address, until it is dropped. Redials for ever; dropping it ends the
/// session unless something else holds it: what was written is then indeterminate, the rest not sent.
#[derive(Debug)]
#[must_use = "dropping a contact ends its session"]
pub struct Contact {
    driver: Arc<Driver>,
    id: ContactId,
    found: watch::Receiver<MemberId>,
    first: MemberId,
    endpoint: Endpoint,
    local: Option<SocketAddr>,
}

impl Contact {
    pub(super) fn new(
        driver: Arc<Driver>,
        (id, found): (ContactId, watch::Receiver<MemberId>),
        endpoint: Endpoint,
        local: Option<SocketAddr>,
    ) -> Self {
        let first = *found.borrow();
        Self { driver, id, found, first, endpoint, local }
    }

    /// Who is there now. Another member after [`Contact::replaced`].
    #[must_use]
    pub fn id(&self) -> MemberId {
        *self.found.borrow()
    }

    /// The address that is dialled, as it was given.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The address of this side, as it was when somebody was met there: what this process is called by on the way to them.
    #[must_use]
    pub const fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Waits until another member than the first is found at the address, and says who. The session with the one before
    /// is over: what was written is indeterminate, the rest not sent. Cancel safe.
    pub async fn replaced(&self) -> MemberId {
        let mut found = self.found.clone();
        // The lock that comes with it is not held while it waits for ever.
        let now = found.wait_for(|now| *now != self.first).await.map(|now| *now);
        match now {
            Ok(now) => now,
            // The messenger is gone; nobody will ever be found.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        self.driver.release(self.id);
    }
}
