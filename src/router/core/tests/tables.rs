//! Tables: turns, affinity, and that they hold what was said and no more.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::super::envelope::RouteRecord;
use super::super::super::key::MessageKey;
use super::super::table::{Preference, Scope, Table, Wish};
use super::net::{Net, actor, key, member};

const ANY: Wish =
    Wish { preference: Preference::LocalFirst, affinity: None, node: None, from_outside: false, but: None };

fn table_of(nodes: impl IntoIterator<Item = u64>) -> Table {
    let mut table = Table::new(member(99), 1_000);
    for node in nodes {
        assert!(table.learn(member(node), RouteRecord { key: key("a"), host: 1 }));
    }
    table
}

#[test]
fn redundant_actors_get_messages_in_turn() {
    let mut table = table_of(1..=5);
    let mut counts = BTreeMap::new();
    for _ in 0..1_000_000 {
        let chosen = table.choose(key("a").id(), ANY, |_| true).unwrap();
        *counts.entry(chosen).or_insert(0) += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [200_000; 5]);
}

#[test]
fn a_host_here_goes_before_all_others_unless_it_is_to_be_fair() {
    let mut table = table_of(1..=3);
    table.register(7, &[(key("a"), Scope::Network)]).unwrap();
    let mut chosen = |preference| {
        let wish = Wish { preference, ..ANY };
        (0..8).map(|_| table.choose(key("a").id(), wish, |_| true).unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(chosen(Preference::LocalFirst), BTreeSet::from([actor(99, 7)]));
    assert_eq!(chosen(Preference::Fair).len(), 4);
}

#[test]
fn who_has_no_room_is_passed_over_unless_nobody_has() {
    let mut table = table_of(1..=3);
    let full = actor(2, 1);
    let chosen: BTreeSet<_> =
        (0..9).map(|_| table.choose(key("a").id(), ANY, |to| to != full).unwrap()).collect();
    assert_eq!(chosen, BTreeSet::from([actor(1, 1), actor(3, 1)]));
    let chosen: BTreeSet<_> = (0..9).map(|_| table.choose(key("a").id(), ANY, |_| false).unwrap()).collect();
    assert_eq!(chosen.len(), 3, "then all wait alike");
}

#[test]
fn when_one_of_ten_leaves_only_what_it_had_moves() {
    let mut table = table_of(1..=10);
    let choose = |table: &mut Table, affinity| {
        table.choose(key("a").id(), Wish { affinity: Some(affinity), ..ANY }, |_| true).unwrap()
    };
    let before: Vec<_> = (0..100_000).map(|affinity| choose(&mut table, affinity)).collect();
    table.forget(member(4));
    let after: Vec<_> = (0..100_000).map(|affinity| choose(&mut table, affinity)).collect();
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(before, _)| before.node == member(4)), "nothing else moves");
    println!("moved when one of ten left: {:.2} %", moved.len() as f64 / 1_000.0);
    assert!((8_000..=12_000).contains(&moved.len()), "{} of 100,000", moved.len());
}

#[test]
fn who_was_passed_over_for_want_of_room_gets_its_turns_later() {
    let mut table = table_of(1..=5);
    let mut counts = BTreeMap::new();
    for at in 0..10_000 {
        // One after the other is full for a while.
        let full = actor(1 + at / 100 % 5, 1);
        let chosen = table.choose(key("a").id(), ANY, |to| to != full).unwrap();
        *counts.entry(chosen).or_insert(0_i32) += 1;
    }
    assert!(counts.values().all(|count| (count - 2_000).abs() <= 40), "{counts:?}");
}

#[test]
fn one_that_stood_still_for_long_gets_its_turns_and_the_others_theirs_meanwhile() {
    let mut table = table_of(1..=5);
    let mut choose = |full: Option<u64>| {
        let has_room = |to| full.is_none_or(|full| to != actor(full, 1));
        table.choose(key("a").id(), ANY, has_room).unwrap()
    };
    // Two of them, one after the other, for tens of thousands of messages.
    let mut counts = BTreeMap::new();
    let mut count = |to| *counts.entry(to).or_insert(0_i32) += 1;
    (0..40_000).for_each(|_| count(choose(Some(2))));
    (0..20_000).for_each(|_| count(choose(Some(3))));
    let others = (0..1_000).filter(|_| {
        let to = choose(None);
        count(to);
        ![actor(2, 1), actor(3, 1)].contains(&to)
    });
    assert!(others.count() >= 300, "the others keep theirs");
    (0..39_000).for_each(|_| count(choose(None)));
    let mean = 20_000;
    assert!(counts.values().all(|count| (count - mean).abs() <= 5), "{counts:?}");
}

