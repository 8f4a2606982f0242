//! A network of actors over the messenger (after kino): one sends a message, not to an address. Actors declare the messages
//! they handle; each goes to one of those who handle it, here or on another node; what a handler returns goes on in the same
//! flow; and the first message of the flow that its caller waits for goes straight home.
//!
//! A [`Node`] routes over a [`Messenger`](crate::Messenger). [`Node::host`] takes handlers, [`Node::hub`] begins flows.
//!
//! Every request ends: by its answer, or as [`FlowError`] says. A message goes to another provider if the first certainly did
//! not handle it; if nobody knows, only if it is idempotent.
//!
//! Of the room's files `core/` decides, without sockets, tasks or clocks; `node`, `host`, `hub`, `carry`, `source` and `tables` carry
//! it out.

mod asking;
mod builder;
mod carry;
mod content;
mod core;
mod envelope;
mod error;
mod host;
mod hub;
mod key;
mod node;
mod running;
mod source;
mod tables;
mod timer;

#[cfg(any(test, feature = "testing"))]
pub(crate) use self::core::door;
pub use self::core::{Preference, RouterCounts, Scope};
pub use asking::{Answering, Asking, FromReply, Reply, Request};
pub use builder::{DeadLetter, NodeBuilder};
pub use envelope::{ActorRef, Correlation, TraceContext};
pub use error::{FlowError, RouteError};
pub use host::{Actor, Context, Failed, Host, HostBuilder, IntoReplies, Replies};
pub use hub::{Delivery, Direct, Hub, Sending};
pub use key::MessageKey;
pub use node::Node;
pub use source::{Route, RouteChange, RouteSource, Routes, StaticList, Views};
pub use tables::{AskingTables, Tables};
