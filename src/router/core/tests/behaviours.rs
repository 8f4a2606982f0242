//! shared/BEHAVIOURS.md 28-40, as far as the core decides them.

use std::sync::Arc;
use std::time::Duration;

use super::super::super::envelope::{Callback, Correlation, Envelope, FlowHead, TraceContext};
use super::super::super::envelope::{Distribution, Failure, decode, encode};
use super::super::{Scope, Told};
use super::net::*;
use crate::{Cause, Lost, ViewId};

#[test]
fn a_flow_begins_with_a_correlation_and_no_hops_and_each_send_between_nodes_counts_one() {
    let mut net = Net::of(3);
    let (ask, between, answer) = (key("ask"), key("between"), key("answer"));
    let first = net.host(2, &[&ask]);
    let second = net.host(3, &[&between]);
    net.request(1, 1, 10, &[&answer], order(&ask, 1));
    net.settle();
    let work = net.work(2, first).unwrap();
    assert_eq!((work.envelope.hops, work.envelope.depth, work.envelope.flow.member), (1, 0, member(1)));
    net.handled(2, &work, Ok(vec![product(&between, 2)]));
    net.settle();
    let next = net.work(3, second).unwrap();
    assert_eq!((next.envelope.hops, next.envelope.depth), (2, 1));
    assert_eq!(next.envelope.flow, work.envelope.flow, "one flow");
    net.handled(3, &next, Ok(vec![product(&answer, 3)]));
    net.settle();
    let home = net.side(1).answers.remove(&10).unwrap();
    assert_eq!((home.outcome, home.hops), (Ok((answer.id(), Blob(3))), 3));
}

