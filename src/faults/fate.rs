//! The cuts and flips of one direction of one connection, by byte offset. No sockets and no clock here.

use super::plan::{Direction, Ending, Fault, Plan, draws};
use super::schedule::Span;

/// Cuts and flips by hand that can wait in one direction at a time.
const ARMED_MAX: usize = 64;

/// What happens at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// The connection closes when `at` bytes were forwarded.
    Cut(Ending),
    /// The byte with index `at` is changed by this mask of one bit.
    Flip(u8),
}

/// A deed waiting for its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Armed {
    pub(super) at: u64,
    pub(super) deed: Deed,
    pub(super) scheduled: bool,
}

impl Armed {
    /// The fault as told in events: offsets from the start of the connection.
    pub(super) fn fault(&self, direction: Direction) -> Fault {
        match self.deed {
            Deed::Cut(ending) => Fault::Cut { direction, after_bytes: self.at, ending },
            // A mask of one bit: its index is below 8.
            Deed::Flip(mask) => {
                Fault::Flip { direction, after_bytes: self.at, bit: (mask.trailing_zeros() % 8) as u8 }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Fate {
    rng: fastrand::Rng,
    flip_every: Option<Span>,
    /// No two flips at the same offset.
    armed: Vec<Armed>,
}

impl Fate {
    /// The fate the plan draws for a direction of the connection of that number.
    pub(super) fn new(plan: &Plan, connection: u64, direction: Direction) -> Fate {
        let stream = match direction {
            Direction::Up => u64::from_be_bytes(*b"fate up "),
            Direction::Down => u64::from_be_bytes(*b"fatedown"),
        };
        let mut rng = draws(plan.seed, stream, connection);
        let flip_every = plan.schedule.flip_every_bytes.map(|pace| pace.every);
        let mut fate = Fate { rng: rng.fork(), flip_every, armed: Vec::new() };
        if let Some(pace) = plan.schedule.cut_after_bytes {
            let ending = if rng.bool() { Ending::Fin } else { Ending::Rst };
            let at = pace.every.draw(&mut rng);
            fate.arm(Armed { at, deed: Deed::Cut(ending), scheduled: true });
        }
        fate.draw_flip(0);
        fate
    }

    /// Arms a deed; false if too many wait already. A flip moves on past bytes that another one has taken.
    pub(super) fn arm(&mut self, mut armed: Armed) -> bool {
        if self.armed.len() >= ARMED_MAX {
            return false;
        }
        if let Deed::Flip(_) = armed.deed {
            while self.flip_at(armed.at).is_some() {
                armed.at = armed.at.saturating_add(1);
            }
        }
        self.armed.push(armed);
        true
    }

    /// How many of `len` bytes can be written before something is due: a byte to flip is the last of a write.
    pub(super) fn limit(&self, forwarded: u64, len: usize) -> usize {
        let room = |armed: &Armed| match armed.deed {
            Deed::Cut(_) => armed.at.saturating_sub(forwarded),
            Deed::Flip(_) => armed.at.saturating_sub(forwarded).saturating_add(1),
        };
        let room = self.armed.iter().map(room).min();
        room.and_then(|room| usize::try_from(room).ok()).map_or(len, |room| room.min(len))
    }

    /// The flip of that byte, if there is one.
    pub(super) fn flip_at(&self, index: u64) -> Option<Armed> {
        self.armed.iter().find(|armed| armed.at == index && matches!(armed.deed, Deed::Flip(_))).copied()
    }

    /// A cut due after so many bytes, if there is one.
    pub(super) fn cut_due(&self, forwarded: u64) -> Option<(Armed, Ending)> {
        self.armed.iter().find_map(|armed| match armed.deed {
            Deed::Cut(ending) if armed.at <= forwarded => Some((*armed, ending)),
            Deed::Cut(_) | Deed::Flip(_) => None,
        })
    }

    /// The deed is done; the next flip is drawn after a scheduled one.
    pub(super) fn done(&mut self, done: Armed) {
        self.armed.retain(|armed| *armed != done);
        if done.scheduled && matches!(done.deed, Deed::Flip(_)) {
            self.draw_flip(done.at.saturating_add(1));
        }
    }

    /// No more of what was scheduled like this one: as many as the plan allows took effect.
    pub(super) fn exhaust(&mut self, spent: Armed) {
        self.armed.retain(|armed| *armed != spent);
        if matches!(spent.deed, Deed::Flip(_)) {
            self.flip_every = None;
        }
    }

    /// Nothing is armed or drawn any more.
    pub(super) fn heal(&mut self) {
        self.armed.clear();
        self.flip_every = None;
    }

    fn draw_flip(&mut self, from: u64) {
        let Some(every) = self.flip_every else { return };
        let at = from.saturating_add(every.draw(&mut self.rng));
        let mask = 1 << self.rng.u8(0..8);
        self.arm(Armed { at, deed: Deed::Flip(mask), scheduled: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Schedule;

    fn plan(seed: u64) -> Plan {
        let cut_after_bytes = Some((1000..=2000).into());
        let flip_every_bytes = Some((10..=50).into());
        Plan::new(seed, Schedule { cut_after_bytes, flip_every_bytes, ..Schedule::default() })
    }

    /// Everything a direction does within 3,000 bytes, whatever the sizes of the writes.
    fn walk(fate: &mut Fate, write: usize) -> Vec<Armed> {
        let (mut forwarded, mut seen) = (0, Vec::new());
        while forwarded < 3000 {
            if let Some((cut, _)) = fate.cut_due(forwarded) {
                seen.push(cut);
                break;
            }
            let len = fate.limit(forwarded, write);
            assert!(len > 0);
            forwarded += len as u64;
            if let Some(flip) = fate.flip_at(forwarded - 1) {
                seen.push(flip);
                fate.done(flip);
            }
        }
        seen
    }

    #[test]
    fn same_seed_same_fate_whatever_the_sizes_of_the_writes() {
        let all =
            |seed, connection, write| walk(&mut Fate::new(&plan(seed), connection, Direction::Up), write);
        assert_eq!(all(1, 1, 1), all(1, 1, 65536));
        assert_eq!(all(1, 1, 7), all(1, 1, 100));
        assert_ne!(all(1, 1, 7), all(2, 1, 7));
        assert_ne!(all(1, 1, 7), all(1, 2, 7));
        let last = all(1, 1, 7).pop().unwrap();
        assert!(matches!(last.deed, Deed::Cut(_)) && (1000..=2000).contains(&last.at));
    }

    #[test]
    fn two_flips_never_share_a_byte_and_too_many_are_turned_away() {
        let mut fate = Fate::new(&Plan::default(), 1, Direction::Down);
        for _ in 0..ARMED_MAX {
            assert!(fate.arm(Armed { at: 5, deed: Deed::Flip(1), scheduled: false }));
        }
        assert!(!fate.arm(Armed { at: 5, deed: Deed::Flip(1), scheduled: false }));
        let seen: Vec<_> = walk(&mut fate, 4096).iter().map(|armed| armed.at).collect();
        assert_eq!(seen, (5..5 + ARMED_MAX as u64).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_armed_after_healing() {
        let mut fate = Fate::new(&plan(1), 1, Direction::Up);
        fate.heal();
        assert_eq!(walk(&mut fate, 4096), vec![]);
    }
}
