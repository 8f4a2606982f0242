//! Doors for the fuzzer: what comes from outside, what the log decides, a node's client and a leader's desk, each given any bytes.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::common::Change;
use super::state::Outcome;
use super::words::{Ask, Everything, Ping, Pong, ToNode, ToServer, Told};
use super::{client, raft, server, state};
use crate::router::{MessageKey, Route};
use crate::{Kind, Member, MemberId, ViewId};

/// Takes small decisions out of the fuzzer's bytes; zeros when they are over.
#[derive(Debug)]
pub(super) struct Source<'a>(pub(super) &'a [u8]);

impl<'a> Source<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(super) fn bit(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// Small numbers mostly; now and then the extremes.
    pub(super) fn number(&mut self) -> u64 {
        match self.u8() {
            near @ 0..=0xf0 => near.into(),
            0xf1..=0xfa => u64::from(self.u8()) << 8 | u64::from(self.u8()),
            0xfb..=0xfc => u64::from(self.u8()) << 16,
            0xfd => u64::from(self.u8()) << 40,
            _ => u64::MAX - u64::from(self.u8()),
        }
    }

    /// A number near this one mostly.
    pub(super) fn near(&mut self, number: u64) -> u64 {
        match self.u8() {
            far @ 0xf0.. => u64::from(far & 3).wrapping_sub(2).wrapping_add(self.number()),
            near => number.saturating_add(u64::from(near % 4)).saturating_sub(u64::from(near / 4 % 3)),
        }
    }

    /// At most so many of the bytes that are left.
    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// At most so many of something.
    pub(super) fn some<T>(&mut self, most: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.u8() % (most + 1)).map(|_| one(self)).collect()
    }

    pub(super) fn view(&mut self, near: ViewId) -> ViewId {
        match self.u8() {
            same @ 0..=0xc0 => ViewId { number: near.number.saturating_add(u64::from(same % 3)), ..near },
            0xc1..=0xe0 => ViewId { generation: near.generation.saturating_add(1), number: 1 },
            _ => ViewId { generation: self.number(), number: self.number() },
        }
    }

    /// One of some few routes.
    pub(super) fn route(&mut self) -> Route {
        const NAMES: [&str; 3] = ["orders.place", "stock.reserve", "payments.take"];
        let how = self.u8();
        let name = NAMES.get(usize::from(how % 3)).copied().unwrap_or("orders.place");
        let key = MessageKey::of_kind(Kind::new(name, 1));
        let key = if how >= 0xe0 { key.in_partition(self.bytes(4).to_vec()) } else { key };
        Route { key, host: u32::from(how / 3 % 4) }
    }
}

/// A process that runs as number `n`.
pub(super) fn member(n: u128) -> Member {
    let address = std::net::SocketAddr::from(([10, 0, 0, 1], 1_000 + (n % 60_000) as u16));
    Member {
        id: MemberId::from_parts(1, n),
        endpoints: vec![address.into()],
        name: String::new(),
        labels: BTreeMap::new(),
        joined: None,
    }
}

/// What all sides decode, one kind after the other by the first byte: it never panics, and what decodes is stable.
pub(crate) fn words(input: &[u8]) {
    let Some((which, body)) = input.split_first() else { return };
    match which % 16 {
        0 => drop(stable::<ToServer>(body)),
        1 => drop(stable::<ToNode>(body)),
        2 => drop((stable::<Ping>(body), stable::<Pong>(body))),
        3 => drop(stable::<Ask>(body)),
        4 => drop(stable::<Told>(body)),
        5 => drop(stable::<Everything>(body)),
        6 => drop(stable::<Change>(body)),
        7 => outcomes(body),
        8 => state::door::command(body),
        9 => state::door::snapshot(body),
        how => raft::door::raft(how, body),
    }
}

fn outcomes(bytes: &[u8]) {
    let Ok(found) = state::decode_outcomes(bytes) else { return };
    let again = state::encode_outcomes(&found);
    assert_eq!(state::decode_outcomes(&again).as_ref(), Ok(&found));
    for outcome in found {
        if let Outcome::Refused(why) = outcome {
            drop(why.to_string());
        }
    }
}

/// What decodes takes no more room encoded again than it had, and is then the same.
pub(super) fn stable<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let found = postcard::from_bytes::<T>(bytes).ok()?;
    let encode = |found: &T| match postcard::to_stdvec(found) {
        Ok(again) => again,
        Err(error) => panic!("what was decoded is not encoded: {error}"),
    };
    let again = encode(&found);
    assert!(again.len() <= bytes.len(), "{} bytes became {}", bytes.len(), again.len());
    match postcard::from_bytes::<T>(&again) {
        Ok(second) => assert_eq!(encode(&second), again, "the same again"),
        Err(error) => panic!("what was encoded is not decoded: {error}"),
    }
    Some(found)
}

/// What the log decides, by any commands: see [`state::door`].
pub(crate) fn decided(input: &[u8]) {
    state::door::decided(&mut Source(input));
}

/// A node's client and servers that say anything.
pub(crate) fn follower(now: Instant, input: &[u8]) {
    client::door::follower(now, &mut Source(input));
}

/// A leader's desk and nodes that say anything.
pub(crate) fn leader(now: Instant, input: &[u8]) {
    server::door::leader(now, &mut Source(input));
}
