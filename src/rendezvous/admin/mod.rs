//! What tools ask the servers, and tell them: who is in, what they handle, how the servers stand; a server more or less, a snapshot, a
//! recovery. Any server answers what it knows; what changes something goes to the leader.

mod asking;
mod error;
mod seen;

use std::time::Duration;

use self::asking::Met;
pub use self::error::AdminError;
pub use self::seen::{Members, Routing, ServerSeen, Servers};
use super::client::{ServerList, SetupError};
use super::words::{Ask, Told};
use crate::{MemberId, Messenger};

/// An answer that is there already.
const LOOK: Duration = Duration::from_secs(5);
/// What the log decides: a new leader may have to be elected first.
const DECIDE: Duration = Duration::from_secs(15);
/// A server more: it is met, and sent all there is, before it counts.
const ADD: Duration = Duration::from_secs(180);

/// Asks the servers of a network, over a messenger that is in no view of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    messenger: Messenger,
    servers: Vec<String>,
}

impl Admin {
    /// At these servers: any one that answers is enough.
    ///
    /// # Errors
    ///
    /// [`SetupError`]: an address of the list is none.
    pub fn new(messenger: &Messenger, servers: impl Into<ServerList>) -> Result<Self, SetupError> {
        Ok(Self { messenger: messenger.clone(), servers: servers.into().parse()? })
    }

    /// Who is in, and how everybody fares as far as that server knows.
    ///
    /// # Errors
    ///
    /// [`AdminError`]: no server answers.
    pub async fn members(&self) -> Result<Members, AdminError> {
        let (met, told) = self.any(Ask::Members).await?;
        match told {
            Told::Members { cluster, view, term, members } => {
                Ok(Members::new(met.address, cluster, view, term, members))
            }
            other => Err(met.unexpected(&other)),
        }
    }

    /// What everybody handles.
    ///
    /// # Errors
    ///
    /// [`AdminError`]: no server answers, or it goes silent in the middle.
    pub async fn routes(&self) -> Result<Routing, AdminError> {
        let (met, told) = self.any(Ask::Routes { after: None }).await?;
        let mut told = told;
        let mut all = Vec::new();
        loop {
            match told {
                Told::Routes { view, routes, next } => {
                    all.extend(routes);
                    let Some(next) = next else { return Ok(Routing::new(met.address, view, all)) };
                    told = met.ask(&self.messenger, &Ask::Routes { after: Some(next) }, LOOK).await?;
                }
                other => return Err(met.unexpected(&other)),
            }
        }
    }

    /// The servers, as one of them sees them.
    ///
    /// # Errors
    ///
    /// [`AdminError`]: no server answers.
    pub async fn servers(&self) -> Result<Servers, AdminError> {
        let (met, told) = self.any(Ask::Servers).await?;
        match told {
            Told::Servers(servers) => Ok(Servers::new(met.address, servers)),
            other => Err(met.unexpected(&other)),
        }
    }

    /// A server more: it waits at this address, with an empty disk.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; it says whether anything may have changed.
    pub async fn add_server(&self, address: impl Into<String>) -> Result<(), AdminError> {
        self.order(Ask::Add { address: address.into() }, ADD).await
    }

    /// A server less, by its number or its address.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; it says whether anything may have changed.
    pub async fn remove_server(&self, server: impl Into<String>) -> Result<(), AdminError> {
        self.order(Ask::Remove { server: server.into() }, DECIDE).await
    }

    /// Takes a member out of the network: it hears it, and comes again as another one.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; it says whether anything may have changed.
    pub async fn evict(&self, member: MemberId) -> Result<(), AdminError> {
        self.order(Ask::Evict { member }, DECIDE).await
    }

    /// Lets history go on without what the servers' disks have lost: it begins anew in a higher generation, with the members that
    /// come within a few seconds under the ids they had. If there are members already, those stay, and who was lost comes as another.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; it says whether anything may have changed.
    pub async fn recover(&self) -> Result<(), AdminError> {
        self.order(Ask::Recover, DECIDE).await
    }

    /// A snapshot of all that was decided, made now by one of the servers. Each piece is given to `write`, in order. Returns how many
    /// bytes there were.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; pieces may have been written then, which are worth nothing.
    pub async fn snapshot(
        &self,
        mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<u64, AdminError> {
        let (met, first) = self.any(Ask::Snapshot { offset: 0 }).await?;
        let (mut told, mut offset) = (first, 0);
        loop {
            let (total, piece) = match told {
                Told::Snapshot { total, piece } => (total, piece),
                other => return Err(met.unexpected(&other)),
            };
            write(&piece).map_err(|error| AdminError::Write(error.to_string()))?;
            offset += piece.len() as u64;
            if offset >= total {
                return Ok(offset);
            }
            if piece.is_empty() {
                return Err(met.broken("its snapshot ends before its end"));
            }
            told = met.ask(&self.messenger, &Ask::Snapshot { offset }, DECIDE).await?;
        }
    }

    async fn any(&self, ask: Ask) -> Result<(Met, Told), AdminError> {
        asking::any(&self.messenger, &self.servers, &ask).await
    }

    async fn order(&self, ask: Ask, patience: Duration) -> Result<(), AdminError> {
        asking::leader(&self.messenger, &self.servers, &ask, patience).await
    }
}
