//! What nodes are told, in turn: first what answers them, then that their routes are decided, then what changed. A node without room
//! holds up itself only. What goes to several at the same place is said once for all of them.

use std::time::{Duration, Instant};

use super::Desk;
use super::config::PART_BYTES;
use super::node::Cursor;
use crate::MemberId;
use crate::rendezvous::state::State;
use crate::rendezvous::words::ToNode;

/// A message, and for whom. None of them is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saying {
    pub(crate) to: Vec<MemberId>,
    pub(crate) what: ToNode,
}

const _: () = assert!(PART_BYTES <= 1024 * 1024);

impl Desk {
    /// The next message. After it every recipient whose queue is full is to be told by [`Desk::handle_blocked`], whose session is over
    /// by [`Desk::handle_gone`].
    pub(crate) fn poll_send(&mut self, now: Instant, state: &State) -> Option<Saying> {
        if let Some((id, after)) = self.next_later() {
            return Some(Saying { to: vec![id], what: ToNode::Later { term: self.term, after } });
        }
        if !self.speaks(now) {
            return None;
        }
        while let Some(id) = self.line.pop_front() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            node.in_line = false;
            if node.blocked {
                continue;
            }
            if let Some(what) = node.words.pop_front() {
                self.line_up(id);
                return Some(Saying { to: vec![id], what });
            }
            if node.ends && node.feed.is_none() && node.hello.is_none() {
                if node.is_idle() {
                    self.nodes.remove(&id);
                }
                continue;
            }
            if let Some(what) = self.next_of_feed(state, id) {
                self.line_up(id);
                return Some(what);
            }
        }
        None
    }

    fn next_later(&mut self) -> Option<(MemberId, Duration)> {
        let free = |id: &&MemberId| self.nodes.get(id).is_none_or(|node| !node.blocked);
        let id = *self.later.keys().find(free)?;
        self.later.remove_entry(&id)
    }

    fn next_of_feed(&mut self, state: &State, id: MemberId) -> Option<Saying> {
        let (term, newest) = (self.term, self.table.newest());
        let feed = self.nodes.get_mut(&id)?.feed.as_mut()?;
        let only = |what| Some(Saying { to: vec![id], what });
        let changes = state.changes_of(id).unwrap_or_default();
        if changes > feed.registered {
            feed.registered = changes;
            return only(ToNode::Registered { term, changes, refused: None });
        }
        match feed.cursor {
            Cursor::At(at) if at == state.index() => {}
            Cursor::At(at) => match state.change_after(at) {
                Some((index, change)) => {
                    let to = self.all_at(at, index);
                    return Some(Saying { to, what: ToNode::Change { term, change } });
                }
                None => feed.cursor = Cursor::Nothing { least: at },
            },
            Cursor::Nothing { .. } | Cursor::Reading { .. } => {}
        }
        if let Cursor::Reading { version, least, .. } = feed.cursor
            && !self.versions.has(version)
        {
            // Too slow: it begins again with a newer one.
            feed.cursor = Cursor::Nothing { least };
        }
        if let Cursor::Nothing { least } = feed.cursor {
            let version = self.versions.begin(state, least)?;
            feed.cursor = Cursor::Reading { version, part: 0, least };
        }
        if let Cursor::Reading { version, part, least } = feed.cursor {
            let next = self.versions.part(version, part)?;
            let last = part + 1 == next.parts;
            feed.cursor = match last {
                true => Cursor::At(next.index),
                false => Cursor::Reading { version, part: part + 1, least },
            };
            return only(ToNode::Everything { term, part, parts: next.parts, piece: next.piece });
        }
        let told = self.table.since(feed.health)?;
        feed.health = Some(newest);
        only(ToNode::Health { term, all: told.all, changed: told.changed })
    }

    /// All who are at this place and have nothing else to be told; they are at the next one now.
    fn all_at(&mut self, at: u64, index: u64) -> Vec<MemberId> {
        let mut to = Vec::new();
        for (id, node) in &mut self.nodes {
            let free = !node.blocked && node.words.is_empty();
            if let Some(feed) = node.feed.as_mut().filter(|feed| free && feed.cursor == Cursor::At(at)) {
                feed.cursor = Cursor::At(index);
                to.push(*id);
            }
        }
        to
    }
}
