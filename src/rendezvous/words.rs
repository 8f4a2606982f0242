//! What nodes and servers say to each other. All types are open to anyone, in streams of protocol 3, and each begins with what
//! the other side needs to refuse it: an order of history (cluster, view, term), never a bare claim.
//!
//! A node keeps a contact to one server. It says [`ToServer::Hello`] on it, first of all and again whenever it has lost the thread; the leader
//! answers [`ToNode::Welcome`], followed by all that the node has not seen: changes, or everything ([`ToNode::Everything`] in parts). From then on
//! it says every change once, in order. Pings are datagrams, so that an old one never waits in a queue.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::common::{ClusterId, LeaseChange, LeaseOp, Refused, Why};
use crate::router::Route;
use crate::{Kind, Member, MemberId, Message, Request, ViewId};

/// The protocol number of the rendezvous.
pub(crate) const PROTOCOL: u16 = 3;

const fn kind(name: &'static str) -> Kind {
    Kind::new(name, 1).of_protocol(PROTOCOL).open()
}

/// How many bits of a [`reign`] are the term's.
#[cfg(feature = "rendezvous")]
const TERM_BITS: u32 = 40;

/// By what nodes tell leaders apart, in every word: the generation of the history above, the term of the log below. A leader is above
/// all before it, also where terms begin anew because the disks were lost, or a snapshot was restored: then the
/// generation was raised.
#[cfg(feature = "rendezvous")]
pub(crate) const fn reign(generation: u64, term: u64) -> u64 {
    generation << TERM_BITS | term & ((1 << TERM_BITS) - 1)
}

/// The term of the log in it.
#[cfg(feature = "rendezvous")]
pub(crate) const fn term_in(reign: u64) -> u64 {
    reign & ((1 << TERM_BITS) - 1)
}

/// The generation in it.
#[cfg(feature = "rendezvous")]
pub(crate) const fn generation_in(reign: u64) -> u64 {
    reign >> TERM_BITS
}

/// What a node knows of history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Whose history; `None` if it was never welcomed.
    pub(crate) cluster: Option<ClusterId>,
    /// The view that it has installed, if any.
    pub(crate) view: Option<ViewId>,
    /// The place of the last change it has applied.
    pub(crate) index: u64,
    /// The highest reign (generation, term) in which a leader spoke to it.
    pub(crate) term: u64,
}

/// From a node to the server it has chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToServer {
    /// Who I am, what I know. If I am no member (`member.joined` is `None`), I want to become one.
    Hello {
        member: Member,
        known: Known,
        /// How many times my routes have changed.
        changes: u64,
    },
    /// My routes changed: the changes after `from`, up to `to`. From 0: these are all that I have. Large ones come in parts that each
    /// are a change of their own.
    Routes { from: u64, to: u64, add: Vec<Route>, remove: Vec<Route> },
    /// What my own traffic says of another member.
    Report { of: MemberId, what: Report },
    /// The answer to [`ToNode::Probe`].
    Probed { member: MemberId, answered: bool },
    /// A named lease. The number is said back.
    Lease { number: u64, op: LeaseOp },
    /// I go. Answered by [`ToNode::Farewell`] when all is decided.
    Leave,
}

impl Message for ToServer {
    const KIND: Kind = kind("karere.rendezvous.node");
}

/// What a member's own traffic says of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It is not heard or reached any more.
    Lost,
    /// It is heard (again).
    Heard,
}

/// From a server to a node. `term` is a reign in all of them: generation and term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToNode {
    /// Only the leader speaks: this is it, if I know.
    NotLeader { term: u64, leader: Option<String> },
    /// I lead, but may not speak just now (no majority hears me, or a recovery gathers members): ask again after this time.
    Later { term: u64, after: Duration },
    /// You are a member now. What you have not seen follows.
    Welcome {
        term: u64,
        cluster: ClusterId,
        /// You, with the view in which you joined.
        member: Member,
        /// Up to which of your changes your routes are known.
        changes: u64,
    },
    /// You cannot be a member, because of this.
    Refused { term: u64, why: Refusal },
    /// Everything there is, as of a change; this is part `part` of `parts`, from 0. Each part is at most some 256 KiB.
    Everything { term: u64, part: u32, parts: u32, piece: Bytes },
    /// A change: a `Change`, encoded.
    Change { term: u64, change: Bytes },
    /// Your routes are decided up to this change; if `refused`, that one could not be.
    Registered { term: u64, changes: u64, refused: Option<Refused> },
    /// The health of these members has changed; all others are as they were. With `all`: all others are healthy.
    Health { term: u64, all: bool, changed: Vec<(MemberId, Health)> },
    /// Does this member answer you within this time? Answered by [`ToServer::Probed`].
    Probe { term: u64, member: MemberId, within: Duration },
    /// What became of [`ToServer::Lease`] with this number.
    Lease { term: u64, number: u64, refused: Option<Refused> },
    /// You are a member no more: come again as another one, if you live.
    Evicted { term: u64, why: Option<Why> },
    /// It is decided that you have left.
    Farewell { term: u64 },
}

