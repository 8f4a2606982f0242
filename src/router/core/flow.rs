//! What the core keeps of messages, and what it wants done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::envelope::{
    ActorRef, Control, Correlation, Distribution, Envelope, Failure, FlowHead, ReplyHead, TraceContext,
};
use super::super::key::KeyId;
use super::table::Preference;
use crate::MemberId;

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Flow<B> {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) body: B,
    pub(crate) expires: Instant,
    /// The work it came of, which is not done before it has its place.
    pub(crate) parent: Option<u64>,
    /// Who wants to hear of it.
    pub(crate) watch: Option<u64>,
    /// Providers that did not take it.
    pub(crate) tries: u8,
    /// A node that perhaps handled it, before it came to another.
    pub(crate) doubt: Option<MemberId>,
}

/// How a flow begins.
#[derive(Debug)]
pub(crate) struct Order<B> {
    pub(crate) key: KeyId,
    pub(crate) body: B,
    pub(crate) to: Distribution,
    pub(crate) time_to_live: Duration,
    pub(crate) idempotent: bool,
    pub(crate) affinity: Option<u64>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) trail: bool,
    pub(crate) watch: Option<u64>,
    /// Wants to hear that a host has it.
    pub(crate) tell: bool,
}

/// A message for a handler.
#[derive(Debug)]
pub(crate) struct Work<B> {
    /// To be named when it is done.
    pub(crate) job: u64,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) body: B,
    pub(crate) expires: Instant,
}

/// What came of a handler.
#[derive(Debug)]
pub(crate) struct Product<B> {
    pub(crate) key: KeyId,
    pub(crate) body: B,
    pub(crate) to: Distribution,
    pub(crate) affinity: Option<u64>,
    pub(crate) idempotent: bool,
}

/// How a promise ends.
#[derive(Debug)]
pub(crate) struct Answer<B> {
    pub(crate) outcome: Result<(KeyId, B), Failure>,
    pub(crate) flow: Correlation,
    pub(crate) hops: u8,
    pub(crate) trail: Option<Vec<ActorRef>>,
}

/// What one that is watched did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has its place, here or with the messenger.
    Placed,
    /// A host has it.
    Accepted,
    /// It was handled.
    Handled,
    /// It was not, or perhaps not.
    Failed(Failure),
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Output<B, T> {
    /// A host has work.
    Wake(u32),
    /// To another node.
    Send { to: MemberId, head: FlowHead, body: B },
    /// An answer, or a failure, to a caller elsewhere. `job` is told when the messenger has it ([`super::Core::placed`]).
    Reply { to: MemberId, head: ReplyHead, body: Option<B>, job: Option<u64> },
    /// To another router.
    Control { to: MemberId, control: Control },
    /// A promise ends.
    Resolve { token: T, answer: Answer<B> },
    /// Of what is watched.
    Told { watch: u64, told: Told },
    /// There is something that this node is to be told: [`super::Core::take_news`].
    News { to: MemberId },
    /// This node's routes have changed, and the routers do not tell each other.
    Announce,
    /// Could not be delivered.
    Dead { envelope: Arc<Envelope>, body: B, why: Failure },
    /// What became of messages to this node is to be found out, and told by [`super::Core::handle_lost`].
    Settle { node: MemberId },
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterCounts {
    /// Messages given to hosts here.
    pub delivered: u64,
    /// Messages sent to other nodes, each time counted.
    pub forwarded: u64,
    /// Messages that other nodes gave back: their route was stale, or they had no room.
    pub returned: u64,
    /// Messages sent again to another provider.
    pub rerouted: u64,
    /// Messages that could not be delivered.
    pub dead: u64,
    /// Answers that came when nobody waited any more.
    pub late: u64,
    /// Questions to the network for a key that nobody was known to handle.
    pub discoveries: u64,
}

/// How a router is to be.
#[derive(Clone, Debug)]
pub(crate) struct CoreConfig {
    pub(crate) preference: Preference,
    /// Routers tell each other their routes; else somebody else does.
    pub(crate) exchange: bool,
    /// How long a message without a provider waits for one.
    pub(crate) grace: Duration,
    /// Nodes that a flow may go through.
    pub(crate) hops_max: u8,
    /// Handlers that a flow may go through.
    pub(crate) depth_max: u16,
    /// Bodies that wait for hosts here, of other nodes.
    pub(crate) queued_bytes_max: usize,
    /// Flows that wait here for room elsewhere.
    pub(crate) waiting_max: usize,
    /// Routes of one node.
    pub(crate) routes_max: usize,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            preference: Preference::LocalFirst,
            exchange: true,
            grace: Duration::from_millis(500),
            hops_max: 32,
            depth_max: 64,
            queued_bytes_max: 64 * 1024 * 1024,
            waiting_max: 65_536,
            routes_max: 262_144,
        }
    }
}
