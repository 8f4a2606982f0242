//! When two worlds are the same: see `Peer::digest` for what of a peer counts, and the module's text for time.
//!
//! What is left out beyond that: numbers of links (where a link leads is said with its connection), the order of
//! connections (they are only told by what they are), how often somebody dialled in vain (ranks are only compared:
//! within a pair attempts are told by their order, generations by their distance), and what became of messages that are over
//! (`World::digest_books`). A test applies all actions to worlds of equal
//! digests and compares what comes of it.

use std::hash::{Hash, Hasher};

use super::conn::{End, Packet};
use super::{World, incarnation_of, side_of};
use crate::member::MemberId;
use crate::peer::Rank;
use crate::wire::{FirstBytes, Hello};

/// Two halves that take in each word: one as wyhash does, by a product whose halves are folded; one by FNV-1a, a word at
/// a time, with a turn.
struct Wide(u64, u64);

impl Wide {
    const fn new() -> Self {
        Self(0x6c62_272e_07bb_0142, 0x62b8_2175_6295_c58d)
    }

    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xa076_1d64_78bd_642f_u128 + 0xe703_7ed1_a0b4_28db_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
        self.1 = (self.1.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Both halves, mixed once more.
    fn wide(mut self) -> u128 {
        self.word(0);
        let low = (self.1 ^ self.1 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        u128::from(self.0) << 64 | u128::from(low ^ low >> 32)
    }
}

impl Hasher for Wide {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last) ^ (rest.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.word(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.word(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.word(word as u64);
    }

    fn finish(&self) -> u64 {
        let wide = Self(self.0, self.1).wide();
        (wide >> 64) as u64 ^ wide as u64
    }
}

/// A rank among those of its pair, and who accepts.
type Of = (Rank, MemberId);

/// All ranks of a world, and how far each dialler has counted.
struct Ranks {
    all: Vec<Of>,
    counters: Vec<Of>,
}

impl Ranks {
    fn of(world: &World) -> Self {
        let mut ranks = Self { all: Vec::new(), counters: Vec::new() };
        for side in &world.sides {
            for (of, room) in &side.rooms {
                ranks.all.extend(room.peer.ranks().map(|rank| (rank, acceptor(rank, side.id(), *of))));
                ranks.counters.push((room.peer.dials(), *of));
            }
        }
        for packet in world.conns.iter().flat_map(|conn| &conn.ends).flat_map(|end| &end.inbound) {
            if let Packet::First(first) = packet {
                ranks.all.extend(rank_in(first));
            }
        }
        ranks.all.sort_unstable();
        ranks.all.dedup();
        ranks
    }

    /// Generations of a pair by their distance from its least. Attempts below the dialler's counter by their order; from
    /// there on, because it counts up to them, exactly.
    fn place(&self, (rank, acceptor): Of) -> (u64, MemberId, i64) {
        let pair = |(other, to): &&Of| {
            (other.dialler, *to) == (rank.dialler, acceptor)
                || (*to, other.dialler) == (rank.dialler, acceptor)
        };
        let least = self.all.iter().filter(pair).map(|(other, _)| other.generation).min().unwrap_or(0);
        let same = |(other, to): &&Of| {
            (other.generation, other.dialler, *to) == (rank.generation, rank.dialler, acceptor)
        };
        let counter = self.counters.iter().find(same).map(|(counter, _)| counter.attempt);
        let at = match counter {
            Some(counter) if rank.attempt >= counter => (rank.attempt - counter) as i64,
            Some(_) | None => {
                let above = |(other, _): &&Of| {
                    other.attempt > rank.attempt && counter.is_none_or(|counter| other.attempt <= counter)
                };
                -1 - self.all.iter().filter(same).filter(above).count() as i64
            }
        };
        (rank.generation.saturating_sub(least), rank.dialler, at)
    }
}

/// Who accepts what has this rank between these two.
fn acceptor(rank: Rank, one: MemberId, other: MemberId) -> MemberId {
    if rank.dialler == one { other } else { one }
}

/// In an answer the dialler is the other.
fn rank_in(first: &FirstBytes) -> Option<Of> {
    match first {
        FirstBytes::Hello(hello) => hello.to.map(|to| (Rank::of(hello), to)),
        FirstBytes::Answer(answer) => {
            let (generation, attempt) = (answer.generation, answer.attempt);
            answer.to.map(|dialler| (Rank { generation, dialler, attempt }, answer.from.id))
        }
        FirstBytes::Reject(_) => None,
    }
}

impl World {
    /// Equal for two worlds that are the same from here on.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut into = Wide::new();
        let ranks = Ranks::of(self);
        self.left.hash(&mut into);
        self.digest_books(&mut into);
        for side in &self.sides {
            (side.incarnation, side.contact, side.installed, side.life).hash(&mut into);
            (side.with.counters.epoch(), side.with.me.member.joined).hash(&mut into);
            side.roster.view().map(|view| view.id()).hash(&mut into);
            for incarnation in 0..4 {
                let seat = side.roster.seat(super::id(1 - side.at, incarnation));
                (seat.member.is_some(), seat.gone.map(|gone| gone as u8)).hash(&mut into);
            }
            side.rooms.len().hash(&mut into);
            for (of, room) in &side.rooms {
                let place = |rank| ranks.place((rank, acceptor(rank, side.id(), *of)));
                room.peer.digest(place, &mut into);
                (room.epoch, &room.delivered).hash(&mut into);
                (self.scenario.lazy && room.written).hash(&mut into);
            }
        }
        let mut conns: Vec<u128> = self
            .conns
            .iter()
            .map(|conn| {
                let mut of = Wide::new();
                conn.broken.hash(&mut of);
                conn.ends.iter().for_each(|end| end.digest(&ranks, &mut of));
                of.wide()
            })
            .collect();
        conns.sort_unstable();
        conns.hash(&mut into);
        into.wide()
    }
}

impl End {
    fn digest(&self, ranks: &Ranks, into: &mut Wide) {
        // That it is the live link, or the pending dial, is its stage.
        self.stage.hash(into);
        self.link.map(|(of, _)| (side_of(of), incarnation_of(of))).hash(into);
        self.inbound.len().hash(into);
        for packet in &self.inbound {
            match packet {
                Packet::First(first) => digest_first(first, ranks, into),
                Packet::Frames(frames) => frames.iter().for_each(|(_, key)| key.hash(into)),
                Packet::End => 0.hash(into),
            }
        }
    }
}

fn digest_first(first: &FirstBytes, ranks: &Ranks, into: &mut Wide) {
    match first {
        FirstBytes::Hello(hello) => (1, digest_hello(hello)).hash(into),
        FirstBytes::Answer(answer) => (2, digest_hello(answer)).hash(into),
        FirstBytes::Reject(reject) => (3, reject.code.to_wire(), reject.from).hash(into),
    }
    rank_in(first).map(|rank| ranks.place(rank)).hash(into);
}

fn digest_hello(hello: &Hello) -> u64 {
    let mut into = Wide::new();
    let (epochs, from) = ((hello.epoch, hello.your_epoch), (hello.from.id, hello.from.joined));
    (from, hello.to, epochs, hello.features, hello.credit).hash(&mut into);
    for point in &hello.streams {
        (point.stream, point.next_expected, point.credit).hash(&mut into);
    }
    into.finish()
}
