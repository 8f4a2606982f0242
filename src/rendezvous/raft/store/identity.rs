//! Whose store it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, Open};
use super::error::{StoreError, Wrong};
use super::tables::{self, FORMAT, Slot};
use crate::rendezvous::raft::types::ServerId;

/// Environment and network that a server is configured for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    /// `production`, `development`.
    pub(crate) environment: String,
    /// The network's name.
    pub(crate) network: String,
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of environment `{}`", self.network, self.environment)
    }
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Drawn once. A server that votes under two numbers would vote twice.
    pub(crate) server: ServerId,
    /// Where it belongs.
    pub(crate) names: Names,
    /// Of the cluster, once known.
    pub(crate) cluster: Option<u128>,
    /// A note of how often a cluster of this network was recovered; raised by `recover` and by a restore.
    pub(crate) generation: u64,
}

/// Opens a disk, and finds or founds its identity. A refusal changes nothing in it.
pub(super) async fn open(
    disk: Disk,
    names: &Names,
    fresh_id: ServerId,
) -> Result<(Arc<Open>, Identity), StoreError> {
    let open = disk.open().await?;
    if let Some(identity) = read(&open).await? {
        let theirs = identity.names.clone();
        if theirs != *names {
            return Err(StoreError::OtherNetwork { place: open.place.clone(), theirs, ours: names.clone() });
        }
        return Ok((open, identity));
    }
    let identity = Identity { server: fresh_id, names: names.clone(), cluster: None, generation: 0 };
    write(&open, identity.clone()).await?;
    Ok((open, identity))
}

/// Of an empty store: none.
pub(super) async fn read(open: &Arc<Open>) -> Result<Option<Identity>, StoreError> {
    let place = open.place.clone();
    open.read(move |from| {
        let Some(format) = tables::format(from)? else { return Ok(None) };
        if format > FORMAT {
            return Err(Wrong::Said(StoreError::NewerFormat { place, format, known: FORMAT }));
        }
        let identity = tables::get(from, Slot::Identity)?;
        identity.map(Some).ok_or_else(|| Wrong::bytes("it has no identity"))
    })
    .await
}

pub(super) async fn write(open: &Arc<Open>, identity: Identity) -> Result<(), StoreError> {
    open.write(move |to| {
        tables::put_format(to)?;
        tables::put(to, Slot::Identity, &identity)
    })
    .await
}
