//! What a node does, one claim a test.

use std::time::Duration;

use bytes::Bytes;

use super::super::{CoreConfig, OnFrozen, Output};
use super::world::{Log, MS, World, adds, everything, member, route};
use crate::ViewId;
use crate::rendezvous::client::standing::Standing;
use crate::rendezvous::common::{ClusterId, Why};
use crate::rendezvous::state::Op;
use crate::rendezvous::words::{Ping, Refusal, Report, ToNode, ToServer};
use crate::router::RouteChange;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn joined(seed: u64) -> World {
    let mut world = World::new(seed);
    world.join_other(50);
    world.run(SECOND);
    assert!(world.standing().is_joined(), "{:?}", world.standings);
    world.check(&[]);
    world
}

#[test]
fn a_node_joins_by_any_server_of_its_list_and_knows_what_the_log_does() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let other = world.join_other(50);
        let routes = Op::Routes { member: other, from: 0, to: 1, add: vec![route(1)], remove: Vec::new() };
        world.decide(routes);
        world.run(SECOND);
        assert!(world.standing().is_joined(), "seed {seed}: {:?}", world.standings);
        assert_eq!(world.up[&other].len(), 1);
        world.check(&[]);
        // Whoever began elsewhere was told where the leader is.
        assert!(world.sought.len() <= 2 && world.sought.last().is_some_and(|(_, at)| at == "a:1"));
    }
}

#[test]
fn a_change_reaches_a_member_once_and_in_order() {
    let mut world = joined(1);
    for number in 60..80 {
        let other = world.join_other(number);
        let add = vec![route(number as u64)];
        world.decide(Op::Routes { member: other, from: 0, to: 1, add, remove: Vec::new() });
    }
    world.settle();
    world.check(&[]);
    assert_eq!((world.up.len(), world.views.len()), (21, 21));
    world.decide(Op::Leave { member: member(60).id, why: Why::Silent });
    world.settle();
    world.check(&[]);
    assert!(!world.up.contains_key(&member(60).id));
}

// BEHAVIOURS 41, as decided; over sockets in tests/rendezvous_client.rs.
#[test]
fn silence_of_the_leader_leads_to_the_next_server_and_pings_in_time_to_none() {
    let mut world = joined(1);
    let asked = world.sought.len();
    world.run(Duration::from_secs(30));
    assert_eq!(world.sought.len(), asked, "it answers in time: no change");
    // Its words do not get through any more; nothing says that the connection is gone.
    world.servers[0].leads = None;
    world.elect(1);
    world.at = None;
    world.run(Duration::from_millis(2_900));
    assert_eq!(world.sought.len(), asked, "not before three pings are missing");
    world.run(Duration::from_millis(1_500));
    assert!(world.sought.len() > asked && world.standing().is_joined(), "{:?}", world.sought);
    world.check(&[]);
}

#[test]
fn a_leader_whose_link_breaks_and_does_not_come_back_is_left_long_before_it_counts_as_silent() {
    let mut world = joined(1);
    let (asked, server) = (world.sought.len(), world.servers[0].id);
    world.client.handle_link(world.now, server, false);
    world.run(100 * MS);
    world.client.handle_link(world.now, server, true);
    world.run(SECOND);
    assert_eq!(world.sought.len(), asked, "it came back");
    world.client.handle_link(world.now, member(50).id, false);
    world.run(SECOND);
    assert_eq!(world.sought.len(), asked, "another member's link is nobody's leader");
    world.client.handle_link(world.now, server, false);
    world.stop(0);
    world.elect(1);
    world.run(SECOND);
    assert!(world.sought.len() > asked && world.standing().is_joined(), "{:?}", world.sought);
    world.check(&[]);
}

#[test]
fn a_server_that_is_met_again_is_not_left_for_the_link_that_broke_before() {
    let mut world = joined(1);
    let server = world.servers[0].id;
    // Its new link comes up while it is looked for, when nobody counts as the server.
    world.client.handle_link(world.now, server, false);
    world.run(SECOND);
    let asked = world.sought.len();
    world.run(5 * SECOND);
    assert_eq!(world.sought.len(), asked, "{:?}", world.sought);
    assert!(world.standing().is_joined());
}

