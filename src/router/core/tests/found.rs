//! What the simulation found, and what was found on the way to it.

use std::time::{Duration, Instant};

use super::super::super::envelope::{Control, Correlation, Distribution, Failure, ReplyHead, RouteRecord};
use super::super::{Core, CoreConfig, Order, Output, Told};
use super::net::*;
use crate::{Cause, Lost};

fn to_all(of: Order<Blob>) -> Order<Blob> {
    Order { to: Distribution::Broadcast, ..of }
}

#[test]
fn a_copy_of_what_goes_to_all_goes_to_nobody_else_when_it_cannot_go_where_it_was_to() {
    let mut net = Net::of(3);
    let all = key("all");
    let hosts: Vec<_> = (1..=3).map(|at| net.host(at, &[&all])).collect();
    net.submit(1, to_all(order(&all, 1)));
    net.settle();
    let number = net.side(1).core.sent_to(member(2))[0];
    net.act(1, |core, now| core.handle_lost(now, member(2), number, Lost::NotSent(Cause::Departed)));
    net.settle();
    assert_eq!(net.count("flow"), 2, "to either of the others once");
    assert!(net.work(1, hosts[0]).is_some());
    assert!(net.work(1, hosts[0]).is_none(), "nor does it come to the host here once more");
}

#[test]
fn what_no_handler_began_in_its_time_is_not_told_as_handled() {
    for at in [1, 2] {
        let mut net = Net::of(2);
        let late = key("late");
        let host = net.host(at, &[&late]);
        let time_to_live = Duration::from_millis(10);
        net.submit(1, Order { time_to_live, watch: Some(7), ..order(&late, 1) });
        net.settle();
        net.pass(Duration::from_millis(20));
        assert!(net.work(at, host).is_none());
        net.settle();
        net.pass(Duration::from_millis(20));
        let told = &net.side(1).told;
        assert!(told.contains(&(7, Told::Failed(Failure::Expired))), "{told:?}");
        assert!(!told.contains(&(7, Told::Handled)), "{told:?}");
        assert_eq!(net.side(1).core.under_way(), 0);
    }
}

#[test]
fn what_a_node_that_is_gone_perhaps_handled_is_not_said_to_be_handled_by_nobody() {
    let mut net = Net::of(2);
    let (ask, answer) = (key("ask"), key("answer"));
    net.host(2, &[&ask]);
    net.request(1, 1, 10, &[&answer], Order { idempotent: true, ..order(&ask, 1) });
    net.settle();
    net.act(1, |core, now| core.handle_node_down(now, member(2)));
    net.pass(Duration::from_secs(1));
    let ended = net.side(1).answers.remove(&10).unwrap();
    assert_eq!(ended.outcome, Err(Failure::Departed(member(2))));
}

#[test]
fn what_waits_for_a_host_that_stops_goes_elsewhere_also_when_it_is_more_than_a_window() {
    let mut net = Net::of(1);
    let much = key("much");
    let host = net.host(1, &[&much]);
    for number in 0..300 {
        net.submit(1, order(&much, number));
    }
    let other = net.host(1, &[&much]);
    net.act(1, |core, now| core.remove_host(now, host));
    let mut came = 0;
    while let Some(work) = net.work(1, other) {
        net.handled(1, &work, Ok(Vec::new()));
        came += 1;
    }
    assert_eq!((came, net.side(1).core.open()), (300, (0, 0, 0)));
}

#[test]
fn what_one_of_two_hosts_handled_does_not_come_back_when_the_other_stops() {
    let mut net = Net::of(2);
    let all = key("all");
    let (one, other) = (net.host(2, &[&all]), net.host(2, &[&all]));
    net.submit(1, Order { watch: Some(7), ..to_all(order(&all, 1)) });
    net.settle();
    let work = net.work(2, one).unwrap();
    net.handled(2, &work, Ok(Vec::new()));
    net.act(2, |core, now| core.remove_host(now, other));
    net.pass(Duration::from_millis(50));
    let told = &net.side(1).told;
    assert_eq!(told.last(), Some(&(7, Told::Handled)), "{told:?}");
    assert!(net.side(1).core.table().has(actor(2, one), all.id()), "the other route is still known");
}