#[test]
fn everything_in_an_envelope_survives_the_wire() {
    let envelope = Envelope {
        key: key("a").id(),
        flow: Correlation { member: member(1), number: 9 },
        hops: 3,
        depth: 300,
        to: Distribution::Actor(actor(2, 5)),
        idempotent: true,
        tell: true,
        callback: Some(Callback {
            keys: [key("b").id(), key("c").id()].into_iter().collect(),
            member: member(1),
            joined: Some(ViewId { generation: 2, number: 7 }),
            hub: 4,
            promise: 77,
        }),
        affinity: Some(5),
        trace: Some(TraceContext { trace_id: 1 << 100, parent_id: 3, flags: 1 }),
        trail: Some(vec![actor(1, 1), actor(2, 2)]),
    };
    let head = FlowHead { number: 1 << 40, host: 3, left_ms: 29_000, envelope: envelope.into() };
    let bytes = encode(&head, b"body").unwrap();
    let (back, body): (FlowHead, _) = decode(&bytes).unwrap();
    assert_eq!((back, &body[..]), (head, &b"body"[..]));
    for cut in 0..bytes.len() - 4 {
        assert!(decode::<FlowHead>(&bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn partitions_share_a_host_and_a_second_handler_for_a_key_registers_nothing() {
    let mut net = Net::of(1);
    let (a, b) = (key("a").in_partition(&b"one"[..]), key("a").in_partition(&b"two"[..]));
    let host = net.host(1, &[&a, &b]);
    net.submit(1, order(&b, 2));
    assert_eq!(net.work(1, host).unwrap().envelope.key, b.id());
    let twice = [(key("x"), Scope::Network), (key("y"), Scope::Network), (key("x"), Scope::Network)];
    assert!(net.act(1, |core, now| core.add_host(now, &twice)).is_err());
    let known = net.side(1).core.table().own().count();
    assert_eq!(known, 2, "nothing of it is registered");
}

#[test]
fn what_is_broadcast_carries_no_callback_and_what_is_not_does() {
    let mut net = Net::of(1);
    let (ask, all, one, answer) = (key("ask"), key("all"), key("one"), key("answer"));
    let host = net.host(1, &[&ask, &all, &one]);
    net.request(1, 1, 1, &[&answer], order(&ask, 1));
    let work = net.work(1, host).unwrap();
    let mut spread = product(&all, 2);
    spread.to = Distribution::Broadcast;
    net.handled(1, &work, Ok(vec![spread, product(&one, 3)]));
    let (first, second) = (net.work(1, host).unwrap(), net.work(1, host).unwrap());
    assert_eq!((first.envelope.key, first.envelope.callback.is_some()), (all.id(), false));
    assert_eq!((second.envelope.key, second.envelope.callback.is_some()), (one.id(), true));
}

#[test]
fn the_first_matching_answer_ends_a_promise_with_all_its_keys_and_others_leave_it() {
    let mut net = Net::of(2);
    let (ask, yes, no, other) = (key("ask"), key("yes"), key("no"), key("other"));
    let host = net.host(2, &[&ask]);
    net.request(1, 1, 1, &[&yes, &no], order(&ask, 1));
    net.settle();
    let work = net.work(2, host).unwrap();
    // What nobody waits for and nobody handles is no answer.
    net.handled(2, &work, Ok(vec![product(&other, 5), product(&no, 6), product(&yes, 7)]));
    net.settle();
    let side = net.side(1);
    assert_eq!(side.answers.remove(&1).unwrap().outcome, Ok((no.id(), Blob(6))));
    assert_eq!(side.core.open().1, 0, "its other key is gone, too");
    assert_eq!(side.core.counts().late, 1);
}

#[test]
fn an_answer_of_another_hub_or_flow_or_key_leaves_a_promise_open() {
    let mut net = Net::of(1);
    let (ask, yes, other) = (key("ask"), key("yes"), key("other"));
    net.host(1, &[&ask]);
    let one = net.request(1, 1, 1, &[&yes], order(&ask, 1));
    let two = net.request(1, 2, 2, &[&yes], order(&ask, 2));
    let reply = |hub, promise, number, key| super::super::ReplyHead {
        hub,
        promise,
        flow: Correlation { member: member(1), number },
        hops: 0,
        outcome: Ok(key),
        trail: None,
        left_ms: 1,
    };
    for wrong in [
        reply(2, one, 1, yes.id()),
        reply(1, two, 2, yes.id()),
        reply(1, one, 2, yes.id()),
        reply(1, one, 1, other.id()),
    ] {
        net.act(1, |core, _| core.handle_reply(wrong, Some(Blob(0))));
    }
    assert!(net.side(1).answers.is_empty());
    net.act(1, |core, _| core.handle_reply(reply(2, two, 2, yes.id()), Some(Blob(9))));
    assert_eq!(net.side(1).answers.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(net.side(1).core.counts().late, 4);
}

#[test]
fn a_broadcast_reaches_each_host_once_and_does_not_go_on_from_there() {
    let mut net = Net::of(3);
    let all = key("all");
    let hosts = [(1, net.host(1, &[&all])), (2, net.host(2, &[&all])), (2, net.host(2, &[&all]))];
    net.submit(3, super::super::Order { to: Distribution::Broadcast, ..order(&all, 1) });
    net.submit(1, super::super::Order { to: Distribution::Broadcast, ..order(&all, 2) });
    net.settle();
    for (at, host) in hosts {
        let mut got: Vec<u64> = std::iter::from_fn(|| net.work(at, host))
            .map(|work| {
                assert!(work.envelope.hops <= 1);
                work.body.0
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, [1, 2], "host {host} of {at}");
    }
    assert_eq!(net.count("flow"), 3, "one to each other node");
}

#[test]
fn what_is_for_this_node_uses_its_own_hosts_only_and_what_is_for_another_goes_there() {
    let mut net = Net::of(3);
    let ask = key("ask");
    let (here, there) = (net.host(1, &[&ask]), net.host(2, &[&ask]));
    let to = |at| Distribution::Node(member(at));
    net.submit(1, super::super::Order { to: to(1), ..order(&ask, 1) });
    net.submit(1, super::super::Order { to: to(2), ..order(&ask, 2) });
    net.submit(1, super::super::Order { to: to(3), watch: Some(7), ..order(&ask, 3) });
    net.settle();
    assert_eq!(net.work(1, here).unwrap().body.0, 1);
    assert_eq!(net.work(2, there).unwrap().body.0, 2);
    assert_eq!(net.side(1).told, [(7, Told::Failed(Failure::Unroutable(ask.id())))], "never to another");
}

#[test]
fn a_node_that_is_asked_for_what_it_does_not_handle_says_so_and_the_sender_finds_another() {
    let mut net = Net::of(3);
    let ask = key("ask");
    let stale = net.host(2, &[&ask]);
    let host = net.host(3, &[&ask]);
    // Its word of that is still on its way.
    net.side(2).core.remove_host(std::time::Instant::now(), stale);
    while net.side(2).core.poll_output().is_some() {}
    for body in 0..4 {
        net.submit(1, order(&ask, body));
    }
    net.settle();
    let got: Vec<u64> = std::iter::from_fn(|| net.work(3, host)).map(|work| work.body.0).collect();
    assert_eq!(got.len(), 4, "each once: {got:?}");
    assert_eq!(net.side(1).core.table().others().count(), 1, "the stale route is gone");
    assert_eq!(net.side(1).core.counts().returned, 2);
}

#[test]
fn the_network_is_asked_once_in_a_period_and_what_waits_is_found_or_fails() {
    let mut net = Net::of(2);
    let (ask, answer) = (key("ask"), key("answer"));
    for token in 1..=3 {
        net.request(1, 1, token, &[&answer], order(&ask, token.into()));
    }
    assert_eq!(net.count("discover"), 1);
    net.settle();
    net.pass(Duration::from_millis(600));
    for token in 1..=3 {
        let answer = net.side(1).answers.remove(&token).unwrap();
        assert_eq!(answer.outcome, Err(Failure::Unroutable(ask.id())));
    }
    net.request(1, 1, 4, &[&answer], order(&ask, 4));
    assert_eq!(net.count("discover"), 1, "not again so soon");
    let host = net.host(2, &[&ask]);
    assert_eq!(net.work(2, host).unwrap().body.0, 4, "it was waited for");
}

#[test]
fn one_route_of_a_host_goes_and_the_others_stay() {
    let mut net = Net::of(2);
    let (a, b) = (key("a"), key("b"));
    let host = net.host(2, &[&a, &b]);
    net.act(2, |core, now| core.remove_routes(now, host, &[a.id()]));
    net.settle();
    net.submit(1, order(&b, 1));
    net.settle();
    assert_eq!(net.work(2, host).unwrap().body.0, 1);
    assert_eq!(net.side(1).core.table().others().count(), 1);
}

#[test]
fn what_was_not_sent_goes_to_another_and_what_may_have_arrived_only_if_it_is_idempotent() {
    for (lost, idempotent, goes_on) in [
        (Lost::NotSent(Cause::Departed), false, true),
        (Lost::Indeterminate(Cause::Departed), false, false),
        (Lost::Indeterminate(Cause::Departed), true, true),
    ] {
        let mut net = Net::of(3);
        let (ask, answer) = (key("ask"), key("answer"));
        net.host(2, &[&ask]);
        net.request(1, 1, 1, &[&answer], super::super::Order { idempotent, ..order(&ask, 1) });
        let second = net.host(3, &[&ask]);
        let number = net.side(1).core.sent_to(member(2))[0];
        net.act(1, |core, now| core.handle_lost(now, member(2), number, lost));
        net.settle();
        assert_eq!(net.work(3, second).is_some(), goes_on, "{lost:?}, {idempotent}");
        let failed = net.side(1).answers.remove(&1).map(|answer| answer.outcome);
        assert_eq!(failed, (!goes_on).then_some(Err(Failure::Departed(member(2)))));
    }
}

#[test]
fn a_route_that_is_local_is_neither_announced_nor_reached_from_outside() {
    let mut net = Net::of(2);
    let secret = key("secret");
    let host = net.act(2, |core, now| core.add_host(now, &[(secret.clone(), Scope::Local)])).unwrap();
    net.settle();
    assert_eq!(net.side(1).core.table().others().count(), 0);
    // Somebody who guesses it.
    let head = FlowHead {
        number: 1,
        host,
        left_ms: 1000,
        envelope: Arc::new(Envelope {
            key: secret.id(),
            flow: Correlation { member: member(1), number: 1 },
            hops: 1,
            depth: 0,
            to: Distribution::Unicast,
            idempotent: false,
            tell: false,
            callback: None,
            affinity: None,
            trace: None,
            trail: None,
        }),
    };
    net.act(2, |core, now| core.handle_flow(now, member(1), head, Blob(1)));
    assert!(net.work(2, host).is_none());
    assert_eq!(net.count("returned"), 1);
    net.submit(2, order(&secret, 2));
    assert_eq!(net.work(2, host).unwrap().body.0, 2);
}

#[test]
fn a_flow_that_goes_round_for_ever_ends_at_its_limit() {
    let mut net = Net::with(2, |config| config.depth_max = 10);
    let (ping, pong, never) = (key("ping"), key("pong"), key("never"));
    let (one, two) = (net.host(1, &[&ping]), net.host(2, &[&pong]));
    net.request(1, 1, 1, &[&never], order(&ping, 0));
    let mut rounds = 0;
    while net.side(1).answers.is_empty() {
        net.settle();
        if let Some(work) = net.work(1, one) {
            net.handled(1, &work, Ok(vec![product(&pong, 0)]));
        }
        net.settle();
        if let Some(work) = net.work(2, two) {
            net.handled(2, &work, Ok(vec![product(&ping, 0)]));
        }
        rounds += 1;
        assert!(rounds < 50, "it does not end");
    }
    assert_eq!(net.side(1).answers[&1].outcome, Err(Failure::Limit));
}

#[test]
fn an_answer_for_a_caller_that_is_not_known_yet_waits_for_it() {
    let mut net = Net::of(2);
    let (ask, answer) = (key("ask"), key("answer"));
    let host = net.host(2, &[&ask]);
    net.request(1, 1, 1, &[&answer], order(&ask, 1));
    net.settle();
    let work = net.work(2, host).unwrap();
    let caller = net.sides.remove(&member(1)).unwrap();
    net.handled(2, &work, Ok(vec![product(&answer, 2)]));
    assert_eq!(net.side(2).core.open().2, 1, "the work is not done before its answer is on its way");
    net.sides.insert(member(1), caller);
    net.act(2, |core, now| core.handle_node_up(now, member(1)));
    net.settle();
    assert_eq!(net.side(1).answers[&1].outcome, Ok((answer.id(), Blob(2))));
    assert_eq!(net.side(2).core.open().2, 0);
}

#[test]
fn what_is_lost_with_a_node_is_told_to_the_caller_also_if_it_went_on_there() {
    let mut net = Net::of(2);
    let (ask, next, answer) = (key("ask"), key("next"), key("answer"));
    let host = net.host(2, &[&ask, &next]);
    net.request(1, 1, 1, &[&answer], order(&ask, 1));
    net.settle();
    let work = net.work(2, host).unwrap();
    net.handled(2, &work, Ok(vec![product(&next, 2)]));
    net.pass(Duration::from_millis(50));
    // The second handler has it when the node dies.
    assert!(net.work(2, host).is_some());
    net.act(1, |core, now| core.handle_node_down(now, member(2)));
    assert_eq!(net.side(1).answers[&1].outcome, Err(Failure::Departed(member(2))));
}

#[test]
fn what_a_node_says_of_its_routes_after_it_is_gone_is_not_kept() {
    let mut net = Net::of(2);
    let ask = key("ask");
    net.act(1, |core, now| core.handle_node_down(now, member(2)));
    let add = vec![super::super::RouteRecord { key: ask.clone(), host: 1 }];
    net.act(1, |core, now| core.handle_routes(now, member(2), true, add.clone(), &[]));
    assert_eq!(net.side(1).core.table().others().count(), 0);
    net.act(1, |core, now| core.handle_node_up(now, member(2)));
    assert_eq!(net.side(1).core.table().others().count(), 1, "it counts once it is known");
}