#[test]
fn waits_grow_while_nobody_answers_and_never_end() {
    let mut world = World::new(3);
    (0..3).for_each(|at| world.stop(at));
    world.run(Duration::from_secs(60));
    let times: Vec<Duration> = world.sought.iter().map(|(at, _)| *at).collect();
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] <= 51 * MS, "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= Duration::from_millis(1_001)), "{gaps:?}");
    assert!(gaps[8..].iter().all(|gap| *gap >= Duration::from_millis(499)), "{gaps:?}");
    assert!(times.last().unwrap().as_secs() >= 58, "it goes on");
    assert_eq!(*world.standing(), Standing::Seeking);
    for at in 0..3 {
        world.servers[at].up = true;
    }
    world.elect(2);
    world.run(Duration::from_secs(3));
    assert!(world.standing().is_joined());
}

#[test]
fn a_leader_of_a_lower_term_is_not_listened_to() {
    let mut world = joined(1);
    let server = world.servers[0].id;
    let before = world.client.copy().index();
    world.term += 1;
    let ping = Ping { term: world.term, number: 1, index: before };
    assert!(world.client.handle_ping(world.now, server, ping).is_some());
    let old = world.term - 1;
    let ping = Ping { term: old, number: 2, index: before };
    assert_eq!(world.client.handle_ping(world.now, server, ping), None, "no answer to it");
    world.log.decide(Op::Join { member: member(51), keep: false });
    let (_, change) = world.log.state.change_after(before).unwrap();
    for word in [
        ToNode::Change { term: old, change },
        ToNode::Evicted { term: old, why: None },
        ToNode::Farewell { term: old },
    ] {
        world.client.handle_word(world.now, server, word);
    }
    world.drain();
    assert_eq!((world.client.copy().index(), world.reborn), (before, 0));
    // That of the higher one is listened to.
    world.servers[0].leads = Some(old + 1);
    world.catch_up();
    world.run(SECOND);
    assert!(world.client.copy().index() > before);
}

#[test]
fn a_server_that_leads_again_in_a_higher_term_is_told_again() {
    let mut world = joined(1);
    world.announce(adds([3]));
    // What was said is lost with the term, and nobody says so but the next ping.
    world.out.clear();
    world.servers[0].leads = None;
    world.elect(0);
    let term = world.term;
    let ping = Ping { term, number: 1, index: world.log.state.index() };
    let server = world.servers[0].id;
    assert!(world.client.handle_ping(world.now, server, ping).is_some(), "it lives");
    world.run(Duration::from_millis(500));
    assert_eq!(world.log.state.routes_of(world.me).count(), 1);
    assert_eq!(world.sought.len(), joined(1).sought.len(), "at the same server");
}

#[test]
fn a_change_of_routes_that_is_not_decided_is_said_again() {
    let mut world = joined(1);
    world.announce(adds([3]));
    world.out.clear();
    world.run(Duration::from_millis(4_500));
    assert_eq!(world.log.state.routes_of(world.me).count(), 0);
    world.run(Duration::from_secs(1));
    assert_eq!(world.log.state.routes_of(world.me).count(), 1);
}

#[test]
fn a_gap_is_noticed_and_what_is_missing_is_asked_for() {
    let mut world = joined(1);
    world.join_other(60);
    world.join_other(61);
    world.drain();
    let at = world.at.unwrap();
    // The first of the two words is lost.
    let before = world.client.copy().index();
    let (first, _) = world.log.state.change_after(before).unwrap();
    let (_, second) = world.log.state.change_after(first).unwrap();
    let (server, term) = (world.servers[at].id, world.term);
    world.client.handle_word(world.now, server, ToNode::Change { term, change: second });
    world.drain();
    assert_eq!(world.client.copy().index(), before, "not applied");
    world.run(SECOND);
    assert_eq!(world.client.copy().index(), world.log.state.index());
    world.check(&[]);
}

#[test]
fn a_change_that_never_came_is_asked_for_when_pings_say_that_there_is_one() {
    let mut world = joined(1);
    let hellos = world.sought.len();
    let at = world.at.unwrap();
    let ping = Ping { term: world.term, number: 1, index: world.log.state.index() + 5 };
    let server = world.servers[at].id;
    assert!(world.client.handle_ping(world.now, server, ping).is_some());
    world.now += Duration::from_millis(1_001);
    world.client.handle_timeout(world.now);
    world.drain();
    assert!(world.out.iter().any(|word| matches!(word, ToServer::Hello { .. })), "{:?}", world.out);
    assert_eq!(world.sought.len(), hellos, "of the same server");
}

