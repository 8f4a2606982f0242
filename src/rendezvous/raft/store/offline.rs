//! What is done to a store while no server runs on it: looking, copying, going on alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, Vote};
use redb::{ReadTransaction, WriteTransaction};

use super::disk::{Disk, Open};
use super::error::{StoreError, Wrong};
use super::file::SnapshotFile;
use super::identity::{self, Identity, Names};
use super::state::{MachineStore, Meta, at};
use super::tables::{self, Entry, Slot};
use crate::rendezvous::raft::types::{Command, Server, ServerId};
use crate::rendezvous::raft::{At, Machine};

/// What a server needs to go on as the only one.
pub(crate) struct Alone<F> {
    /// Where it will be reached.
    pub(crate) me: Server,
    /// A new name for the cluster, so that the servers that are lost cannot speak in it if they come back.
    pub(crate) cluster: u128,
    /// Makes the command that tells the machine of it, from the identity with its raised generation.
    pub(crate) command: F,
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Whose it is.
    pub(crate) identity: Identity,
    /// The highest term it voted in or has entries of.
    pub(crate) term: u64,
    /// The last entry, whether committed or not.
    pub(crate) last: Option<At>,
    /// Known to be committed; it may be late.
    pub(crate) committed: Option<At>,
    /// The last entry in the snapshot.
    pub(crate) snapshot: Option<At>,
    /// Who votes, and who only learns, by the last membership in it.
    pub(crate) servers: BTreeMap<ServerId, Server>,
}

/// Opens a store that exists.
async fn open(disk: Disk, names: &Names) -> Result<(Arc<Open>, Identity), StoreError> {
    let open = disk.open_existing().await?;
    let identity = identity::read(&open).await?;
    identity.check(&open.place, names)?;
    Ok((open, identity))
}

/// Looks, and changes nothing but what a crash left to mend.
///
/// # Errors
///
/// There is no store, or it does not open.
pub(crate) async fn survey(disk: Disk, names: &Names) -> Result<Survey, StoreError> {
    let (open, identity) = open(disk, names).await?;
    let found = open.read(Found::read).await?;
    Ok(Survey {
        identity,
        term: found.term(),
        last: found.last.map(|last| at(Some(last))),
        committed: found.committed.map(|committed| at(Some(committed))),
        snapshot: found.snapshot.map(|snapshot| at(Some(snapshot))),
        servers: found.membership.nodes().map(|(id, server)| (*id, server.clone())).collect(),
    })
}

/// Everything in a store as one snapshot: the last snapshot and all entries after it, committed or not, because one that was
/// acknowledged by the servers that are lost looks like one that was not.
///
/// # Errors
///
/// There is no store, it does not open, or the machine does not understand it. Nothing is changed.
pub(crate) async fn copy<M: Machine>(
    disk: Disk,
    names: &Names,
    machine: M,
) -> Result<SnapshotFile, StoreError> {
    let (open, identity) = open(disk, names).await?;
    let mut machine = MachineStore::open(open.clone(), machine).await?;
    let first = machine.next();
    let entries = open.read(move |from| tables::entries(from, first, u64::MAX, usize::MAX)).await?;
    for entry in entries {
        machine.decide(entry);
    }
    let (meta, state) = machine.picture();
    Ok(SnapshotFile { names: identity.names, generation: identity.generation, meta, state })
}

/// Makes this server the only one of its cluster, for when a majority is lost for good. All of its entries are kept, committed
/// or not: of those the lost servers acknowledged, whatever reached this disk is kept. What did not is lost, and so is nothing
/// else. Behind them come a membership of this server alone and the command of its [`Alone`]; generation and term are raised.
/// Returns the place of the command.
///
/// Never while a majority lives: two clusters would decide.
///
/// # Errors
///
/// There is no store, it does not open, or the disk fails. Nothing is changed.
pub(crate) async fn recover<F>(disk: Disk, names: &Names, alone: Alone<F>) -> Result<At, StoreError>
where
    F: FnOnce(&Identity) -> Bytes,
{
    let (open, identity) = open(disk, names).await?;
    let found = open.read(Found::read).await?;
    let plan = alone.plan(identity, &found);
    let at = plan.at();
    open.write(move |to| plan.put(to)).await?;
    Ok(at)
}

