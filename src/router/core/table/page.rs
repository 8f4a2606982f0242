//! The tables as they are told to somebody who asks: page by page, in an order that does not change while routes come and go.

use super::super::super::envelope::ActorRef;
use super::super::super::key::{KeyId, MessageKey};
use super::{Scope, Table};

/// What one page holds at most: routes, and about so many bytes of their keys. A page is one message, and a messenger may have
/// been told to send no large ones.
const PAGE_ROUTES_MAX: usize = 1024;
const PAGE_BYTES_MAX: usize = 32 * 1024;
/// Of a route beside its key.
const ROUTE_BYTES: usize = 32;

/// The last route of a page: those of this node come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Internal(KeyId, u32),
    External(KeyId, ActorRef),
}

/// A part of both tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) internal: Vec<(MessageKey, u32, Scope)>,
    pub(crate) external: Vec<(MessageKey, ActorRef)>,
    /// Where the next one begins, and how many routes it and those after it have.
    pub(crate) next: Option<Mark>,
    pub(crate) left: u64,
}

impl Table {
    /// What comes after a mark.
    pub(crate) fn page(&self, after: Option<Mark>) -> Page {
        let marks = self.entries.iter().flat_map(|(id, entry)| {
            let here = entry.local.iter().map(|(host, _)| Mark::Internal(*id, *host));
            here.chain(entry.remote.iter().map(|to| Mark::External(*id, *to)))
        });
        let mut marks: Vec<Mark> = marks.filter(|mark| Some(*mark) > after).collect();
        let all = marks.len();
        if all > PAGE_ROUTES_MAX {
            let _sorted_up_to_here = marks.select_nth_unstable(PAGE_ROUTES_MAX);
            marks.truncate(PAGE_ROUTES_MAX);
        }
        marks.sort_unstable();
        let (mut page, mut told, mut bytes) = (Page::default(), 0, 0);
        for mark in marks {
            if bytes >= PAGE_BYTES_MAX {
                break;
            }
            bytes += self.tell(mark, &mut page);
            told += 1;
            page.next = Some(mark);
        }
        page.left = (all - told) as u64;
        page.next = page.next.filter(|_| page.left > 0);
        page
    }

    /// Adds a route to a page, and says what it takes there.
    fn tell(&self, mark: Mark, page: &mut Page) -> usize {
        let (Mark::Internal(id, _) | Mark::External(id, _)) = mark;
        let Some(entry) = self.entries.get(&id) else { return 0 };
        let key = entry.key.clone();
        let bytes = ROUTE_BYTES + key.identity().len() + key.partition().len();
        match mark {
            Mark::Internal(_, host) => {
                let scope = entry.local.iter().find(|(other, _)| *other == host);
                page.internal.extend(scope.map(|(_, scope)| (key, host, *scope)));
            }
            Mark::External(_, to) => page.external.push((key, to)),
        }
        bytes
    }
}
