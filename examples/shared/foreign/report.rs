//! What is said at the end.

use serde_json::{Value, json};

use crate::Options;
use crate::router::Lane;
use crate::words::Totals;

/// What one survivor sent to another one, and what that one received.
struct Pair {
    from: usize,
    to: usize,
    sent: u64,
    received: Lane,
}

pub(crate) struct Report {
    pairs: Vec<Pair>,
    whole: Value,
    is_good: bool,
}

fn pairs(totals: &[(usize, Totals)]) -> Vec<Pair> {
    let lane = |of: &Totals, with: &Totals| {
        let found = of.lanes.iter().find(|(node, _)| *node == with.me);
        found.map(|(_, lane)| lane.clone()).unwrap_or_default()
    };
    let mut pairs = Vec::new();
    for (from, ours) in totals {
        for (to, theirs) in totals.iter().filter(|(to, _)| to != from) {
            let (sent, received) = (lane(ours, theirs).sent, lane(theirs, ours));
            pairs.push(Pair { from: *from, to: *to, sent, received });
        }
    }
    pairs
}

/// Everyone has received all that the others have sent.
pub(crate) fn is_settled(totals: &[(usize, Totals)]) -> bool {
    let complete = |pair: &Pair| pair.sent == pair.received.received;
    totals.iter().all(|(_, totals)| totals.is_settled) && pairs(totals).iter().all(complete)
}

impl Report {
    pub(crate) fn new(options: &Options, totals: &[(usize, Totals)], faults: Value, seconds: f64) -> Self {
        let pairs = pairs(totals);
        let sum = |of: fn(&Pair) -> u64| pairs.iter().map(of).sum::<u64>();
        let all = |of: fn(&Totals) -> u64| totals.iter().map(|(_, totals)| of(totals)).sum::<u64>();
        // What was sent last and did not come leaves no gap.
        let lost = sum(|pair| pair.sent.saturating_sub(pair.received.received).max(pair.received.lost));
        let (twice, out_of_order) = (sum(|pair| pair.received.twice), sum(|pair| pair.received.out_of_order));
        let (answered, departed) = (all(|totals| totals.answered), all(|totals| totals.departed));
        let is_complete = answered + departed == options.orders * totals.len() as u64;
        let books_balance = totals.iter().all(|(_, totals)| totals.books_balance);
        let all_sent = pairs.iter().all(|pair| pair.sent > 0 && pair.sent == pair.received.received);
        let is_good = lost + twice + out_of_order == 0 && is_complete && books_balance && all_sent;
        let whole = json!({
            "nodes": options.nodes,
            "survivors": totals.len(),
            "sent": sum(|pair| pair.sent),
            "received": sum(|pair| pair.received.received),
            "lost": lost,
            "twice": twice,
            "out_of_order": out_of_order,
            "orders": options.orders * totals.len() as u64,
            "answered": answered,
            "again": all(|totals| totals.again),
            "departed": departed,
            "dropped": all(|totals| totals.dropped),
            "books_balance": books_balance,
            "actors": totals.iter().map(|(_, totals)| totals.actors.clone()).collect::<Vec<_>>(),
            "pairs": pairs.iter().map(Pair::json).collect::<Vec<_>>(),
            "faults": faults,
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "good": is_good,
        });
        Self { pairs, whole, is_good }
    }

    pub(crate) const fn is_good(&self) -> bool {
        self.is_good
    }

    pub(crate) fn print(&self, as_json: bool) {
        let whole = &self.whole;
        if as_json {
            println!("{whole}");
            return;
        }
        println!("from  to      sent  received  lost  twice  out of order");
        for Pair { from, to, sent, received } in &self.pairs {
            println!(
                "{from:>4}  {to:>2}  {sent:>8}  {:>8}  {:>4}  {:>5}  {:>12}",
                received.received, received.lost, received.twice, received.out_of_order
            );
        }
        println!(
            "{} orders: {} answered, {} went with the two nodes that left the view ({} others were sent again)",
            whole["orders"], whole["answered"], whole["departed"], whole["again"]
        );
        println!("each node's redundant actors took {}", whole["actors"]);
        println!("faults: {}", whole["faults"]);
        println!(
            "between survivors: sent {}, received {}, lost {}, twice {}, out of order {}, in {} s",
            whole["sent"],
            whole["received"],
            whole["lost"],
            whole["twice"],
            whole["out_of_order"],
            whole["seconds"]
        );
    }
}

impl Pair {
    fn json(&self) -> Value {
        let Lane { received, lost, twice, out_of_order, .. } = &self.received;
        json!({
            "from": self.from, "to": self.to, "sent": self.sent, "received": received,
            "lost": lost, "twice": twice, "out_of_order": out_of_order,
        })
    }
}
