//! karere (Māori: messenger) carries messages and streams of bytes between processes over TCP: every one exactly once
//! and in order, through a network that keeps breaking, with memory that is bounded on both sides.
//!
//! A [`Messenger`] keeps one *session* with each process it talks to. A session survives its TCP connections: when one
//! breaks, another takes its place, and what was not acknowledged goes again. A message that cannot be delivered is
//! never lost in silence; its sender is told whether it was certainly not sent or may have arrived.
//!
//! ```
//! use karere::{Kind, MemberId, Message, Messenger};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Greeting {
//!     text: String,
//! }
//! impl Message for Greeting {
//!     // Name and version are what counts on the wire. `open`: taken from anyone.
//!     const KIND: Kind = Kind::new("example.greeting", 1).open();
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Messenger::builder().bind("127.0.0.1:0").start().await?;
//! server.add_handler(|from: MemberId, greeting: Greeting| async move {
//!     println!("{from} says {}", greeting.text);
//! })?;
//! let address = server.local_address().ok_or("not bound")?;
//!
//! let client = Messenger::builder().start().await?;
//! let contact = client.contact(address.to_string()).await?;
//! let greeting = Greeting { text: "kia ora".to_owned() };
//! let receipt = client.send_with_receipt(&greeting, contact.id())?;
//! receipt.handled().await?;
//!
//! client.leave(std::time::Duration::from_secs(5)).await;
//! assert!(client.stats().total().balance());
//! server.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! 1. Delivered exactly once and in order per (sender, stream), while both ends hold a reason for the session.
//! 2. Adding a message to one destination never waits for another destination.
//! 3. Memory is bounded: per destination, per process, per receiver.
//! 4. Nothing is lost silently: queued = acked + not_sent + indeterminate + pending, always.
//! 5. A member removed from the view holds no socket, task, timer or outgoing byte after 100 ms, and is never dialled
//!    again; what it had sent and we had accepted waits for its handler in its own budget.
//! 6. A hung link is replaced within liveness + 1 s, without loss.
//! 7. A corrupted byte is never delivered (but for one corrupted frame in 2^32).
//! 8. Two neighbouring releases talk to each other.
//!
//! Types are for members of a view, or open to anyone ([`Kind::open`]): a view says who may speak. The eighth shows with
//! the second release; unknown fields, flags and frames are passed over or refused by their critical bit already.
//!
//! Exactly once holds for a pair of runs. Across a crash nobody can promise it, so the sender is told
//! [`Lost::Indeterminate`] and decides.
//!
//! # Where to go on
//!
//! - [`Messenger::builder`] starts one; [`Messenger::contact`] finds a peer by its address.
//! - A membership system calls [`Messenger::install_view`], listens to [`Messenger::events`], asks by
//!   [`Messenger::probe`], and lets a view change wait for what is under way by [`Messenger::digest`] and
//!   [`Messenger::wait_handled`]. `examples/membership.rs` is one.
//! - [`Message`] and [`Raw`] are what is sent, [`Messenger::add_handler`] takes what comes.
//! - [`Messenger::send`] never waits and says what happened for each recipient; [`Messenger::send_wait`] waits for
//!   those whose queue is full; [`Messenger::send_with_receipt`] tells the end of one message.
//! - [`Messenger::request`] waits for a reply; [`Messenger::datagram`] sends best effort, at once or never.
//! - [`Messenger::class`] sends urgent or bulk messages, with a time to live or a key of which only the newest counts.
//! - [`blocking::Messenger`] is the same from threads, without a runtime of one's own.
//! - [`Messenger::open_stream`] opens a [`ByteStream`], which is `AsyncRead` and `AsyncWrite`.
//! - [`router`] is a network of actors on top: messages find their handlers, answers find their way home.
//! - [`rendezvous`] is the one address that a network needs: [`Node::join`](router::Node::join) makes a process a member,
//!   whose view and routes follow what its servers decide.
//! - [`plug()`] makes the messenger the transport of a router of another make, a [`RouterTransport`].
//!   `examples/foreign_router.rs` is one.
//! - [`Messenger::stats`] gives the books, [`Messenger::events`] tells of links and peers.
//!
//! # Features
//!
//! `cli` (default): the `karere` command. `tls` (default): mutual TLS 1.3 on every link, see `Tls`. `rendezvous` (default):
//! the rendezvous' servers; nodes need no feature to follow them. `faults`: the proxy that breaks connections on purpose.
//! Without features it is the lean library.

pub mod blocking;
mod config;
mod driver;
#[cfg(feature = "faults")]
pub mod faults;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod link;
mod member;
mod messenger;
mod peer;
mod plug;
pub mod rendezvous;
pub mod router;
mod session;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
mod wire;

#[cfg(feature = "tls")]
pub use config::tls::{Tls, TlsError};
pub use config::{ConfigError, Limits, Timeouts};
pub use member::{Endpoint, EndpointError, Member, MemberId, MemberIdError, View, ViewId, Views};
pub use messenger::{
    Books, Builder, ByteStream, ClassSender, Contact, ContactError, DatagramReport, Digest, EncodeError,
    Events, FlushReport, HandlerError, Kind, Message, Messenger, Missing, OpenError, Outgoing, PeerStats,
    ProbeReport, Raw, RawRef, ReincarnateError, Request, RequestError, SendError, SendReport, Spawner,
    StartError, Stats, StreamError, StreamStats, Unflushed, Unmatched,
};
pub use peer::{DatagramStats, Disconnect, PeerEvent, ViewChange, ViewError};
pub use plug::{DownCause, NotTaken, PeerChange, PlugError, PlugStats, RouterTransport, Transport, plug};
pub use session::{Cause, Lost, Receipt};
pub use wire::{Class, Versions};
