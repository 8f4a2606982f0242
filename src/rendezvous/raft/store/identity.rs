//! Whose store it is.

use std::fmt;
use std::sync::Arc;

use redb::WriteTransaction;
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

impl Identity {
    /// Whether `place`, which says this of itself, is of the network that we are configured for.
    pub(super) fn check(&self, place: &str, names: &Names) -> Result<(), StoreError> {
        if self.names == *names {
            return Ok(());
        }
        let (theirs, ours) = (self.names.clone(), names.clone());
        Err(StoreError::OtherNetwork { place: place.to_owned(), theirs, ours })
    }
}

/// Opens a disk, and finds or founds its identity. A refusal changes nothing in it.
pub(super) async fn open(
    disk: Disk,
    names: &Names,
    fresh_id: ServerId,
) -> Result<(Arc<Open>, Identity), StoreError> {
    let fresh = Identity { server: fresh_id, names: names.clone(), cluster: None, generation: 0 };
    let (open, _) = disk.open_or_found(move |to| put(to, &fresh)).await?;
    let identity = read(&open).await?;
    identity.check(&open.place, names)?;
    Ok((open, identity))
}

/// What an open store says of itself.
pub(super) async fn read(open: &Arc<Open>) -> Result<Identity, StoreError> {
    let place = open.place.clone();
    open.read(move |from| {
        let format = tables::format(from)?.ok_or_else(|| Wrong::bytes("it has no format"))?;
        if format > FORMAT {
            return Err(Wrong::Said(StoreError::NewerFormat { place, format, known: FORMAT }));
        }
        tables::get(from, Slot::Identity)?.ok_or_else(|| Wrong::bytes("it has no identity"))
    })
    .await
}

/// With the format, so that one is never without the other.
pub(super) fn put(to: &WriteTransaction, identity: &Identity) -> Result<(), Wrong> {
    tables::put_format(to, FORMAT)?;
    tables::put(to, Slot::Identity, identity)
}
