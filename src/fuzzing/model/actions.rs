//! What may happen next.

use std::fmt;

use super::conn::Stage;
use super::side::{Contact, Life};
use super::{World, id, incarnation_of};
use crate::peer::Wait;

/// One thing that happens. Members are told by their incarnation at the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum Action {
    /// The next message of a side.
    Send { side: u8, to: u8 },
    /// A dialled connection stands.
    Connect { conn: u8 },
    /// What is on its way arrives.
    Deliver { conn: u8, to: u8 },
    /// What is written from now on is lost.
    Break { conn: u8 },
    /// An end finds out that its connection is broken, and reads nothing more.
    Notice { conn: u8, side: u8 },
    /// What can be written is written (scenarios that are lazy).
    Write { side: u8, of: u8 },
    /// The wait for the next dial is over.
    Dial { side: u8, of: u8 },
    /// A lease is over.
    Lease { side: u8, of: u8 },
    /// A quarantine is over.
    Quarantine { side: u8, of: u8 },
    /// A side installs its next view.
    Install { side: u8 },
    /// A process ends, another begins in its place.
    Restart { side: u8 },
    /// A side leaves.
    Leave { side: u8 },
    /// The time for leaving is over.
    Deadline { side: u8 },
    /// A contact is dropped.
    Drop { side: u8 },
    /// A contact that seeks finds who is at the address.
    Find { side: u8 },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |side: u8| if side == 0 { 'A' } else { 'B' };
        let other = |side: u8, of: u8| format!("{}{}", name(1 - side), "'".repeat(of.into()));
        match *self {
            Self::Send { side, to } => write!(f, "{} sends to {}", name(side), other(side, to)),
            Self::Connect { conn } => write!(f, "connection {conn} stands"),
            Self::Deliver { conn, to } => {
                write!(f, "what is on its way arrives at {}, connection {conn}", name(to))
            }
            Self::Break { conn } => write!(f, "connection {conn} breaks"),
            Self::Notice { conn, side } => {
                write!(f, "{} finds out that connection {conn} is broken", name(side))
            }
            Self::Write { side, of } => write!(f, "{} writes to {}", name(side), other(side, of)),
            Self::Dial { side, of } => write!(f, "{} has waited and dials {}", name(side), other(side, of)),
            Self::Lease { side, of } => {
                write!(f, "at {} the lease of {} is over", name(side), other(side, of))
            }
            Self::Quarantine { side, of } => {
                write!(f, "at {} the quarantine of {} is over", name(side), other(side, of))
            }
            Self::Install { side } => write!(f, "{} installs its next view", name(side)),
            Self::Restart { side } => write!(f, "{} ends, and another begins in its place", name(side)),
            Self::Leave { side } => write!(f, "{} leaves", name(side)),
            Self::Deadline { side } => write!(f, "{} has no more time for leaving", name(side)),
            Self::Drop { side } => write!(f, "{} drops its contact", name(side)),
            Self::Find { side } => write!(f, "{} finds who is there", name(side)),
        }
    }
}

impl World {
    /// All that may happen next. Empty when something broke: there is nothing to be found behind it.
    pub fn actions(&self, out: &mut Vec<Action>) {
        if self.books.faults.is_empty() {
            self.inner_actions(out);
            self.outer_actions(out);
        }
    }

    /// What happens by itself, without time.
    pub(super) fn inner_actions(&self, out: &mut Vec<Action>) {
        for (at, conn) in self.conns.iter().enumerate() {
            let at = at as u8;
            for side in [0, 1] {
                let end = &conn.ends[side];
                let side = side as u8;
                if end.reads() {
                    out.push(Action::Deliver { conn: at, to: side });
                }
                if end.stage == Stage::Connecting && !conn.broken {
                    out.push(Action::Connect { conn: at });
                }
                if conn.broken && end.stage != Stage::Closed {
                    out.push(Action::Notice { conn: at, side });
                }
            }
        }
        for side in [0, 1_u8] {
            let there = &self.sides[usize::from(side)];
            for (of, room) in &there.rooms {
                let of = incarnation_of(*of);
                if room.peer.wait() == Some(Wait::Dial) {
                    out.push(Action::Dial { side, of });
                }
                if self.scenario.lazy && room.peer.live_link().is_some() && !room.written {
                    out.push(Action::Write { side, of });
                }
            }
            let other = &self.sides[usize::from(1 - side)];
            if let Contact::Seeks(departed) = there.contact
                && there.life == Life::Running
                && other.life != Life::Gone
                && departed != Some(other.id())
            {
                out.push(Action::Find { side });
            }
        }
    }

    /// What somebody does, what time does, what breaks.
    fn outer_actions(&self, out: &mut Vec<Action>) {
        let left = &self.left;
        if left.breaks > 0 {
            let whole = self.conns.iter().enumerate().filter(|(_, conn)| !conn.broken);
            out.extend(whole.map(|(at, _)| Action::Break { conn: at as u8 }));
        }
        for at in [0, 1_usize] {
            let (side, there) = (at as u8, &self.sides[at]);
            self.timers(at, left.leases > 0, left.quarantines > 0, out);
            if there.life == Life::Leaving {
                out.push(Action::Deadline { side });
            }
            if there.life != Life::Running {
                continue;
            }
            if usize::from(left.sent[at]) < self.scenario.sends[at].len() {
                let to = (0..=self.sides[1 - at].incarnation).filter(|to| there.reaches(id(1 - at, *to)));
                out.extend(to.map(|to| Action::Send { side, to }));
            }
            if self.next_view(at).is_some() {
                out.push(Action::Install { side });
            }
            if left.restarts[at] > 0 {
                out.push(Action::Restart { side });
            }
            if left.leaves[at] {
                out.push(Action::Leave { side });
            }
            if left.drops[at] && there.contact != Contact::None {
                out.push(Action::Drop { side });
            }
        }
    }

    pub(super) fn timers(&self, at: usize, leases: bool, quarantines: bool, out: &mut Vec<Action>) {
        let side = at as u8;
        for (of, room) in &self.sides[at].rooms {
            let of = incarnation_of(*of);
            match room.peer.wait() {
                Some(Wait::Lease) if leases => out.push(Action::Lease { side, of }),
                Some(Wait::Quarantine) if quarantines => out.push(Action::Quarantine { side, of }),
                Some(Wait::Dial | Wait::Lease | Wait::Quarantine) | None => {}
            }
        }
    }

    /// The next view that a side may install: a newcomer hears of those that hold it, and of all after.
    pub(super) fn next_view(&self, at: usize) -> Option<usize> {
        let side = &self.sides[at];
        let holds = |view: &[super::Member]| {
            view.iter().any(|(of, incarnation, _)| (*of, *incarnation) == (at, side.incarnation))
        };
        let seen = side.roster.view().is_some() || side.installed > 0;
        let from = side.installed;
        (from..self.scenario.views.len()).find(|next| seen || holds(self.scenario.views[*next]))
    }
}
