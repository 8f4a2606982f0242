//! Guarantee 5: a member that a view removed holds nothing after 100 ms, and is not dialled again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Event, Facts, Invariant};
use crate::member::MemberId;
use crate::testing::facts::ProcessFacts;
use crate::testing::net::ProcessId;

const GONE_AFTER: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Removal {
    /// When somebody at an address was last in the view of a process.
    expected: BTreeMap<(ProcessId, SocketAddr), Instant>,
}

/// When the process had its time to let go of it.
fn due(facts: &Facts, process: &ProcessFacts, removed: Instant) -> Option<Instant> {
    let since = process.runs_since()?;
    Some(removed.max(since).max(facts.jumped) + GONE_AFTER)
}

impl Removal {
    /// Whoever is expected at an address may be dialled there.
    fn note_expected(&mut self, facts: &Facts, at: ProcessId, members: impl IntoIterator<Item = MemberId>) {
        for member in members {
            if let Some(member) = facts.process_of(member).and_then(|member| facts.of(member)) {
                self.expected.insert((at, member.address), facts.now);
            }
        }
    }

    fn check(&self, facts: &Facts, at: ProcessId, process: &ProcessFacts) -> Result<(), String> {
        for (id, removed) in &process.removed {
            let Some(due) = due(facts, process, *removed).filter(|due| *due < facts.now) else { continue };
            let Some(gone) = facts.process_of(*id).and_then(|gone| Some((gone, facts.of(gone)?))) else {
                continue;
            };
            let (gone_at, gone) = gone;
            if process.contacted.contains(&gone.address) || gone.contacted.contains(&process.address) {
                continue;
            }
            // Whoever has come back as another is not the one that was removed.
            if gone.id() == Some(*id) {
                self.check_sockets(facts, at, gone_at, *removed)?;
            }
            let expected = self.expected.get(&(at, gone.address)).map_or(due, |last| *last + GONE_AFTER);
            let dialled = facts.network.dialled(at, gone.address);
            if let Some(dialled) = dialled.filter(|dialled| *dialled > due.max(expected)) {
                let after = dialled.duration_since(*removed);
                let who = facts.name(*id);
                return Err(format!("P{} dials {who} {after:?} after it was removed", at.0));
            }
        }
        Ok(())
    }

    /// Connections of before.
    fn check_sockets(
        &self,
        facts: &Facts,
        at: ProcessId,
        gone: ProcessId,
        removed: Instant,
    ) -> Result<(), String> {
        // A dial may be meant for somebody else who was at that address, and still is for the view.
        let there = facts.of(gone).map(|gone| gone.address);
        let others = there.is_some_and(|there| self.expected.get(&(at, there)) == Some(&facts.now));
        let greeting = facts.plan.timeouts.hello + Duration::from_secs(1);
        for seen in facts.network.seen() {
            let side = match seen.ends {
                [one, other] if (one, other) == (at, gone) => 0,
                [one, other] if (other, one) == (at, gone) => 1,
                _ => continue,
            };
            let Some(since) = seen.held_since[side].filter(|since| *since < removed) else { continue };
            // Who has not read a hello yet does not know who is there.
            let age = facts.now.duration_since(since);
            if (side == 0 && !others) || age > greeting {
                let after = facts.now.duration_since(removed);
                let (at, gone, side) = (at.0, gone.0, if side == 0 { "dialled" } else { "accepted" });
                return Err(format!(
                    "P{at} has a socket to P{gone}, {side} {age:?} ago, {after:?} after its removal"
                ));
            }
        }
        Ok(())
    }

    fn still_peer(facts: &Facts, process: &ProcessFacts, id: MemberId) -> bool {
        let removed = process.removed.get(&id);
        removed.and_then(|removed| due(facts, process, *removed)).is_some_and(|due| due < facts.now)
    }
}

impl Invariant for Removal {
    fn name(&self) -> &'static str {
        "who is removed holds nothing"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Installed { process, left } => {
                self.note_expected(facts, *process, left.iter().copied());
                Ok(())
            }
            Event::Tick => {
                for (at, process) in facts.running() {
                    self.note_expected(facts, at, process.view.iter().copied());
                }
                facts.running().try_for_each(|(at, process)| self.check(facts, at, process))
            }
            Event::Looked { process: at, stats } => {
                let Some(process) = facts.of(*at) else { return Ok(()) };
                let held = stats.peers.iter().find(|peer| Self::still_peer(facts, process, peer.peer));
                match held {
                    Some(peer) => {
                        let who = facts.name(peer.peer);
                        Err(format!("P{} still keeps {who}, which its view removed", at.0))
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