#[cfg(all(feature = "rendezvous", any(test, feature = "testing")))]
impl ToNode {
    /// In which it is said.
    pub(crate) fn reign(&self) -> u64 {
        match self {
            Self::NotLeader { term, .. }
            | Self::Later { term, .. }
            | Self::Welcome { term, .. }
            | Self::Refused { term, .. }
            | Self::Everything { term, .. }
            | Self::Change { term, .. }
            | Self::Registered { term, .. }
            | Self::Health { term, .. }
            | Self::Probe { term, .. }
            | Self::Lease { term, .. }
            | Self::Evicted { term, .. }
            | Self::Farewell { term } => *term,
        }
    }
}

impl Message for ToNode {
    const KIND: Kind = kind("karere.rendezvous.server");
}

/// Why a node is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The node belongs to the history of another cluster, or to one that this cluster's disks have lost.
    #[error(
        "the servers are of another cluster than the one that this node knows, or have lost their disks; if they are the right ones, say so there: karere rendezvous recover"
    )]
    AnotherHistory,
    /// It was refused in the log.
    #[error(transparent)]
    Refused(Refused),
}

/// What everything is, once its parts are put together: all of the state that members know, as of the change at `index`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Everything {
    pub(crate) cluster: ClusterId,
    pub(crate) index: u64,
    pub(crate) view: ViewId,
    pub(crate) members: Vec<(Member, Vec<Route>)>,
    pub(crate) leases: Vec<LeaseChange>,
}

/// How a member fares, as the leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Health {
    /// It answers.
    #[default]
    Healthy,
    /// It has missed some pings.
    Suspected,
    /// It has been silent for so long that it goes as soon as somebody else does not reach it either.
    Silent,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Suspected => "suspected",
            Self::Silent => "silent",
        })
    }
}

/// A datagram of the leader to every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ping {
    pub(crate) term: u64,
    pub(crate) number: u64,
    /// The place of the last change: who does not get it within a while says hello again.
    pub(crate) index: u64,
}

impl Message for Ping {
    const KIND: Kind = kind("karere.rendezvous.ping");
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pong {
    pub(crate) term: u64,
    pub(crate) number: u64,
}

impl Message for Pong {
    const KIND: Kind = kind("karere.rendezvous.pong");
}

/// What tools ask a server (`karere members`, `karere rendezvous add`): any server answers what it knows, only the leader
/// changes anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Which environment and network is this? The one question that a node with the network's name open asks.
    Network,
    /// The view, the members and their health.
    Members,
    /// The routes of all members, from the one after this.
    Routes { after: Option<MemberId> },
    /// The servers, and how this one stands.
    Servers,
    /// A server more: it waits at this address, with an empty disk.
    Add { address: String },
    /// A server less, by its number or address.
    Remove { server: String },
    /// Takes a member out.
    Evict { member: MemberId },
    /// Let history go on without what is lost.
    Recover,
    /// A piece of a snapshot, from this offset. 0: a new snapshot is made.
    Snapshot { offset: u64 },
}

impl Message for Ask {
    const KIND: Kind = kind("karere.rendezvous.ask");
}

/// See [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    Network {
        environment: String,
        network: String,
    },
    Members {
        cluster: Option<ClusterId>,
        view: ViewId,
        term: u64,
        members: Vec<(Member, Health)>,
    },
    Routes {
        view: ViewId,
        routes: Vec<(MemberId, Vec<Route>)>,
        next: Option<MemberId>,
    },
    Servers(Servers),
    Done,
    Snapshot {
        total: u64,
        piece: Bytes,
    },
    NotLeader {
        leader: Option<String>,
    },
    /// It could not be done; the text says what failed, in which state it leaves things, and what to do.
    Failed(String),
    /// Who asks may not; the text says who may. Nothing has changed.
    Denied(String),
}

impl Message for Told {
    const KIND: Kind = kind("karere.rendezvous.told");
}

impl Request for Ask {
    type Reply = Told;
}

/// The servers of a cluster, as one of them sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Servers {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) this: u64,
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
    /// How it stands, for people.
    pub(crate) standing: String,
    pub(crate) servers: Vec<ServerSeen>,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerSeen {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) voter: bool,
    /// Entries that it is known to have, if the leader says so.
    pub(crate) matched: Option<u64>,
}
