//! Numbered messages from each member to each other, and whether they come without gap, double or disorder.

use std::collections::{BTreeMap, VecDeque};

use karere::{Kind, Lost, MemberId, Message};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// So many messages may be under way to one member; below what its queue always takes.
const UNDER_WAY_MAX: usize = 256;

/// The `number`th message of a member to another one. For members only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) to: MemberId,
    pub(crate) number: u64,
}

impl Message for Numbered {
    const KIND: Kind = Kind::new("example.numbered", 1);
}

/// What one member was sent. `R` is a receipt.
#[derive(Debug)]
struct Lane<R> {
    queued: u64,
    under_way: VecDeque<R>,
    acked: u64,
    not_sent: u64,
    indeterminate: u64,
}

/// What each incarnation of this member sent, by recipient, those that are gone included.
#[derive(Debug)]
pub(crate) struct Sent<R> {
    lanes: BTreeMap<(MemberId, MemberId), Lane<R>>,
}

impl<R> Sent<R> {
    pub(crate) const fn new() -> Self {
        Self { lanes: BTreeMap::new() }
    }

    /// Sends up to `count` more. `send` returns nothing when the message was not taken; then its number is used again.
    pub(crate) fn send(
        &mut self,
        me: MemberId,
        to: MemberId,
        count: u64,
        mut send: impl FnMut(&Numbered) -> Option<R>,
    ) {
        let empty =
            || Lane { queued: 0, under_way: VecDeque::new(), acked: 0, not_sent: 0, indeterminate: 0 };
        let lane = self.lanes.entry((me, to)).or_insert_with(empty);
        for _ in 0..count {
            if lane.under_way.len() >= UNDER_WAY_MAX {
                return;
            }
            let Some(receipt) = send(&Numbered { to, number: lane.queued + 1 }) else { return };
            lane.queued += 1;
            lane.under_way.push_back(receipt);
        }
    }

    /// Counts what has ended; `now` looks at a receipt.
    pub(crate) fn settle(&mut self, now: impl Fn(&R) -> Option<Result<(), Lost>>) {
        for lane in self.lanes.values_mut() {
            while let Some(end) = lane.under_way.front().and_then(&now) {
                lane.under_way.pop_front();
                match end {
                    Ok(()) => lane.acked += 1,
                    Err(Lost::NotSent(_)) => lane.not_sent += 1,
                    Err(_) => lane.indeterminate += 1,
                }
            }
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.lanes.values().all(|lane| lane.under_way.is_empty())
    }

    fn json(&self, me: MemberId) -> Value {
        let lane = |((_, to), lane): (&(MemberId, MemberId), &Lane<R>)| {
            let pending = lane.under_way.len();
            let Lane { queued, acked, not_sent, indeterminate, .. } = lane;
            let one = json!({"queued": queued, "acked": acked, "not_sent": not_sent, "indeterminate": indeterminate,
                "pending": pending});
            (to.to_string(), one)
        };
        self.lanes.iter().filter(|((from, _), _)| *from == me).map(lane).collect()
    }
}

/// What came: the highest number of each sender to each of our incarnations, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    last: BTreeMap<(MemberId, MemberId), u64>,
    lost: u64,
    twice: u64,
    out_of_order: u64,
    /// Numbers that were passed over, and may still come: then they were out of order, not lost.
    missing: BTreeMap<(MemberId, MemberId), Vec<u64>>,
}

impl Heard {
    pub(crate) fn note(&mut self, from: MemberId, Numbered { to, number }: Numbered) {
        let last = self.last.entry((from, to)).or_default();
        if number > *last {
            let passed_over = *last + 1..number;
            *last = number;
            if !passed_over.is_empty() {
                self.lost += number - passed_over.start;
                self.missing.entry((from, to)).or_default().extend(passed_over);
            }
            return;
        }
        let missing = self.missing.get_mut(&(from, to));
        match missing
            .and_then(|missing| Some(missing.swap_remove(missing.iter().position(|at| *at == number)?)))
        {
            Some(_late) => {
                self.lost -= 1;
                self.out_of_order += 1;
            }
            None => self.twice += 1,
        }
    }

    /// The line that tells of all of it.
    pub(crate) fn totals<R>(&self, me: MemberId, sent: &Sent<R>) -> Value {
        let to_me = self.last.iter().filter(|((_, to), _)| *to == me);
        let from: serde_json::Map<_, _> =
            to_me.map(|((from, _), last)| (from.to_string(), json!(last))).collect();
        let received: u64 = self.last.values().sum();
        json!({"lost": self.lost, "twice": self.twice, "out_of_order": self.out_of_order, "received": received,
            "from": from, "sent": sent.json(me)})
    }
}
