//! Flows of a world, and their messages: who sent them to whom, who handled them, how they ended.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::member::MemberId;
use crate::router::{ActorRef, FlowError};
use crate::testing::net::ProcessId;

use super::hosts::Declared;

/// How a flow began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum Way {
    Send,
    Tracked,
    Broadcast,
    Request,
    /// Nobody waits for it any more before it can have ended.
    Dropped,
}

/// How it ended for whoever began it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::testing) enum Ended {
    /// A message of the flow with this number came home; its type, and how it was sent.
    Answered {
        flow: u64,
        tag: u64,
        kind: u8,
    },
    /// It has found its place.
    Placed,
    /// It was handled.
    Handled,
    Dropped,
    Failed(FlowError),
}

impl Ended {
    /// What it is counted as.
    pub(in crate::testing) fn name(&self) -> &'static str {
        match self {
            Self::Answered { .. } => "answered",
            Self::Placed => "placed",
            Self::Handled => "handled",
            Self::Dropped => "dropped",
            Self::Failed(error) => match error {
                FlowError::Unroutable(_) => "unroutable",
                FlowError::Departed(_) => "departed",
                FlowError::Deadline => "deadline",
                FlowError::Handler(_) => "handler failed",
                FlowError::TooFar => "too far",
                FlowError::Full => "full",
                FlowError::Closed => "closed",
                _ => "unreadable",
            },
        }
    }
}

#[derive(Debug)]
pub(in crate::testing) struct Flow {
    pub(in crate::testing) process: ProcessId,
    /// As which member.
    pub(in crate::testing) by: MemberId,
    pub(in crate::testing) way: Way,
    /// Its first message.
    pub(in crate::testing) tag: u64,
    /// Types that answer it.
    pub(in crate::testing) keys: Vec<u8>,
    pub(in crate::testing) until: Instant,
    pub(in crate::testing) ended: Option<Ended>,
    /// Handlers that one of its messages went through.
    pub(in crate::testing) depth: u16,
    pub(in crate::testing) hops: u8,
    /// What handlers failed with.
    pub(in crate::testing) failures: Vec<String>,
}

#[derive(Clone, Debug)]
pub(in crate::testing) struct Message {
    pub(in crate::testing) flow: u64,
    pub(in crate::testing) kind: u8,
    pub(in crate::testing) partition: u8,
    pub(in crate::testing) by: ProcessId,
    pub(in crate::testing) idempotent: bool,
    pub(in crate::testing) broadcast: bool,
    /// The only node that may have it, or the only actor.
    pub(in crate::testing) node: Option<MemberId>,
    pub(in crate::testing) actor: Option<ActorRef>,
    /// Who handled it.
    pub(in crate::testing) handled: Vec<(ProcessId, u32)>,
    pub(in crate::testing) ended: usize,
}

/// What processes tell of flows, and what the invariants hear.
#[derive(Clone, Debug)]
pub(in crate::testing) enum Told {
    /// A flow began.
    Began { flow: u64 },
    /// It ended.
    Ended { flow: u64, ended: Ended },
    /// A handler began.
    Handling { by: Declared, here: ActorRef, tag: u64, flow: u64, hops: u8, depth: u16, running: usize },
    /// A handler has ended: what came of it, or what it failed with.
    Handled { flow: u64, tag: u64, made: Vec<(u64, Message)>, failure: Option<String> },
    /// A look at all routers, when nothing goes on any more.
    Rest { looks: Vec<super::Look> },
}

impl Told {
    /// For the digest of a world.
    pub(in crate::testing) fn number(&self) -> u64 {
        match self {
            Self::Began { flow } => *flow,
            Self::Ended { flow, ended } => {
                flow << 8 | u64::from(ended.name().as_bytes().first().copied().unwrap_or(0))
            }
            Self::Handling { tag, here, .. } => tag << 16 ^ u64::from(here.host),
            Self::Handled { tag, made, .. } => tag << 4 | made.len() as u64,
            Self::Rest { looks } => looks.len() as u64,
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(in crate::testing) struct Book {
    pub(in crate::testing) flows: BTreeMap<u64, Flow>,
    pub(in crate::testing) messages: BTreeMap<u64, Message>,
    /// Flows that have not ended.
    pub(in crate::testing) open: std::collections::BTreeSet<u64>,
    pub(in crate::testing) handled: u64,
}

impl Book {
    pub(in crate::testing) fn begin(&mut self, number: u64, flow: Flow, message: Message) {
        self.open.insert(number);
        self.messages.insert(flow.tag, message);
        self.flows.insert(number, flow);
    }

    /// Enters what was told.
    pub(in crate::testing) fn note(&mut self, told: &Told) {
        match told {
            Told::Began { .. } | Told::Rest { .. } => {}
            Told::Ended { flow, ended } => {
                self.open.remove(flow);
                if let Some(flow) = self.flows.get_mut(flow) {
                    flow.ended.get_or_insert(ended.clone());
                }
            }
            Told::Handling { by, here, tag, flow, hops, depth, .. } => {
                self.handled += 1;
                if let Some(message) = self.messages.get_mut(tag) {
                    message.handled.push((by.process, here.host));
                }
                if let Some(flow) = self.flows.get_mut(flow) {
                    flow.depth = flow.depth.max(*depth);
                    flow.hops = flow.hops.max(*hops);
                }
            }
            Told::Handled { flow, tag, made, failure } => {
                if let Some(message) = self.messages.get_mut(tag) {
                    message.ended += 1;
                }
                self.messages.extend(made.iter().cloned());
                if let (Some(flow), Some(failure)) = (self.flows.get_mut(flow), failure) {
                    flow.failures.push(failure.clone());
                }
            }
        }
    }

    /// Whoever waited is no more.
    pub(in crate::testing) fn forget(&mut self, process: ProcessId) -> usize {
        let before = self.open.len();
        let flows = &self.flows;
        self.open.retain(|flow| flows.get(flow).is_some_and(|flow| flow.process != process));
        before - self.open.len()
    }

    /// Messages of a flow with this key.
    pub(in crate::testing) fn of(&self, flow: u64) -> impl Iterator<Item = &Message> {
        self.messages.values().filter(move |message| message.flow == flow)
    }
}
