//! What lies where in the database.

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Wrong;
use super::record;
use crate::rendezvous::raft::types::Types;

/// Of this layout. A newer number is refused, so that an older release harms nothing.
pub(super) const FORMAT: u32 = 1;

/// One value each: format, identity, vote, committed, purged.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Entries by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// Four bytes, little endian, without a version byte: every release can read it.
const FORMAT_KEY: &str = "format";

/// A single value and its name on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// [`Identity`](super::Identity).
    Identity,
    /// The last vote.
    Vote,
    /// How far the log was known to be committed, at the last write; it may lag.
    Committed,
    /// The last entry that was taken out of the log because a snapshot has it.
    Purged,
    /// What the snapshot covers.
    SnapshotMeta,
    /// The snapshot's bytes.
    Snapshot,
}

impl Slot {
    fn key(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Vote => "vote",
            Self::Committed => "committed",
            Self::Purged => "purged",
            Self::SnapshotMeta => "snapshot meta",
            Self::Snapshot => "snapshot",
        }
    }
}

pub(super) type Entry = openraft::Entry<Types>;

/// A table that was never written is empty.
fn absent<T>(opened: Result<T, TableError>) -> Result<Option<T>, Wrong> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

// ---- reading ----

/// Of an empty store: none.
pub(super) fn format(from: &ReadTransaction) -> Result<Option<u32>, Wrong> {
    let Some(table) = absent(from.open_table(META))? else { return Ok(None) };
    let Some(bytes) = table.get(FORMAT_KEY)? else {
        return Err(Wrong::bytes("it has no format"));
    };
    let bytes = bytes.value().try_into().map_err(|_| Wrong::bytes("its format is no number"))?;
    Ok(Some(u32::from_le_bytes(bytes)))
}

pub(super) fn get<T: DeserializeOwned>(from: &ReadTransaction, slot: Slot) -> Result<Option<T>, Wrong> {
    let Some(table) = absent(from.open_table(META))? else { return Ok(None) };
    table.get(slot.key())?.map(|bytes| record::decode(slot.key(), bytes.value())).transpose()
}

/// A value that is bytes already.
pub(super) fn get_bytes(from: &ReadTransaction, slot: Slot) -> Result<Option<Vec<u8>>, Wrong> {
    let Some(table) = absent(from.open_table(META))? else { return Ok(None) };
    table
        .get(slot.key())?
        .map(|bytes| record::open(slot.key(), bytes.value()).map(<[u8]>::to_vec))
        .transpose()
}

pub(super) fn last_entry(from: &ReadTransaction) -> Result<Option<Entry>, Wrong> {
    let Some(table) = absent(from.open_table(LOG))? else { return Ok(None) };
    table.last()?.map(|(index, bytes)| entry(index.value(), bytes.value())).transpose()
}

/// Entries from `first` to before `end`, until their bytes pass `bytes_max`; the first one always.
pub(super) fn entries(
    from: &ReadTransaction,
    first: u64,
    end: u64,
    bytes_max: usize,
) -> Result<Vec<Entry>, Wrong> {
    let mut found = Vec::new();
    let Some(table) = absent(from.open_table(LOG))? else { return Ok(found) };
    let mut bytes_read = 0_usize;
    // An upside-down range panics in a B-tree.
    for item in table.range(first..end.max(first))? {
        let (index, bytes) = item?;
        bytes_read = bytes_read.saturating_add(bytes.value().len());
        if bytes_read > bytes_max && !found.is_empty() {
            break;
        }
        found.push(entry(index.value(), bytes.value())?);
    }
    Ok(found)
}

fn entry(index: u64, bytes: &[u8]) -> Result<Entry, Wrong> {
    let what = format!("entry {index}");
    let entry: Entry = record::decode(&what, bytes)?;
    if entry.log_id.index == index {
        Ok(entry)
    } else {
        Err(Wrong::bytes(format!("{what} says that it is entry {}", entry.log_id.index)))
    }
}

// ---- writing ----

pub(super) fn put_format(to: &WriteTransaction, format: u32) -> Result<(), Wrong> {
    to.open_table(META)?.insert(FORMAT_KEY, format.to_le_bytes().as_slice())?;
    Ok(())
}

pub(super) fn put<T: Serialize>(to: &WriteTransaction, slot: Slot, value: &T) -> Result<(), Wrong> {
    let bytes = record::encode(slot.key(), value)?;
    to.open_table(META)?.insert(slot.key(), bytes.as_slice())?;
    Ok(())
}

pub(super) fn put_bytes(to: &WriteTransaction, slot: Slot, body: &[u8]) -> Result<(), Wrong> {
    to.open_table(META)?.insert(slot.key(), record::seal(body).as_slice())?;
    Ok(())
}

/// The same as [`get`], of what the transaction sees.
pub(super) fn get_in<T: DeserializeOwned>(of: &WriteTransaction, slot: Slot) -> Result<Option<T>, Wrong> {
    let table = of.open_table(META)?;
    let found = table.get(slot.key())?;
    found.map(|bytes| record::decode(slot.key(), bytes.value())).transpose()
}

pub(super) fn append(to: &WriteTransaction, entries: &[Entry]) -> Result<(), Wrong> {
    let mut table = to.open_table(LOG)?;
    for entry in entries {
        let bytes = record::encode("entry", entry)?;
        table.insert(entry.log_id.index, bytes.as_slice())?;
    }
    Ok(())
}

/// Takes entries from `first` on out of the log.
pub(super) fn cut_from(to: &WriteTransaction, first: u64) -> Result<(), Wrong> {
    to.open_table(LOG)?.retain_in(first.., |_, _| false)?;
    Ok(())
}

/// Takes entries up to `last` out of the log, and says so.
pub(super) fn cut_upto(to: &WriteTransaction, last: u64) -> Result<(), Wrong> {
    to.open_table(LOG)?.retain_in(..=last, |_, _| false)?;
    Ok(())
}