#[test]
fn a_node_that_allows_fewer_hops_tells_the_caller_and_keeps_no_place_of_its_window() {
    let mut net = Net::of(2);
    let (ask, answer) = (key("ask"), key("answer"));
    net.host(2, &[&ask]);
    net.side(2).core.config.hops_max = 0;
    net.request(1, 1, 10, &[&answer], order(&ask, 1));
    net.settle();
    let ended = net.side(1).answers.remove(&10).map(|answer| answer.outcome);
    assert_eq!(ended, Some(Err(Failure::Limit)));
    assert_eq!(net.side(1).core.under_way(), 0);
}

#[test]
fn a_node_that_becomes_another_ends_its_requests_and_keeps_its_hosts() {
    let mut net = Net::of(1);
    let (ask, answer) = (key("ask"), key("answer"));
    let host = net.host(1, &[&ask]);
    net.request(1, 1, 10, &[&answer], order(&ask, 1));
    let work = net.work(1, host).unwrap();
    net.act(1, |core, now| core.handle_reborn(now, member(9)));
    let ended = net.side(1).answers.remove(&10).map(|answer| answer.outcome);
    assert_eq!(ended, Some(Err(Failure::Departed(member(1)))));
    // Its answer is to nobody.
    net.handled(1, &work, Ok(vec![product(&answer, 2)]));
    assert_eq!((net.side(1).core.open(), net.side(1).core.under_way()), ((0, 0, 0), 0));
    assert_eq!(net.side(1).core.counts().late, 1);
    net.request(1, 1, 11, &[&answer], order(&ask, 1));
    let work = net.work(1, host).unwrap();
    net.handled(1, &work, Ok(vec![product(&answer, 3)]));
    let ended = net.side(1).answers.remove(&11).map(|answer| answer.outcome);
    assert_eq!(ended, Some(Ok((answer.id(), Blob(3)))));
}

#[test]
fn for_a_node_that_becomes_another_those_of_before_are_down() {
    let mut net = Net::of(2);
    let ask = key("ask");
    let host = net.host(2, &[&ask]);
    net.submit(1, Order { watch: Some(7), ..order(&ask, 1) });
    net.settle();
    net.act(1, |core, now| core.handle_reborn(now, member(9)));
    let core = &net.side(1).core;
    assert!(core.nodes.is_empty() && !core.table().has(actor(2, host), ask.id()));
    assert_eq!(core.under_way(), 0, "what they had is looked after");
    assert!(matches!(net.side(1).told.last(), Some((7, Told::Failed(_)))), "{:?}", net.side(1).told);
}

#[test]
fn routes_that_come_before_their_node_is_known_are_not_lost() {
    let mut net = Net::of(1);
    let ask = key("ask");
    let add = vec![RouteRecord { key: ask.clone(), host: 1 }];
    net.act(1, |core, now| core.handle_routes(now, member(9), true, add, &[]));
    net.submit(1, order(&ask, 1));
    assert_eq!(net.count("flow"), 0);
    net.act(1, |core, now| core.handle_node_up(now, member(9)));
    net.pass(Duration::from_millis(50));
    assert_eq!(net.count("flow"), 1);
}

#[test]
fn what_comes_back_because_there_is_no_room_counts_as_waiting() {
    let mut net = Net::with(2, |config| (config.waiting_max, config.queued_bytes_max) = (3, 0));
    let ask = key("ask");
    net.host(2, &[&ask]);
    for number in 0..3 {
        net.submit(1, order(&ask, number));
        net.settle();
    }
    assert!(net.act(1, |core, now| core.submit(now, order(&ask, 4))).is_err());
}

#[test]
fn an_answer_whose_caller_was_not_known_goes_when_it_is_by_then() {
    let mut net = Net::of(2);
    let flow = Correlation { member: member(1), number: 1 };
    let outcome = Err(Failure::Limit);
    let head = ReplyHead { hub: 1, promise: 1, flow, hops: 1, outcome, trail: None, left_ms: 5_000 };
    // The view came between the messenger's word and this.
    net.act(2, |core, now| core.handle_unknown_caller(now, member(1), head, None, None));
    net.pass(Duration::from_millis(100));
    assert_eq!((net.count("reply"), net.side(2).core.held.len()), (1, 0));
}

#[test]
fn a_copy_for_a_host_that_stops_does_not_make_others_forget_the_next_one() {
    let mut net = Net::of(2);
    let all = key("all");
    let old = net.host(2, &[&all]);
    net.submit(1, to_all(order(&all, 1)));
    net.settle();
    let new = net.host(2, &[&all]);
    net.act(2, |core, now| core.remove_host(now, old));
    net.pass(Duration::from_millis(50));
    assert!(net.side(1).core.table().has(actor(2, new), all.id()));
    assert!(net.work(2, new).is_some(), "and it gets what the other did not begin");
}

