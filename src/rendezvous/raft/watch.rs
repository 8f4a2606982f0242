//! What openraft tells of itself, as a [`Standing`]; and what follows from it: whose acknowledgements make a lease, whose addresses
//! are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;

use super::founding::Founding;
use super::house::House;
use super::standing::Standing;
use super::types::{Server, ServerId};

type Metrics = RaftMetrics<ServerId, Server>;

/// Says that it is over, however that came.
struct Last(Arc<House>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.leases.lock().handle_following();
        self.0.standing.send_if_modified(|standing| {
            let is_news = !matches!(standing, Standing::Stopped { .. });
            if is_news {
                *standing = Standing::Stopped { why: "it was closed".to_owned() };
            }
            is_news
        });
    }
}

/// A term in which this server leads, and up to where its machine has to come to be current.
#[derive(Clone, Copy, Debug)]
struct Led {
    term: u64,
    upto: Option<u64>,
}

/// Tells the standing as long as the log lives.
pub(super) async fn run(house: Arc<House>, mut metrics: watch::Receiver<Metrics>) {
    let last = Last(house);
    let house = &last.0;
    let mut founding = house.founding.subscribe();
    let mut led: Option<Led> = None;
    let mut of = None;
    loop {
        let seen = metrics.borrow_and_update().clone();
        let waits = founding.borrow_and_update().clone();
        if of != Some(*seen.membership_config.log_id()) {
            of = Some(*seen.membership_config.log_id());
            follow(house, &seen);
        }
        led = leading(house.me, led, &seen);
        // Before anybody hears that it leads no more.
        tell(house, &seen, led, waits);
        if seen.running_state.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            _ = founding.changed() => {}
        }
    }
}

/// The membership is another.
fn follow(house: &House, seen: &Metrics) {
    let membership = seen.membership_config.membership();
    house.leases.lock().set_voters(membership.get_joint_config());
    let members = membership.nodes().filter(|(id, _)| **id != house.me);
    let mut wanted: BTreeSet<String> = members.map(|(_, server)| server.address.clone()).collect();
    wanted.extend(house.config.others());
    house.peers.keep_only(&wanted);
    wanted.iter().for_each(|address| {
        house.peers.keep(address);
    });
}

/// What was in its log when it was elected is all that earlier terms decided, and perhaps more: with that applied it is current.
fn leading(me: ServerId, led: Option<Led>, seen: &Metrics) -> Option<Led> {
    let vote = &seen.vote;
    let leads =
        seen.state == ServerState::Leader && vote.is_committed() && vote.leader_id().voted_for() == Some(me);
    let term = vote.leader_id().term;
    match led {
        _ if !leads => None,
        Some(led) if led.term == term => Some(led),
        Some(_) | None => Some(Led { term, upto: seen.last_log_index }),
    }
}

fn tell(house: &House, seen: &Metrics, led: Option<Led>, founding: Founding) {
    let applied = seen.last_applied.map(|id| id.index);
    let current = led.filter(|led| applied >= led.upto);
    match current {
        Some(led) => house.leases.lock().handle_leading(led.term),
        None => house.leases.lock().handle_following(),
    }
    let standing = standing(house, seen, current, founding);
    house.standing.send_if_modified(|now| {
        let is_news = *now != standing;
        if is_news {
            tracing::debug!(server = format_args!("{:016x}", house.me), ?now, ?standing, "log");
            *now = standing;
        }
        is_news
    });
}

fn standing(house: &House, seen: &Metrics, current: Option<Led>, founding: Founding) -> Standing {
    if let Err(why) = &seen.running_state {
        let fault = house.store.fault().borrow().as_ref().map(ToString::to_string);
        return Standing::Stopped { why: fault.unwrap_or_else(|| why.to_string()) };
    }
    if let Some(led) = current {
        return Standing::Leader { term: led.term };
    }
    match founding {
        Founding::Waits(missing) => return Standing::Founding { missing },
        Founding::WaitsToBeAdded => return Standing::NotMember,
        Founding::Over => {}
    }
    let membership = seen.membership_config.membership();
    let is_known = membership.nodes().next().is_some();
    if is_known && membership.get_node(&house.me).is_none() {
        return Standing::NotMember;
    }
    let leader = seen.current_leader.filter(|leader| *leader != house.me);
    let leader = leader.and_then(|id| Some((id, membership.get_node(&id)?.address.clone())));
    Standing::Follower { term: seen.current_term, leader }
}
