//! Routers in a world: each process runs a node over its messenger, with hosts that come and go and handlers that are slow,
//! fail, panic, or send on. What was sent, handled and answered stands in the [`Book`]; the invariants judge by it.

mod book;
mod flows;
mod hosts;
mod rest;

pub(super) use book::{Book, Ended, Told, Way};
pub(super) use hosts::Router;
pub(super) use rest::Look;

use serde::{Deserialize, Serialize};

use crate::router::MessageKey;
use crate::{Kind, Message};

/// Types of messages that flows go on with: 0 to 3.
pub(super) const STEPS: u8 = 4;
/// Each that is handled comes of itself again, for ever.
pub(super) const LOOP: u8 = 4;
/// Its handlers are never announced.
pub(super) const LOCAL: u8 = 5;
pub(super) const ANSWER: u8 = 6;
pub(super) const OTHER: u8 = 7;
/// Nobody handles it.
pub(super) const NOBODY: u8 = 8;

/// How far flows may go: nodes, and handlers.
pub(super) const LIMITS: (u8, u16) = (12, 20);

/// What every message of a flow carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) flow: u64,
    /// Names this message in its whole world.
    pub(super) tag: u64,
    /// What its handler does follows from this.
    pub(super) chance: u64,
    /// Handlers that it may yet go through before it is answered.
    pub(super) steps: u8,
    /// Handlers that it went through.
    pub(super) depth: u16,
    pub(super) fill: Vec<u8>,
}

/// A message of one of the types.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Step<const N: u8>(pub(super) Load);

impl<const N: u8> Message for Step<N> {
    const KIND: Kind = kind(N);
}

pub(super) const fn kind(number: u8) -> Kind {
    let name = match number {
        0 => "sim.flow.a",
        1 => "sim.flow.b",
        2 => "sim.flow.c",
        3 => "sim.flow.d",
        LOOP => "sim.flow.loop",
        LOCAL => "sim.flow.local",
        ANSWER => "sim.flow.answer",
        OTHER => "sim.flow.other",
        _ => "sim.flow.nobody",
    };
    Kind::new(name, 1)
}

/// A partition: 0 is the empty one.
pub(super) fn partition(number: u8) -> Vec<u8> {
    if number == 0 { Vec::new() } else { vec![number] }
}

pub(super) fn key(number: u8, part: u8) -> MessageKey {
    MessageKey::of_kind(kind(number)).in_partition(partition(part))
}