#[test]
fn an_answer_whose_caller_comes_too_late_keeps_no_place() {
    let mut net = Net::of(2);
    let (ask, answer) = (key("ask"), key("answer"));
    let host = net.host(2, &[&ask]);
    let time_to_live = Duration::from_millis(30);
    net.request(1, 1, 10, &[&answer], Order { time_to_live, ..order(&ask, 1) });
    net.settle();
    let work = net.work(2, host).unwrap();
    let caller = net.sides.remove(&member(1)).unwrap();
    net.handled(2, &work, Ok(vec![product(&answer, 2)]));
    net.sides.insert(member(1), caller);
    net.now += Duration::from_millis(40);
    net.act(2, |core, now| core.handle_node_up(now, member(1)));
    assert_eq!(net.side(2).core.open(), (0, 0, 0));
}

#[test]
fn what_expired_unsent_goes_to_another_provider_while_it_lives() {
    let mut net = Net::of(3);
    let ask = key("ask");
    let hosts = [net.host(2, &[&ask]), net.host(3, &[&ask])];
    net.submit(1, order(&ask, 1));
    let (first, other) = if net.side(1).core.sent_to(member(2)).is_empty() { (3, 2) } else { (2, 3) };
    let number = net.side(1).core.sent_to(member(first))[0];
    net.ways.clear();
    net.act(1, |core, now| core.handle_lost(now, member(first), number, Lost::NotSent(Cause::Expired)));
    net.settle();
    assert!(net.work(other, hosts[other as usize - 2]).is_some());
}

#[test]
fn what_expired_unsent_with_its_time_or_its_only_place_is_told_as_late() {
    for (to, after) in [(Distribution::Unicast, 11), (Distribution::Node(member(2)), 0)] {
        let mut net = Net::of(3);
        let ask = key("ask");
        net.host(2, &[&ask]);
        net.submit(1, Order { to, watch: Some(7), ..order(&ask, 1) });
        let number = net.side(1).core.sent_to(member(2))[0];
        net.ways.clear();
        net.now += Duration::from_secs(after);
        net.act(1, |core, now| core.handle_lost(now, member(2), number, Lost::NotSent(Cause::Expired)));
        let told = &net.side(1).told;
        assert_eq!(told.last(), Some(&(7, Told::Failed(Failure::Expired))), "{told:?}");
        assert_eq!((net.side(1).core.under_way(), net.side(1).core.open()), (0, (0, 0, 0)));
    }
}

#[test]
fn a_node_that_was_given_up_by_one_side_only_and_comes_back_is_known_with_all_its_routes() {
    let mut net = Net::of(2);
    let ask = key("ask");
    let host = net.host(2, &[&ask]);
    // Node 2 has not noticed anything.
    net.act(1, |core, now| core.handle_node_down(now, member(2)));
    assert!(!net.side(1).core.table().has(actor(2, host), ask.id()));
    net.act(1, |core, now| core.handle_node_up(now, member(2)));
    net.settle();
    assert!(net.side(1).core.table().has(actor(2, host), ask.id()));
}

#[test]
fn an_actor_with_the_number_that_no_host_has_is_nobody() {
    let mut net = Net::of(2);
    let ask = key("ask");
    let hosts = [net.host(2, &[&ask]), net.host(2, &[&ask])];
    let to = Distribution::Actor(actor(2, 0));
    net.submit(1, Order { to, watch: Some(7), ..order(&ask, 1) });
    net.settle();
    let told = &net.side(1).told;
    assert_eq!(told.last(), Some(&(7, Told::Failed(Failure::Unroutable(ask.id())))), "{told:?}");
    assert!(hosts.iter().all(|host| net.work(2, *host).is_none()));
}

#[test]
fn of_a_node_that_is_not_known_no_more_routes_are_kept_than_one_may_have() {
    let mut net = Net::with(2, |config| config.routes_max = 3);
    let name = |at: u8| key("many").in_partition(vec![at]);
    let told = |add: std::ops::Range<u8>| add.map(|at| RouteRecord { key: name(at), host: 1 }).collect();
    let host = net.host(2, &[&key("ask")]);
    net.act(1, |core, now| core.handle_node_down(now, member(2)));
    // As if it had never been known: one that was is asked for all of its routes anyway.
    net.side(1).core.gone.clear();
    for _ in 0..2 {
        net.act(1, |core, now| core.handle_routes(now, member(2), false, told(0..2), &[]));
    }
    assert!(net.side(1).core.early.is_empty(), "a part of them would be wrong");
    net.act(1, |core, now| core.handle_node_up(now, member(2)));
    net.settle();
    assert!(net.side(1).core.table().has(actor(2, host), key("ask").id()), "it was asked for all of them");
}

