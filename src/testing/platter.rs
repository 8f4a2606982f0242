//! A disk in memory that loses what was not synced when the power is cut, and that can be full.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

/// What a file system gives out at once.
const BLOCK_BYTES: u64 = 4096;

/// See the module's text. Clones are of the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Platter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is there whatever happens.
    synced: Vec<u8>,
    /// What may be there, in order.
    pending: Vec<Change>,
    /// Calls that change something until the power is cut.
    calls_left: Option<u64>,
    is_off: bool,
    /// A disk that says that it has synced and has not.
    lies: bool,
    /// Blocks that may be given out.
    blocks_max: Option<usize>,
    blocks: BTreeSet<u64>,
    /// What a write is refused with.
    refuse: Option<ErrorKind>,
    syncs: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Bytes(at, bytes) => {
                // Where a growth was lost and a write behind it was not, zeros are between.
                let end = at + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*at..end].copy_from_slice(bytes);
            }
        }
    }
}

#[cfg_attr(
    not(test),
    allow(dead_code, reason = "tests of the store make more use of it than the simulation")
)]
impl Platter {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { seen: bytes.clone(), synced: bytes, ..State::default() })))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().seen.clone()
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    pub(crate) fn lie(&self) {
        self.0.lock().lies = true;
    }

    /// The power goes at the call after so many others.
    pub(crate) fn cut_after(&self, calls: u64) {
        self.0.lock().calls_left = Some(calls);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().is_off
    }

    /// So many blocks and no more.
    pub(crate) fn limit(&self, blocks_max: Option<usize>) {
        self.0.lock().blocks_max = blocks_max;
    }

    pub(crate) fn blocks(&self) -> usize {
        self.0.lock().blocks.len()
    }

    pub(crate) fn refuse(&self, kind: Option<ErrorKind>) {
        self.0.lock().refuse = kind;
    }

    /// What is found when the power is back: of what was not synced any part, one write perhaps torn.
    pub(crate) fn after_the_cut(&self, random: &mut fastrand::Rng) -> Self {
        let state = self.0.lock();
        let mut found = state.synced.clone();
        // Sometimes all or nothing, which subsets of many writes hardly ever are.
        let kept_of_8 = random.u8(0..=8);
        for change in &state.pending {
            if random.u8(0..8) >= kept_of_8 {
                continue;
            }
            match change {
                Change::Bytes(at, bytes) if random.u8(0..8) == 0 => {
                    let torn = random.usize(0..=bytes.len());
                    let part =
                        if random.bool() { (*at, &bytes[..torn]) } else { (at + torn, &bytes[torn..]) };
                    Change::Bytes(part.0, part.1.to_vec()).apply(&mut found);
                }
                change => change.apply(&mut found),
            }
        }
        let after = Self::holding(found);
        after.0.lock().lies = state.lies;
        after
    }
}

impl State {
    /// Counts a call down to the cut.
    fn live(&mut self) -> Result<(), Error> {
        if let Some(left) = self.calls_left.as_mut() {
            if *left == 0 {
                self.is_off = true;
            }
            *left = left.saturating_sub(1);
        }
        match self.refuse {
            _ if self.is_off => Err(Error::other("the power is off")),
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    /// Gives out the blocks of a write, or refuses.
    fn allocate(&mut self, from: u64, bytes: u64) -> Result<(), Error> {
        let new = (from / BLOCK_BYTES)..(from + bytes).div_ceil(BLOCK_BYTES);
        let new: Vec<u64> = new.filter(|block| !self.blocks.contains(block)).collect();
        if self.blocks_max.is_some_and(|most| self.blocks.len() + new.len() > most) && !new.is_empty() {
            return Err(ErrorKind::StorageFull.into());
        }
        self.blocks.extend(new);
        Ok(())
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let state = self.0.lock();
        let offset = offset as usize;
        let found = state.seen.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut state = self.0.lock();
        state.live()?;
        state.blocks.retain(|block| *block < len.div_ceil(BLOCK_BYTES));
        state.change(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut state = self.0.lock();
        state.live()?;
        state.syncs += 1;
        if !state.lies {
            state.synced = state.seen.clone();
            state.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut state = self.0.lock();
        state.live()?;
        state.allocate(offset, data.len() as u64)?;
        state.change(Change::Bytes(offset as usize, data.to_vec()));
        Ok(())
    }
}
