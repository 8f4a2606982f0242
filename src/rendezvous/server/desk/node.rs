//! One node, as the desk sees it: what it asked, what it is to be told, and how far it has been told.

use std::collections::VecDeque;
use std::time::Instant;

use super::config::NODE_ASKED_MAX;
use crate::Member;
use crate::rendezvous::words::{Known, ToNode};

/// A hello that is not decided yet.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) member: Member,
    pub(super) known: Known,
    /// When it was said first.
    pub(super) at: Instant,
    /// Said while a recovery gathers those of before.
    pub(super) gathered: bool,
    /// It is on its way into the log.
    pub(super) joining: bool,
    /// To be looked at again then.
    pub(super) again: Option<Instant>,
}

/// How far a member has been told what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    /// It knows all changes up to this one.
    At(u64),
    /// It needs everything, as of this change or a later one.
    Nothing { least: u64 },
    /// It is being told everything: this part of this version is next.
    Reading { version: u64, part: u32, least: u64 },
}

/// What a member that was welcomed is told.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) cursor: Cursor,
    /// Up to which of its own changes it knows that its routes are decided.
    pub(super) registered: u64,
    /// The last change of health that it was told; `None`: nothing yet.
    pub(super) health: Option<u64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) hello: Option<Hello>,
    pub(super) feed: Option<Feed>,
    /// To be told before anything else. Each answers something, so they are bounded as `asked` is.
    pub(super) words: VecDeque<ToNode>,
    /// Operations of it that wait for the log.
    pub(super) asked: usize,
    /// There is no room in its queue.
    pub(super) blocked: bool,
    /// It stands in the line of those who are to be told something.
    pub(super) in_line: bool,
    /// Nothing is to be said after its words.
    pub(super) ends: bool,
}

impl Node {
    /// Whether it may ask something.
    pub(super) fn has_room(&self) -> bool {
        self.asked + self.words.len() < NODE_ASKED_MAX
    }

    /// Whether it is being told this version of everything.
    pub(super) fn reads(&self, number: u64) -> bool {
        let cursor = self.feed.as_ref().map(|feed| feed.cursor);
        matches!(cursor, Some(Cursor::Reading { version, .. }) if version == number)
    }

    /// Whether nothing is known of it that would be missed.
    pub(super) fn is_idle(&self) -> bool {
        let silent = self.words.is_empty() && !self.blocked && self.asked == 0;
        silent && self.hello.is_none() && self.feed.is_none()
    }
}