#[test]
fn what_is_done_for_a_node_that_was_given_up_by_one_side_only_is_told_it_all_the_same() {
    for give_up_first in [true, false] {
        let mut net = Net::of(2);
        let all = key("all");
        let hosts = [net.host(2, &[&all]), net.host(2, &[&all])];
        net.submit(1, Order { watch: Some(7), ..to_all(order(&all, 1)) });
        net.submit(1, order(&all, 2));
        net.settle();
        let work: Vec<_> =
            hosts.iter().flat_map(|host| [net.work(2, *host), net.work(2, *host)]).flatten().collect();
        assert_eq!(work.len(), 3, "to each of both, and to one");
        // Node 1 has not noticed anything.
        if give_up_first {
            net.act(2, |core, now| core.handle_node_down(now, member(1)));
        }
        for (at, work) in work.iter().enumerate() {
            net.settle();
            assert!(at > 0 || !net.side(1).told.contains(&(7, Told::Handled)));
            net.handled(2, work, Ok(Vec::new()));
        }
        net.act(2, |core, now| core.handle_node_down(now, member(1)));
        net.pass(Duration::from_millis(50));
        assert_eq!(net.side(1).told.last(), Some(&(7, Told::Handled)));
        assert_eq!(net.side(1).core.under_way(), 0);
        assert!(net.side(2).core.nodes.is_empty());
    }
}

/// Whom a node asks for all its routes, without anybody hearing it.
fn asked(core: &mut Core<Blob, u32>) -> usize {
    let mut asked = 0;
    while let Some(output) = core.poll_output() {
        asked += usize::from(
            matches!(output, Output::Control { control: Control::Discover(keys), .. } if keys.is_empty()),
        );
    }
    asked
}

#[test]
fn who_told_its_routes_before_anybody_listened_is_asked_until_it_tells_them_and_not_for_ever() {
    let (now, answers) = (Instant::now(), |core: &mut Core<Blob, u32>, now| {
        core.handle_routes(now, member(2), true, Vec::new(), &[]);
    });
    for answered in [None, Some(3)] {
        let mut core = Core::new(member(1), CoreConfig::default());
        core.set_unheard([member(2)]);
        core.handle_node_up(now, member(2));
        let mut times = asked(&mut core);
        assert_eq!(times, 1, "at once");
        while let Some(at) = core.poll_timeout() {
            core.handle_timeout(at);
            times += asked(&mut core);
            if answered == Some(times) {
                answers(&mut core, at);
            }
        }
        assert_eq!(times, answered.unwrap_or(9));
        // It comes again.
        core.handle_node_down(now, member(2));
        core.handle_node_up(now, member(2));
        assert_eq!(asked(&mut core), 1, "it was given up, and may not have missed this node");
    }
}

/// As in the simulation, seed 50146: each had found the other unreachable, and one came to know the other again sooner.
#[test]
fn who_asks_for_routes_before_it_is_known_again_is_told_them_when_it_is() {
    let mut net = Net::of(2);
    let ask = key("ask");
    net.host(2, &[&ask]);
    net.request(1, 1, 10, &[&key("answer")], order(&ask, 1));
    // What is under way to it is not settled yet, so it is not forgotten.
    let now = net.now;
    let core = &mut net.side(1).core;
    core.handle_node_down(now, member(2));
    assert!(core.nodes.contains_key(&member(2)) && !core.is_up(member(2)));
    core.handle_control(now, member(2), Control::Discover(Vec::new()));
    while let Some(output) = core.poll_output() {
        if let Output::News { to } = output {
            assert!(core.take_news(to).is_none());
        }
    }
    core.handle_node_up(now, member(2));
    let mut told = Vec::new();
    while let Some(output) = core.poll_output() {
        if let Output::News { to } = output {
            told.extend(core.take_news(to));
        }
    }
    assert!(matches!(told[..], [Control::Routes { all: true, .. }]), "{told:?}");
}
