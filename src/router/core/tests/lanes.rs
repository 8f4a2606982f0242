//! Windows: a slow actor holds up its own senders, and no two hold up each other for ever.

use std::time::Duration;

use super::super::super::envelope::Failure;
use super::super::Told;
use super::super::lanes::WINDOW;
use super::net::*;

#[test]
fn a_host_holds_a_window_of_a_sender_and_the_rest_waits_at_home() {
    let mut net = Net::of(2);
    let slow = key("slow");
    let host = net.host(2, &[slow.clone()]);
    for body in 0..WINDOW as u64 + 10 {
        net.submit(1, order(&slow, body));
    }
    net.settle();
    assert_eq!(net.count("flow"), WINDOW);
    assert_eq!(net.side(1).core.open().0, 10);
    for at in 0..WINDOW as u64 + 10 {
        let work = net.work(2, host).unwrap();
        assert_eq!(work.body.0, at, "in order");
        net.handled(2, &work, Ok(Vec::new()));
        net.settle();
        net.pass(Duration::from_millis(1));
    }
    net.pass(Duration::from_millis(10));
    assert_eq!((net.side(1).core.open(), net.side(2).core.open()), ((0, 0, 0), (0, 0, 0)));
}

#[test]
fn a_full_host_does_not_hold_up_another_of_the_same_node() {
    let mut net = Net::of(2);
    let (slow, quick) = (key("slow"), key("quick"));
    net.host(2, &[slow.clone()]);
    let host = net.host(2, &[quick.clone()]);
    for body in 0..2 * WINDOW as u64 {
        net.submit(1, order(&slow, body));
    }
    net.submit(1, order(&quick, 1));
    net.settle();
    assert_eq!(net.work(2, host).unwrap().body.0, 1);
}

#[test]
fn two_actors_that_send_each_other_more_than_they_hold_come_to_an_end() {
    let mut net = Net::of(2);
    let (ping, pong) = (key("ping"), key("pong"));
    let (one, two) = (net.host(1, &[ping.clone()]), net.host(2, &[pong.clone()]));
    for body in 0..2 * WINDOW as u64 {
        net.submit(1, order(&pong, body));
        net.submit(2, order(&ping, body));
    }
    net.settle();
    // Each answers each with another, four deep; both stand with all windows full first.
    let mut handled = 0;
    loop {
        let mut idle = true;
        for (at, host, next) in [(1, one, &pong), (2, two, &ping)] {
            while let Some(work) = net.work(at, host) {
                idle = false;
                handled += 1;
                let goes_on = work.envelope.depth < 4;
                let products = if goes_on { vec![product(next, work.body.0)] } else { Vec::new() };
                net.handled(at, &work, Ok(products));
            }
        }
        net.settle();
        net.pass(Duration::from_millis(5));
        if idle {
            break;
        }
    }
    assert_eq!(handled, 5 * 4 * WINDOW, "all of them, to the end");
    assert_eq!((net.side(1).core.open(), net.side(2).core.open()), ((0, 0, 0), (0, 0, 0)));
}

#[test]
fn what_waits_for_room_too_long_is_told() {
    let mut net = Net::of(2);
    let slow = key("slow");
    net.host(2, &[slow.clone()]);
    for body in 0..=WINDOW as u64 {
        let watch = (body == WINDOW as u64).then_some(1);
        net.submit(1, super::super::Order { watch, ..order(&slow, body) });
    }
    net.pass(Duration::from_secs(11));
    assert_eq!(net.side(1).told, [(1, Told::Failed(Failure::Expired))]);
    assert_eq!(net.side(1).core.open().0, 0);
}

#[test]
fn a_host_that_ends_gives_back_what_it_has_not_begun() {
    let mut net = Net::of(2);
    let ask = key("ask");
    let first = net.host(2, &[ask.clone()]);
    for body in 0..2 * WINDOW as u64 {
        net.submit(1, order(&ask, body));
    }
    net.settle();
    let begun = net.work(2, first).unwrap();
    let second = net.host(2, &[ask.clone()]);
    net.act(2, |core, now| core.remove_host(now, first));
    net.settle();
    net.handled(2, &begun, Ok(Vec::new()));
    net.settle();
    let mut got = vec![begun.body.0];
    while let Some(work) = net.work(2, second) {
        got.push(work.body.0);
        net.handled(2, &work, Ok(Vec::new()));
        net.settle();
        net.pass(Duration::from_millis(6));
    }
    got.sort_unstable();
    assert_eq!(got, (0..2 * WINDOW as u64).collect::<Vec<_>>());
    net.pass(Duration::from_millis(10));
    assert_eq!((net.side(1).core.open(), net.side(2).core.open()), ((0, 0, 0), (0, 0, 0)));
}