#[test]
fn an_evicted_node_comes_again_as_another_member_with_all_its_routes() {
    let mut world = joined(1);
    world.announce(adds(0..5));
    world.settle();
    let before = world.me;
    assert_eq!(world.log.state.routes_of(before).count(), 5);
    world.decide(Op::Leave { member: before, why: Why::Silent });
    while world.reborn == 0 {
        assert!(world.deliver_back(), "it is told");
    }
    assert_eq!(world.client.routes().progress().1, 0, "nothing is registered of the new one yet");
    world.run(SECOND);
    assert_eq!((world.reborn, world.client.routes().progress().1), (1, 1));
    assert_ne!(world.me, before);
    assert!(world.standings.contains(&Standing::Evicted) && world.standing().is_joined());
    assert_eq!(world.log.state.routes_of(world.me).count(), 5);
    world.check(&[]);
    // Evicted while it was away: the leader says so.
    let again = world.me;
    world.stop(0);
    world.elect(1);
    world.decide(Op::Leave { member: again, why: Why::Silent });
    world.run(Duration::from_secs(5));
    assert_eq!(world.reborn, 2);
    assert_eq!(world.log.state.routes_of(world.me).count(), 5);
    world.check(&[]);
}

#[test]
fn routes_that_no_leader_has_confirmed_are_said_to_the_next() {
    let mut world = joined(1);
    world.announce(adds(0..3));
    // Said, and lost with the leader.
    world.stop(0);
    assert_eq!(world.client.routes().progress(), (1, 0, None));
    world.announce(RouteChange { added: vec![route(9)], removed: vec![route(0)] });
    world.elect(2);
    world.run(Duration::from_secs(6));
    let routes: Vec<_> = world.log.state.routes_of(world.me).cloned().collect();
    assert_eq!(routes, [route(1), route(2), route(9)]);
    assert_eq!(world.client.routes().progress(), (2, 2, None));
}

#[test]
fn it_is_frozen_while_no_leader_is_heard_and_goes_on_with_what_it_knows() {
    let mut world = joined(1);
    (0..3).for_each(|at| world.stop(at));
    world.run(Duration::from_secs(2));
    assert!(world.standing().is_joined(), "not yet");
    let views = world.views.len();
    world.run(Duration::from_secs(60));
    assert!(matches!(world.standing(), Standing::Frozen { .. }));
    assert_eq!((world.views.len(), world.up.len()), (views, 1), "nothing was taken away");
    world.servers[1].up = true;
    world.elect(1);
    world.join_other(61);
    world.run(Duration::from_secs(3));
    assert!(world.standing().is_joined());
    assert_eq!((world.reborn, world.up.len()), (0, 2));
    world.check(&[]);
}

#[test]
fn one_that_is_told_to_stop_when_frozen_does_so_and_not_before() {
    let stop = OnFrozen::Stop(Duration::from_secs(10));
    let mut world = World::with(CoreConfig { on_frozen: stop, ..CoreConfig::default() }, 1);
    world.run(SECOND);
    world.run(Duration::from_secs(60));
    assert!(world.standing().is_joined(), "a leader is heard");
    (0..3).for_each(|at| world.stop(at));
    world.run(Duration::from_secs(8));
    assert!(!world.left);
    world.run(Duration::from_secs(4));
    assert!(world.left && *world.standing() == Standing::Left);
    let sought = world.sought.len();
    world.run(Duration::from_secs(60));
    assert_eq!(world.sought.len(), sought, "nothing is looked for any more");
}

#[test]
fn servers_of_another_history_are_refused_and_the_node_stays_frozen_until_they_have_recovered() {
    let mut world = joined(1);
    let views = world.views.len();
    let old = std::mem::replace(&mut world.log, Log::new(7));
    let mut other = Log::new(8);
    other.decide(Op::Join { member: member(70), keep: false });
    world.replace_log(other);
    world.run(Duration::from_secs(30));
    assert!(
        matches!(world.standing(), Standing::Refused(why) if why.contains("recover")),
        "{:?}",
        world.standing()
    );
    assert_eq!((world.views.len(), world.reborn), (views, 0));
    world.check(&[&old]);
    // The operator says that this history goes on: in a higher generation. The node is collected with its id.
    world.decide(Op::Recover { above: 1 });
    let me = world.client.me.clone();
    assert!(me.joined.is_some());
    world.decide(Op::Join { member: me, keep: true });
    world.run(Duration::from_secs(5));
    assert!(world.standing().is_joined(), "{:?}", world.standing());
    assert_eq!(world.reborn, 0);
    assert!(world.views.last().is_some_and(|view| view.generation > 1));
    world.check(&[&old]);
}

