//! Guarantee 4, of all messages: queued = acked + not sent + indeterminate + pending, and nothing is ever taken back.

use std::collections::BTreeMap;

use super::{Event, Facts, Invariant};
use crate::Books;
use crate::testing::net::ProcessId;

/// The last total that was more than all before, and how many looks ago that was.
#[derive(Default)]
pub(super) struct BooksBalance(BTreeMap<ProcessId, (Books, u32)>);

/// Between the end of a peer and the day it is forgotten its books are in neither sum; that is over by the next look.
const MISSING: u32 = 2;

impl Invariant for BooksBalance {
    fn name(&self) -> &'static str {
        "books balance"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Looked { process, stats } = event else { return Ok(()) };
        if let Some(peer) = stats.peers.iter().find(|peer| !peer.books.balance()) {
            return Err(format!("P{} of {}: {:?}", process.0, facts.name(peer.peer), peer.books));
        }
        let total = stats.total();
        let (most, looks) = self.0.entry(*process).or_default();
        let ends = |books: &Books| [books.queued, books.acked, books.not_sent, books.indeterminate];
        let fell = ends(most).iter().zip(ends(&total)).any(|(before, now)| *before > now);
        *looks = if fell { *looks + 1 } else { 0 };
        if *looks >= MISSING || !total.balance() {
            return Err(format!("P{}: {most:?}, then {total:?}", process.0));
        }
        if !fell {
            *most = total;
        }
        Ok(())
    }
}
