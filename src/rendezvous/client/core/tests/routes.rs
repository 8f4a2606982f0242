//! Own routes against a log that takes, refuses, forgets.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::super::routes::OwnRoutes;
use super::world::{adds, full, member, route};
use crate::rendezvous::common::ClusterId;
use crate::rendezvous::state::{Op, Outcome, State, encode};
use crate::rendezvous::words::ToServer;
use crate::router::{Route, RouteChange};

/// A log with one member.
struct Known {
    state: State,
    index: u64,
}

impl Known {
    fn new() -> Self {
        let mut known = Self { state: State::default(), index: 0 };
        known.apply(Op::Found { cluster: ClusterId(1) });
        known.apply(Op::Join { member: member(1), keep: false });
        known
    }

    fn apply(&mut self, op: Op) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, &encode(&[op])).remove(0)
    }

    fn changes(&self) -> u64 {
        self.state.changes_of(member(1).id).unwrap()
    }

    fn routes(&self) -> BTreeSet<Route> {
        self.state.routes_of(member(1).id).cloned().collect()
    }

    /// A word gets there, and its answer comes back.
    fn hear(&mut self, word: ToServer, own: &mut OwnRoutes) {
        let ToServer::Routes { from, to, add, remove } = word else { panic!("routes only: {word:?}") };
        match self.apply(Op::Routes { member: member(1).id, from, to, add, remove }) {
            Outcome::Refused(why) => own.handle_refused(to, why),
            Outcome::Done | Outcome::Already => own.handle_decided(self.changes()),
        }
    }
}

#[test]
fn many_routes_are_said_in_parts_that_each_fit_an_entry_of_the_log() {
    let (mut own, mut known) = (OwnRoutes::default(), Known::new());
    own.announce(adds(0..2_000));
    let mut parts = 0;
    while let Some(word) = own.poll() {
        assert!(postcard::to_stdvec(&word).unwrap().len() < 20 * 1024);
        parts += 1;
        assert_eq!(own.progress().1, 0, "registered is what all parts are");
        known.hear(word, &mut own);
    }
    assert!(parts > 2, "{parts}");
    assert_eq!((known.routes().len(), own.progress()), (2_000, (1, 1, None)));
}

#[test]
fn not_more_is_under_way_than_a_leader_is_to_be_asked() {
    let mut own = OwnRoutes::default();
    own.announce(adds(0..20_000));
    let words = std::iter::from_fn(|| own.poll()).count();
    assert_eq!(words, 8);
}

#[test]
fn what_comes_and_goes_while_nobody_listens_is_said_once() {
    let (mut own, mut known) = (OwnRoutes::default(), Known::new());
    for number in 0..100 {
        own.announce(adds([number]));
        own.announce(RouteChange { added: Vec::new(), removed: vec![route(number)] });
    }
    own.announce(adds([7]));
    let words: Vec<ToServer> = std::iter::from_fn(|| own.poll()).collect();
    assert_eq!(words.len(), 1);
    words.into_iter().for_each(|word| known.hear(word, &mut own));
    assert_eq!((known.routes(), own.progress()), ([route(7)].into(), (201, 201, None)));
}

#[test]
fn a_leader_that_knows_less_than_was_registered_hears_all_anew() {
    let (mut own, mut known) = (OwnRoutes::default(), Known::new());
    for number in 0..3 {
        own.announce(adds([number]));
        let word = own.poll().unwrap();
        known.hear(word, &mut own);
    }
    let mut older = Known::new();
    let (add, me) = (vec![route(0), route(55)], member(1).id);
    older.apply(Op::Routes { member: me, from: 0, to: 1, add, remove: Vec::new() });
    assert!(own.handle_welcome(older.changes()).is_empty());
    assert_eq!(own.progress().1, 0, "not registered any more");
    while let Some(word) = own.poll() {
        older.hear(word, &mut own);
    }
    assert_eq!((older.routes(), own.progress()), ([0, 1, 2].map(route).into(), (3, 3, None)));
}