#[test]
fn everything_of_another_cluster_or_an_older_view_is_never_installed_whoever_says_so() {
    let mut world = joined(1);
    for number in 0..5 {
        world.join_other(80 + number);
    }
    world.settle();
    let before = (world.views.clone(), world.client.copy().index());
    let at = world.at.unwrap();
    let (server, term, me) = (world.servers[at].id, world.term, world.client.me.clone());
    let say = |world: &mut World, cluster: ClusterId, view: ViewId, index: u64| {
        world.client.handle_met(world.now, world.client.attempts, server);
        let mut all = everything(&world.log.state, cluster);
        (all.view, all.index) = (view, index);
        let piece = Bytes::from(postcard::to_stdvec(&all).unwrap());
        let welcome = ToNode::Welcome { term, cluster, member: me.clone(), changes: 0 };
        world.client.handle_word(world.now, server, welcome);
        world.client.handle_word(world.now, server, ToNode::Everything { term, part: 0, parts: 1, piece });
        world.drain();
    };
    let newest = *before.0.last().unwrap();
    for (cluster, view, index) in [
        (9, newest, before.1 + 1),
        (9, ViewId { number: newest.number + 100, ..newest }, before.1 + 1),
        (7, ViewId { number: newest.number - 1, ..newest }, before.1 + 1),
        (7, newest, before.1 - 1),
    ] {
        say(&mut world, ClusterId(cluster), view, index);
        assert_eq!((world.views.clone(), world.client.copy().index()), before, "{cluster} {view} {index}");
        assert!(matches!(world.standing(), Standing::Refused(_)));
    }
}

#[test]
fn a_node_leaves_when_that_is_decided_and_not_before() {
    let mut world = joined(1);
    world.client.handle_leave();
    world.drain();
    assert!(!world.left);
    world.settle();
    assert!(world.left && *world.standing() == Standing::Left);
    assert!(world.log.state.member(world.me).is_none());
    assert_eq!(world.reborn, 0, "it does not come again");

    // Its leader is gone when it says so: the next one hears it.
    let mut world = joined(2);
    world.stop(0);
    world.client.handle_leave();
    world.drain();
    world.elect(1);
    world.run(Duration::from_secs(6));
    assert!(world.left && world.log.state.member(world.me).is_none());

    // One that never joined has nothing to wait for.
    let mut world = World::new(1);
    (0..3).for_each(|at| world.stop(at));
    world.run(SECOND);
    world.client.handle_leave();
    world.drain();
    assert!(world.left);
}

#[test]
fn reports_are_damped_and_said_again_to_a_new_leader_and_never_to_nobody() {
    let mut world = joined(1);
    let other = member(50).id;
    let said = |world: &mut World| {
        world.drain();
        let reports = world.out.drain(..).filter_map(|word| match word {
            ToServer::Report { of, what } => Some((of, what)),
            _ => None,
        });
        reports.collect::<Vec<_>>()
    };
    world.client.handle_evidence(world.now, member(99).id, true);
    assert_eq!(said(&mut world), [], "of no member");
    world.client.handle_evidence(world.now, other, false);
    assert_eq!(said(&mut world), [], "nobody missed it");
    for _ in 0..10 {
        world.client.handle_evidence(world.now, other, true);
        world.client.handle_evidence(world.now, other, false);
        world.client.handle_evidence(world.now, other, true);
    }
    assert_eq!(said(&mut world), [(other, Report::Lost)]);
    world.client.handle_evidence(world.now, other, false);
    assert_eq!(said(&mut world), [], "damped");
    world.now += Duration::from_millis(1_001);
    assert_eq!(said(&mut world), [(other, Report::Heard)]);
    world.client.handle_evidence(world.now, other, true);
    assert_eq!(said(&mut world), [(other, Report::Lost)]);
    world.stop(0);
    world.now += SECOND;
    world.client.handle_evidence(world.now, other, true);
    assert_eq!(said(&mut world), [], "nobody listens");
    world.elect(1);
    world.run(Duration::from_secs(6));
    assert_eq!(world.reports, [(other, Report::Lost)], "said once to the next leader");
}

