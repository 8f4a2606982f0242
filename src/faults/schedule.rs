//! What happens again and again: intervals, each drawn anew from the seed.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// An inclusive range to draw from; the unit is named by the field that holds it. In JSON `[least, most]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Span {
    least: u64,
    most: u64,
}

impl Span {
    pub(super) fn draw(self, rng: &mut fastrand::Rng) -> u64 {
        rng.u64(self.least..=self.most)
    }
}

impl From<(u64, u64)> for Span {
    /// Either order of the two will do.
    fn from((one, other): (u64, u64)) -> Span {
        Span { least: one.min(other), most: one.max(other) }
    }
}

impl From<Span> for (u64, u64) {
    fn from(span: Span) -> (u64, u64) {
        (span.least, span.most)
    }
}

impl From<RangeInclusive<u64>> for Span {
    fn from(range: RangeInclusive<u64>) -> Span {
        Span::from((*range.start(), *range.end()))
    }
}

/// A fault that comes again after every drawn interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// The interval: milliseconds or bytes, as the field's name says. Intervals of 0 ms count as 1 ms.
    pub every: Span,
    /// How many may take effect in all, over all connections; without, no end.
    #[serde(default)]
    pub at_most: Option<u64>,
}

impl Pace {
    /// The same pace, ending after so many that took effect.
    pub fn at_most(self, count: u64) -> Pace {
        Pace { at_most: Some(count), ..self }
    }
}

impl From<RangeInclusive<u64>> for Pace {
    fn from(range: RangeInclusive<u64>) -> Pace {
        Pace { every: range.into(), at_most: None }
    }
}

/// Spells of latency on all connections, new ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelaySpells {
    /// Milliseconds from the end of one spell to the next.
    pub every_ms: Span,
    /// Milliseconds a spell lasts.
    pub lasts_ms: Span,
    /// Milliseconds of delay.
    pub delay_ms: Span,
}

/// Spells of low bandwidth on all connections, new ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSpells {
    /// Milliseconds from the end of one spell to the next.
    pub every_ms: Span,
    /// Milliseconds a spell lasts.
    pub lasts_ms: Span,
    /// Bytes a second, for each connection and direction.
    pub bytes_per_second: Span,
    /// As [`Rate::buffer_bytes`](super::Rate::buffer_bytes).
    pub buffer_bytes: u32,
}

/// Spells in which new connections are reset at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefuseSpells {
    /// Milliseconds from the end of one spell to the next.
    pub every_ms: Span,
    /// Milliseconds a spell lasts.
    pub lasts_ms: Span,
}

/// What happens again and again; all of it can be on together. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Resets, of the connections there are at that time.
    pub reset_every_ms: Option<Pace>,
    /// Silences, of the connections there are at that time.
    pub silence_every_ms: Option<Pace>,
    /// One direction, drawn, falls silent.
    pub one_way_every_ms: Option<Pace>,
    /// Each connection is cut after so many bytes, drawn for each direction; end of file or reset is drawn
    /// too.
    pub cut_after_bytes: Option<Pace>,
    /// One bit of a byte is flipped, again and again in each direction of each connection.
    pub flip_every_bytes: Option<Pace>,
    /// Spells of latency.
    pub delays: Option<DelaySpells>,
    /// Spells of low bandwidth.
    pub rates: Option<RateSpells>,
    /// Spells of refusal.
    pub refusals: Option<RefuseSpells>,
}