#[test]
fn what_is_refused_for_good_is_told_and_the_rest_is_registered() {
    let (mut own, mut known) = (OwnRoutes::default(), Known::new());
    own.announce(adds([1]));
    let word = own.poll().unwrap();
    known.hear(word, &mut own);
    own.announce(adds([2]));
    let Some(ToServer::Routes { to, .. }) = own.poll() else { panic!() };
    own.announce(adds([3]));
    let later = own.poll().unwrap();
    // The log takes neither: the second because the first is missing.
    own.handle_refused(to, full());
    known.hear(later, &mut own);
    while let Some(word) = own.poll() {
        known.hear(word, &mut own);
    }
    assert_eq!(known.routes(), [1, 3].map(route).into());
    let (announced, registered, why) = own.progress();
    assert_eq!((announced, registered), (3, 3));
    assert!(why.is_some());
    // It goes, and with it the complaint.
    own.announce(RouteChange { added: Vec::new(), removed: vec![route(2)] });
    assert_eq!(own.progress(), (4, 4, None));
}

#[test]
fn a_refusal_that_comes_before_the_word_that_earlier_ones_are_decided_is_understood() {
    let (mut own, mut known) = (OwnRoutes::default(), Known::new());
    own.announce(adds([1]));
    let first = own.poll().unwrap();
    own.announce(adds([2]));
    let Some(ToServer::Routes { to, .. }) = own.poll() else { panic!() };
    let ToServer::Routes { from, to: one, add, remove } = first else { panic!() };
    known.apply(Op::Routes { member: member(1).id, from, to: one, add, remove });
    own.handle_refused(to, full());
    own.handle_decided(known.changes());
    while let Some(word) = own.poll() {
        known.hear(word, &mut own);
    }
    assert_eq!(known.routes(), [route(1)].into());
    assert_eq!((own.progress().0, own.progress().1), (2, 2));
}

#[derive(Clone, Debug)]
enum Event {
    Add(u64),
    Remove(u64),
    Say,
    Hear,
    /// The leader is gone: words and answers are lost; the next knows this much less.
    Lose,
    /// The node is another member.
    Reborn,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..12_u64).prop_map(Event::Add),
        3 => (0..12_u64).prop_map(Event::Remove),
        5 => Just(Event::Say),
        5 => Just(Event::Hear),
        1 => Just(Event::Lose),
        1 => Just(Event::Reborn),
    ];
    proptest::collection::vec(event, 0..120)
}

proptest! {
    #[test]
    fn whatever_is_lost_the_log_ends_with_the_routes_that_there_are(events in events()) {
        let (mut own, mut known) = (OwnRoutes::default(), Known::new());
        let mut all = BTreeSet::new();
        let mut wire: VecDeque<ToServer> = VecDeque::new();
        for event in events {
            match event {
                Event::Add(number) => {
                    all.insert(route(number));
                    own.announce(adds([number]));
                }
                Event::Remove(number) => {
                    all.remove(&route(number));
                    own.announce(RouteChange { added: Vec::new(), removed: vec![route(number)] });
                }
                Event::Say => wire.extend(own.poll()),
                Event::Hear => {
                    if let Some(word) = wire.pop_front() {
                        known.hear(word, &mut own);
                    }
                }
                Event::Lose => {
                    wire.clear();
                    wire.extend(own.handle_welcome(known.changes()));
                }
                Event::Reborn => {
                    wire.clear();
                    known = Known::new();
                    own.handle_reborn();
                    wire.extend(own.handle_welcome(known.changes()));
                }
            }
            let (announced, registered, _) = own.progress();
            prop_assert!(registered <= announced);
            if registered == announced {
                prop_assert_eq!(&known.routes(), &all, "registered is what the log knows");
            }
        }
        let mut steps = 0;
        loop {
            wire.extend(std::iter::from_fn(|| own.poll()));
            let Some(word) = wire.pop_front() else { break };
            known.hear(word, &mut own);
            steps += 1;
            prop_assert!(steps < 1_000, "it comes to an end");
        }
        prop_assert_eq!(known.routes(), all);
        let (announced, registered, _) = own.progress();
        prop_assert_eq!(announced, registered);
    }
}