#[test]
fn a_probe_is_answered_and_only_of_other_members() {
    let mut world = joined(1);
    let at = world.at.unwrap();
    let (server, term, me) = (world.servers[at].id, world.term, world.me);
    for of in [member(50).id, member(99).id, me] {
        world.client.handle_word(world.now, server, ToNode::Probe { term, member: of, within: SECOND });
    }
    world.drain();
    assert_eq!(world.probes, [member(50).id]);
    assert_eq!(world.out, [ToServer::Probed { member: member(50).id, answered: true }]);
}

/// As in the simulation, seed 20797: a leader that could not speak for a moment put two nodes off that said something then, asked them
/// of a third as soon as it could, and evicted that one by the word of the only one who answered.
#[test]
fn who_was_put_off_just_now_is_still_a_witness() {
    let mut world = joined(1);
    let at = world.at.unwrap();
    let (server, term, other) = (world.servers[at].id, world.term, member(50).id);
    let probe = |term| ToNode::Probe { term, member: other, within: SECOND };
    world.client.handle_word(world.now, server, ToNode::Later { term, after: SECOND });
    world.client.handle_word(world.now, server, probe(term));
    world.drain();
    assert_eq!(world.out, [ToServer::Probed { member: other, answered: true }]);
    // Nobody else's question, nor one of before; and no term is believed.
    world.client.handle_word(world.now, server, probe(term - 1));
    world.client.handle_word(world.now, member(77).id, probe(term));
    world.client.handle_word(world.now, server, probe(term + 5));
    world.drain();
    assert_eq!(world.probes, [other, other]);
    world.run(Duration::from_secs(3));
    assert!(world.standing().is_joined());
}

#[test]
fn a_refusal_is_shown_and_tried_again_and_is_over_with_the_next_welcome() {
    let mut world = World::new(1);
    world.log.decide(Op::Suspend { seen: ViewId { generation: 5, number: 5 } });
    world.catch_up();
    world.drain();
    world.client.handle_timeout(world.now);
    // The desk answers what the state says; here it is said by hand.
    for _ in 0..20 {
        world.now += SECOND;
        world.client.handle_timeout(world.now);
        world.drain();
        if let Some(at) = world.at.filter(|_| world.out.pop_front().is_some()) {
            let seen = ViewId { generation: 5, number: 5 };
            let why = Refusal::Refused(crate::rendezvous::state::Refused::NeedsRecovery(seen));
            let (server, term) = (world.servers[at].id, world.term);
            world.client.handle_word(world.now, server, ToNode::Refused { term, why });
            world.drain();
        }
    }
    assert!(matches!(world.standing(), Standing::Refused(why) if why.contains("karere rendezvous recover")));
    assert!(world.sought.len() >= 8, "it goes on asking: {}", world.sought.len());
    world.decide(Op::Recover { above: 5 });
    world.run(Duration::from_secs(5));
    assert!(world.standing().is_joined(), "{:?}", world.standings);
}

#[test]
fn words_that_cannot_be_are_refused_and_leave_everything_as_it_was() {
    let mut world = joined(1);
    let at = world.at.unwrap();
    let (server, term, index) = (world.servers[at].id, world.term, world.client.copy().index());
    let garbage = Bytes::from_static(&[0xff; 64]);
    for word in [
        ToNode::Change { term, change: garbage.clone() },
        ToNode::Change { term, change: Bytes::new() },
        ToNode::Everything { term, part: 0, parts: 0, piece: garbage.clone() },
        ToNode::Everything { term, part: 0, parts: u32::MAX, piece: garbage.clone() },
        ToNode::Everything { term, part: 5, parts: 9, piece: garbage.clone() },
        ToNode::Everything { term, part: 0, parts: 1, piece: garbage },
    ] {
        world.client.handle_word(world.now, server, word);
        world.drain();
        assert_eq!(world.client.copy().index(), index);
        world.run(Duration::from_secs(4));
        assert!(world.standing().is_joined(), "it finds back");
        world.check(&[]);
    }
    // A stranger's words are nobody's.
    world.client.handle_word(world.now, member(12).id, ToNode::Evicted { term, why: None });
    world.drain();
    assert_eq!(world.reborn, 0);
    assert!(!matches!(world.client.poll_output(world.now), Some(Output::Reincarnate)));
}
