//! Named leases for users: at most one member of the network holds each.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::api::Inner;
use super::core::{LeaseNews, Ticket};
use crate::MemberId;
use crate::rendezvous::Token;
use crate::rendezvous::common::Refused;

/// Why a lease is not held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Another member holds it.
    #[error("the lease is held by {0}")]
    Held(MemberId),
    /// It cannot be had: a bound was reached, or its name is none (1 to 255 bytes).
    #[error("{0}")]
    Refused(String),
    /// This node was evicted while it waited; as another member it may ask again.
    #[error("this node was evicted while it waited for the lease")]
    Evicted,
    /// The node follows no rendezvous: not yet, or not any more.
    #[error("the node follows no rendezvous")]
    Closed,
}

impl From<Refused> for LeaseError {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Held(by) => Self::Held(by),
            Refused::NotMember | Refused::Gone => Self::Evicted,
            why => Self::Refused(why.to_string()),
        }
    }
}

/// What waits for a lease, or holds it; dropped, it does so no more.
pub(super) struct Want {
    inner: Arc<Inner>,
    name: String,
    ticket: Ticket,
    news: watch::Receiver<Option<LeaseNews>>,
}

impl Want {
    pub(super) fn new(inner: &Arc<Inner>, name: &str, wait: bool) -> Result<Self, LeaseError> {
        let (ticket, news) = inner.want(name, wait)?;
        Ok(Self { inner: Arc::clone(inner), name: name.to_owned(), ticket, news })
    }

    pub(super) async fn granted(mut self) -> Result<Lease, LeaseError> {
        let news = self.news.wait_for(Option::is_some).await.map(|news| news.clone());
        match news {
            Ok(Some(LeaseNews::Granted(token))) => Ok(Lease { want: self, token }),
            Ok(Some(LeaseNews::Refused(why))) => Err(why.into()),
            Ok(Some(LeaseNews::Lost)) => Err(LeaseError::Evicted),
            Ok(None) | Err(_) => Err(LeaseError::Closed),
        }
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.inner.release(&self.name, self.ticket);
    }
}

/// A named lease that this node holds until it is dropped, or lost: when this node is evicted or leaves.
///
/// A node that does not hear the servers cannot know whether it was evicted: it may hold a lease that another member has got
/// meanwhile. So what is guarded by it takes the [`token`](Lease::token) with each request and refuses one that is lower than
/// it has seen (Kleppmann, "How to do distributed locking", 2016); who cannot do that stops work while
/// [`Standing`](super::Standing) is not joined.
#[must_use = "dropping a lease gives it up"]
pub struct Lease {
    want: Want,
    token: Token,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("name", &self.want.name).field("token", &self.token).finish()
    }
}

impl Lease {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.want.name
    }

    /// Above those of all leases that were granted before, of any name, in this network.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// Whether it is known to be over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let held = matches!(&*self.want.news.borrow(), Some(LeaseNews::Granted(_)));
        !held || self.want.news.has_changed().is_err()
    }

    /// Waits until it is known to be over: this node is evicted, has left or was closed. Cancel safe.
    pub async fn lost(&self) {
        let mut news = self.want.news.clone();
        // An error: it was closed.
        let _lost = news.wait_for(|news| !matches!(news, Some(LeaseNews::Granted(_)))).await;
    }
}