#[derive(Clone, Debug)]
enum Change {
    Learn(u64, usize, u32),
    Unlearn(u64, usize, u32),
    Forget(u64),
    Register(u32, Vec<usize>, bool),
    Unregister(u32, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let (node, at, host) = (1..4_u64, 0..4_usize, 1..4_u32);
    let one = prop_oneof![
        4 => (node.clone(), at.clone(), host.clone()).prop_map(|(n, k, h)| Change::Learn(n, k, h)),
        2 => (node.clone(), at.clone(), host.clone()).prop_map(|(n, k, h)| Change::Unlearn(n, k, h)),
        1 => node.prop_map(Change::Forget),
        2 => (host.clone(), prop::collection::vec(at.clone(), 1..3), any::<bool>())
            .prop_map(|(h, k, local)| Change::Register(h, k, local)),
        2 => (host, at).prop_map(|(h, k)| Change::Unregister(h, k)),
    ];
    prop::collection::vec(one, 0..60)
}

proptest! {
    /// Beside a table that is a set of what was said.
    #[test]
    fn a_table_holds_what_was_said_and_chooses_among_that(changes in changes(), affinity in any::<Option<u64>>()) {
        let keys = ["a", "b", "c", "d"].map(key);
        let mut table = Table::new(member(99), 1_000);
        let (mut others, mut own) = (BTreeSet::new(), BTreeMap::new());
        for change in changes {
            match change {
                Change::Learn(node, at, host) => {
                    let new = table.learn(member(node), RouteRecord { key: keys[at].clone(), host });
                    prop_assert_eq!(new, others.insert((at, actor(node, host))));
                }
                Change::Unlearn(node, at, host) => {
                    let was = table.unlearn(actor(node, host), keys[at].id());
                    prop_assert_eq!(was, others.remove(&(at, actor(node, host))));
                }
                Change::Forget(node) => {
                    table.forget(member(node));
                    others.retain(|(_, to)| to.node != member(node));
                }
                Change::Register(host, at, local) => {
                    let scope = if local { Scope::Local } else { Scope::Network };
                    let new: Vec<_> = at.iter().map(|at| (keys[*at].clone(), scope)).collect();
                    let once = at.iter().collect::<BTreeSet<_>>().len() == at.len();
                    let fits = once && at.iter().all(|at| !own.contains_key(&(*at, host)));
                    prop_assert_eq!(table.register(host, &new).is_ok(), fits);
                    if fits {
                        own.extend(at.iter().map(|at| ((*at, host), scope)));
                    }
                }
                Change::Unregister(host, at) => {
                    prop_assert_eq!(table.unregister(host, keys[at].id()), own.remove(&(at, host)));
                }
            }
        }
        prop_assert_eq!(table.others().count(), others.len());
        prop_assert_eq!(table.own().count(), own.len());
        for (at, key) in keys.iter().enumerate() {
            for from_outside in [false, true] {
                let wish = Wish { affinity, from_outside, ..ANY };
                let chosen = table.choose(key.id(), wish, |_| true);
                let here = own.iter().filter(|((k, _), scope)| *k == at && !(from_outside && **scope == Scope::Local));
                let here: BTreeSet<_> = here.map(|((_, host), _)| actor(99, *host)).collect();
                let there: BTreeSet<_> = others.iter().filter(|(k, _)| *k == at).map(|(_, to)| *to).collect();
                let may: BTreeSet<_> = match (here.is_empty(), affinity) {
                    (false, None) => here,
                    _ => here.union(&there).copied().collect(),
                };
                prop_assert_eq!(chosen.is_some(), !may.is_empty());
                prop_assert!(chosen.is_none_or(|chosen| may.contains(&chosen)));
            }
        }
    }
}

#[test]
fn tables_are_told_page_by_page_each_route_once() {
    let mut net = Net::of(3);
    let names: Vec<MessageKey> =
        (0..1_500_u16).map(|at| key("many").in_partition(at.to_le_bytes().to_vec())).collect();
    for at in [1, 2] {
        net.host(at, &names.iter().collect::<Vec<_>>());
    }
    let core = &net.side(1).core;
    let (mut after, mut pages, mut internal, mut external) = (None, 0, Vec::new(), Vec::new());
    loop {
        let page = core.table().page(after);
        let told = page.internal.len() + page.external.len();
        assert!((1..=1024).contains(&told), "{told}");
        internal.extend(page.internal);
        external.extend(page.external);
        pages += 1;
        assert_eq!(page.left, 3_000 - (internal.len() + external.len()) as u64);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let sorted = |mut keys: Vec<MessageKey>| {
        keys.sort_unstable_by_key(MessageKey::id);
        keys
    };
    assert_eq!(internal.into_iter().map(|(key, ..)| key).collect::<Vec<_>>(), sorted(names.clone()));
    assert_eq!(external.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), sorted(names));
    assert!(pages >= 3, "{pages}");
}
