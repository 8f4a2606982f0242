//! How a node is to be, and how it begins.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::core::{CoreConfig, Preference};
use super::envelope::Correlation;
use super::error::FlowError;
use super::key::MessageKey;
use super::node::{Inner, Node};
use super::source::{RouteSource, Routes, Views};
use crate::{HandlerError, Kind, Messenger};

/// How a node is to be.
#[derive(Clone)]
#[must_use = "nothing happens before `start`"]
pub struct NodeBuilder {
    config: CoreConfig,
    open: bool,
    source: Arc<dyn RouteSource>,
    dead: Option<DeadLetters>,
}

pub(super) type DeadLetters = Arc<dyn Fn(DeadLetter) + Send + Sync>;

/// A message that could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What it is, if this node knows its name.
    pub key: Option<MessageKey>,
    /// Which flow it belonged to.
    pub flow: Correlation,
    /// Its body, encoded; `None` if it cannot be.
    pub body: Option<Bytes>,
    /// Why.
    pub why: FlowError,
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("config", &self.config)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self { config: CoreConfig::default(), open: false, source: Arc::new(Views), dead: None }
    }
}

impl NodeBuilder {
    /// Which of several providers gets a message. Default: those of this node in turn, others if it has none.
    pub const fn preference(mut self, preference: Preference) -> Self {
        self.config.preference = preference;
        self
    }

    /// How long a message that nobody is known to handle waits, while the network is asked. Default 500 ms.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.config.grace = grace;
        self
    }

    /// How many nodes a flow may go through, at most 255, and how many handlers. Default 32 and 64.
    pub const fn limits(mut self, hops: u8, handlers: u16) -> Self {
        (self.config.hops_max, self.config.depth_max) = (hops, handlers);
        self
    }

    /// Who knows the nodes and their routes. Default [`Views`].
    pub fn source(mut self, source: impl RouteSource) -> Self {
        self.config.exchange = source.exchange();
        self.source = Arc::new(source);
        self
    }

    /// The network has no views: whoever is reached by a contact may be a node. All nodes of a network must agree.
    pub const fn without_views(mut self) -> Self {
        self.open = true;
        self
    }

    /// Gets every message that could not be delivered. Called in the task that found out: must not wait.
    pub fn dead_letters(mut self, hook: impl Fn(DeadLetter) + Send + Sync + 'static) -> Self {
        self.dead = Some(Arc::new(hook));
        self
    }

    /// Begins to route over this messenger. One node a messenger.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]: there is a node already.
    pub fn start(self, messenger: &Messenger) -> Result<Node, HandlerError> {
        let told = (!self.config.exchange).then(|| Arc::clone(&self.source));
        let inner = Inner::start(messenger, self.config, Kinds::new(self.open), told, self.dead)?;
        let routes = Routes::new(Arc::downgrade(&inner), inner.gone.clone());
        self.source.start(messenger, routes);
        Ok(Node { inner })
    }
}

/// The router's protocol number.
const PROTOCOL: u16 = 2;

/// Types of what routers say to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kinds {
    pub(crate) flow: Kind,
    pub(crate) reply: Kind,
    pub(crate) control: Kind,
}

impl Kinds {
    /// Whether the network has no views.
    pub(crate) const fn is_open(&self) -> bool {
        self.flow.is_open()
    }

    const fn new(open: bool) -> Self {
        const fn kind(name: &'static str, open: bool) -> Kind {
            let kind = Kind::new(name, 1).of_protocol(PROTOCOL);
            if open { kind.open() } else { kind }
        }
        Self {
            flow: kind("karere.router.flow", open),
            reply: kind("karere.router.reply", open),
            control: kind("karere.router.control", open),
        }
    }
}
