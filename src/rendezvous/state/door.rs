//! A door for the fuzzer: a state that is driven by any commands, and what holds after each of them.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{decode, encode};
use super::follower::Follower;
use super::{ClusterId, GONE_MAX, LeaseOp, Op, Outcome, State, Why};
use crate::rendezvous::common::{MEMBERS_MAX, ROUTES_MAX, Token};
use crate::rendezvous::door::{Source, member};
use crate::{Member, MemberId, ViewId};

const COMMANDS_MAX: usize = 200;
const LEASES: [&str; 3] = ["a", "b", ""];

/// A command, by any bytes: what can be read is the same again.
pub(in crate::rendezvous) fn command(bytes: &[u8]) {
    let Ok(ops) = decode(bytes) else { return };
    assert_eq!(decode(&encode(&ops)), Ok(ops));
    let mut run = Run::new();
    run.apply(encode(&[Op::Found { cluster: ClusterId(7) }]).to_vec());
    run.apply(bytes.to_vec());
}

/// A snapshot, by any bytes: what can be read is within its bounds, and goes on like any other state.
pub(in crate::rendezvous) fn snapshot(bytes: &[u8]) {
    let mut state = State::default();
    if state.restore(bytes).is_err() {
        assert_eq!(state.snapshot(), State::default().snapshot(), "what is refused changes nothing");
        return;
    }
    let mut run = Run::of(state);
    run.check(&[]);
    let cluster = ClusterId(1);
    for (op, at) in [Op::Found { cluster }, Op::Join { member: member(1), keep: false }].into_iter().zip(1..)
    {
        run.index = run.state.index().saturating_add(at);
        if run.index == u64::MAX {
            return;
        }
        run.apply(encode(&[op]).to_vec());
    }
    for member in run.state.members().cloned().collect::<Vec<_>>() {
        run.apply(encode(&[Op::Leave { member: member.id, why: Why::Removed }]).to_vec());
    }
}

/// Any commands, and bytes that are none.
pub(in crate::rendezvous) fn decided(source: &mut Source<'_>) {
    let mut run = Run::new();
    if source.u8() & 7 != 0 {
        run.apply(encode(&[Op::Found { cluster: ClusterId(7) }]).to_vec());
    }
    for _ in 0..COMMANDS_MAX {
        if source.is_empty() {
            break;
        }
        match source.u8() {
            0xf8.. => {
                let most = usize::from(source.u8());
                run.apply(source.bytes(most).to_vec());
            }
            // A server that restarts from a snapshot goes on like the others.
            0xf4..=0xf7 => run.restart(),
            many => {
                let ops: Vec<Op> = (0..=many % 4).map(|_| some_op(source, run.state.view_id())).collect();
                run.apply(encode(&ops).to_vec());
            }
        }
    }
}

fn some_op(source: &mut Source<'_>, view: ViewId) -> Op {
    let op = source.u8();
    let who = member(u128::from(source.u8() % 6));
    let of = who.id;
    match op {
        0..=0x3f => Op::Join { member: who, keep: false },
        0x40..=0x4f => {
            let joined = Some(source.view(view)).filter(|_| op & 1 == 0);
            Op::Join { member: Member { joined, ..who }, keep: op & 2 == 0 }
        }
        0x50..=0x6f => Op::Leave { member: of, why: Why::Left },
        0x70..=0xaf => {
            let (from, to) = (source.number() % 8, source.number());
            let (add, remove) = (source.some(3, Source::route), source.some(3, Source::route));
            Op::Routes { member: of, from, to: to % 16, add, remove }
        }
        0xb0..=0xb3 => {
            let (from, to) = (source.number(), source.number());
            Op::Routes { member: of, from, to, add: source.some(2, Source::route), remove: Vec::new() }
        }
        0xb4..=0xe7 => {
            let name = LEASES.get(usize::from(source.u8() % 3)).copied().unwrap_or_default().to_owned();
            let acquire = LeaseOp::Acquire { name: name.clone(), wait: op & 2 == 0 };
            let op = if op & 1 == 0 { acquire } else { LeaseOp::Release { name } };
            Op::Lease { member: of, op }
        }
        0xe8..=0xef => Op::Recover { above: source.near(view.generation) },
        0xf0..=0xf7 => Op::Suspend { seen: source.view(view) },
        0xf8.. => Op::Found { cluster: ClusterId(u128::from(source.u8())) },
    }
}

struct Run {
    index: u64,
    state: State,
    /// Another server, which sometimes restarts from a snapshot.
    twin: State,
    /// A member that is told each change as it comes.
    follower: Follower,
    view: ViewId,
    tokens: BTreeMap<String, Token>,
    members: BTreeSet<MemberId>,
}

impl Run {
    fn new() -> Self {
        Self::of(State::default())
    }

    fn of(state: State) -> Self {
        let mut twin = State::default();
        assert_eq!(twin.restore(&state.snapshot()), Ok(()));
        Self {
            index: state.index(),
            follower: Follower::of(&state),
            view: state.view_id(),
            members: state.members().map(|member| member.id).collect(),
            state,
            twin,
            tokens: BTreeMap::new(),
        }
    }

    fn restart(&mut self) {
        self.twin = State::default();
        assert_eq!(self.twin.restore(&self.state.snapshot()), Ok(()));
    }

    fn apply(&mut self, command: Vec<u8>) {
        // Not every place of the log is a command of ours.
        self.index = self.index.saturating_add(1 + u64::from(command.len().is_multiple_of(3)));
        let begins = self.state.cluster().is_none();
        let outcomes = self.state.apply(self.index, &command);
        if begins {
            // Nobody is told anything before there is a history.
            self.follower = Follower::of(&self.state);
        }
        assert_eq!(self.twin.apply(self.index, &command), outcomes, "servers agree");
        assert_eq!(self.twin.snapshot(), self.state.snapshot(), "servers are the same");
        match decode(&command) {
            Ok(ops) => assert_eq!(outcomes.len(), ops.len(), "each is answered"),
            Err(_) => assert!(matches!(&outcomes[..], [Outcome::Refused(_)]), "{outcomes:?}"),
        }
        self.check(&outcomes);
    }

    fn check(&mut self, outcomes: &[Outcome]) {
        let state = &self.state;
        let view = state.view_id();
        assert!(view >= self.view, "{view} after {}", self.view);
        self.follower.follow(state);
        assert_eq!(self.follower, Follower::of(state), "who follows changes knows what is; {outcomes:?}");
        let now: BTreeSet<MemberId> = state.members().map(|member| member.id).collect();
        assert!(view > self.view || now == self.members, "who comes or goes makes a view");
        (self.view, self.members) = (view, now.clone());
        assert!(now.len() <= MEMBERS_MAX && state.kept.gone.len() <= GONE_MAX);
        assert!(now.iter().all(|id| !state.is_gone(*id)), "who is gone came back");
        let counted: usize = now.iter().map(|id| state.routes_of(*id).count()).sum();
        assert_eq!(counted, state.routes, "routes are counted");
        assert!(state.routes <= ROUTES_MAX);
        for (id, entry) in &state.kept.members {
            assert_eq!(*id, entry.member.id);
            assert!(entry.member.joined.is_some(), "a member that never joined");
        }
        for lease in state.leases() {
            let Some((holder, token)) = lease.holder else { panic!("a lease of nobody") };
            assert!(now.contains(&holder), "a lease of one who is gone");
            let before = self.tokens.insert(lease.name, token);
            assert!(before.is_none_or(|before| before <= token), "{before:?}, then {token:?}");
        }
    }
}