/// Puts a snapshot into an empty directory, as the only server of a new cluster, with a number of its own. Returns the place of
/// the command of its [`Alone`].
///
/// # Errors
///
/// The directory holds a store, the snapshot is of another network, or the disk fails. Nothing is changed.
pub(crate) async fn restore<F>(
    disk: Disk,
    names: &Names,
    file: SnapshotFile,
    fresh_id: ServerId,
    alone: Alone<F>,
) -> Result<At, StoreError>
where
    F: FnOnce(&Identity) -> Bytes,
{
    let place = disk.place();
    let SnapshotFile { names: theirs, generation, meta, state } = file;
    let identity = Identity { server: fresh_id, names: theirs, cluster: None, generation };
    identity.check("the snapshot", names)?;
    let found = Found::of_snapshot(&meta);
    let plan = alone.plan(identity, &found);
    let at = plan.at();
    let founding = move |to: &WriteTransaction| {
        tables::put(to, Slot::SnapshotMeta, &meta)?;
        tables::put_bytes(to, Slot::Snapshot, &state)?;
        if let Some(last) = meta.last_log_id {
            tables::put(to, Slot::Purged, &last)?;
        }
        plan.put(to)
    };
    let (_, fresh) = disk.open_or_found(founding).await?;
    if fresh { Ok(at) } else { Err(StoreError::NotEmpty { place }) }
}

/// Where a log stands.
struct Found {
    vote: Option<Vote<ServerId>>,
    last: Option<LogId<ServerId>>,
    committed: Option<LogId<ServerId>>,
    snapshot: Option<LogId<ServerId>>,
    membership: Membership<ServerId, Server>,
}

impl Found {
    fn read(from: &ReadTransaction) -> Result<Self, Wrong> {
        let meta: Meta = tables::get(from, Slot::SnapshotMeta)?.unwrap_or_default();
        let purged = tables::get(from, Slot::Purged)?;
        let mut found = Self {
            vote: tables::get(from, Slot::Vote)?,
            committed: tables::get(from, Slot::Committed)?,
            last: meta.last_log_id.max(purged),
            ..Self::of_snapshot(&meta)
        };
        for entry in tables::entries(from, 0, u64::MAX, usize::MAX)? {
            found.last = found.last.max(Some(entry.log_id));
            if let EntryPayload::Membership(membership) = entry.payload {
                found.membership = membership;
            }
        }
        Ok(found)
    }

    fn of_snapshot(meta: &Meta) -> Self {
        Self {
            vote: None,
            last: meta.last_log_id,
            committed: meta.last_log_id,
            snapshot: meta.last_log_id,
            membership: meta.last_membership.membership().clone(),
        }
    }

    fn term(&self) -> u64 {
        let voted = self.vote.map_or(0, |vote| vote.leader_id.term);
        voted.max(self.last.map_or(0, |last| last.leader_id.term))
    }
}

impl<F: FnOnce(&Identity) -> Bytes> Alone<F> {
    /// What this server would have written as leader of a term of its own, had it been the only one.
    fn plan(self, identity: Identity, found: &Found) -> Plan {
        let me = identity.server;
        let generation = identity.generation.saturating_add(1);
        let identity = Identity { cluster: Some(self.cluster), generation, ..identity };
        let term = found.term().saturating_add(1);
        let place = |index| LogId::new(CommittedLeaderId::new(term, me), index);
        let first = found.last.map_or(0, |last| last.index.saturating_add(1));

        let servers = BTreeMap::from([(me, self.me)]);
        let membership = Membership::new(vec![BTreeSet::from([me])], servers);
        let command = Command((self.command)(&identity));
        let last = place(first.saturating_add(1));
        let entries = [
            Entry { log_id: place(first), payload: EntryPayload::Membership(membership) },
            Entry { log_id: last, payload: EntryPayload::Normal(command) },
        ];
        // Not a vote for itself that counts: it is elected anew, in the term after this one.
        Plan { identity, vote: Vote::new(term, me), entries, last }
    }
}

/// What makes a server the only one.
struct Plan {
    identity: Identity,
    vote: Vote<ServerId>,
    entries: [Entry; 2],
    last: LogId<ServerId>,
}

impl Plan {
    fn at(&self) -> At {
        at(Some(self.last))
    }

    fn put(&self, to: &WriteTransaction) -> Result<(), Wrong> {
        tables::append(to, &self.entries)?;
        tables::put(to, Slot::Vote, &self.vote)?;
        // Of a single server, what is on its disk is committed.
        tables::put(to, Slot::Committed, &self.last)?;
        identity::put(to, &self.identity)
    }
}
