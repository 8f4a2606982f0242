//! The plug: somebody else's router uses the messenger as its transport.
//!
//! Such a router sends bytes to nodes, receives bytes from nodes, and wants to know which nodes there are; nothing else.
//! It implements [`RouterTransport`], [`plug`] connects it, and [`Transport`] is what it sends by.
//!
//! For each peer it is told strictly: [`PeerChange::Up`], then messages, then [`PeerChange::Down`], one after the other,
//! never two at once. A peer that comes again (a contact that was let go and found again) begins anew with `Up`.
//!
//! *Who is a peer.* Every other member of the installed view that can be spoken with. If the [`Kind`] is open to anyone
//! ([`Kind::open`]), also everyone with whom there is a session and was a link: contacts, and those who dialled.
//!
//! *How nothing comes before `Up`.* Views and messages race: a message of a new member may reach its handler before
//! the plug's task has seen the view. The message then brings the `Up` with it: whichever is first tells it.
//!
//! *How nothing comes after `Down`.* Whoever is gone can send nothing more, but what this process had accepted from it
//! may still wait for the router. It comes before `Down`, which waits for it: for [`Transport::DRAIN`] at most, so that a router
//! that hangs on a message of a peer is told all the same that the peer is gone. What is not handled then is
//! dropped and counted ([`PlugStats::dropped`]), and a message that is just being handled is dropped where it waits
//! ([`PlugStats::interrupted`]).
//!
//! *What is guaranteed between `Up` and `Down`.* What the messenger guarantees: each frame once and in order, or its sender
//! is told. A router that is slow withholds its senders' credit, and they see `Full`; it holds up neither other senders nor
//! the application, whose messages travel in another protocol.

mod peer;
mod table;
mod transport;
mod watch;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::{HandlerError, Kind, MemberId, Messenger};
use table::Table;
pub use transport::{NotTaken, PlugStats, Transport};

/// A router of another make, as the messenger sees it.
///
/// ```
/// use std::collections::BTreeSet;
/// use std::sync::Mutex;
///
/// use bytes::Bytes;
/// use karere::{Kind, MemberId, Messenger, PeerChange, RouterTransport, Transport, plug};
///
/// #[derive(Default)]
/// struct MyRouter {
///     nodes: Mutex<BTreeSet<MemberId>>,
/// }
///
/// impl RouterTransport for MyRouter {
///     fn on_peer(&self, transport: &Transport, peer: MemberId, change: PeerChange) {
///         let Ok(mut nodes) = self.nodes.lock() else { return };
///         match change {
///             PeerChange::Up => {
///                 nodes.insert(peer);
///                 // A queue that is full hands the frame back.
///                 if let Err(refused) = transport.send(peer, Bytes::from_static(b"my routes")) {
///                     println!("{refused}");
///                 }
///             }
///             PeerChange::Down { cause } => {
///                 nodes.remove(&peer);
///                 println!("{peer} is down: {cause}");
///             }
///             _ => {}
///         }
///     }
///
///     async fn on_message(&self, _transport: &Transport, from: MemberId, frame: Bytes) {
///         println!("{} bytes from {from}", frame.len());
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let messenger = Messenger::builder().bind("127.0.0.1:0").start().await?;
/// const FRAMES: Kind = Kind::new("my-router.frame", 1).of_protocol(64);
/// let transport = plug(&messenger, FRAMES, MyRouter::default())?;
/// assert!(transport.peers().is_empty());
/// // The plug holds the messenger: it ends by this.
/// messenger.close().await;
/// # Ok(()) }
/// ```
pub trait RouterTransport: Send + Sync + 'static {
    /// A peer is up or down. Called where the messenger works: it must not block. It may send. Not in parallel with
    /// anything else of the same peer. A panic is counted and costs this one call.
    fn on_peer(&self, transport: &Transport, peer: MemberId, change: PeerChange);

    /// A frame came. The next one of the same peer comes when this is done: as long as it takes the peer's credit is withheld,
    /// and others are not held up. A panic costs this one frame.
    ///
    /// Waiting sends are refused in here, because they could wait for this very call: a router that forwards has queues and
    /// tasks of its own ([`Messenger::spawn`]), bounded ones.
    ///
    /// Cancelled: dropped where it waits, when the peer has been gone for [`Transport::DRAIN`] or the messenger closes.
    fn on_message(
        &self,
        transport: &Transport,
        from: MemberId,
        frame: Bytes,
    ) -> impl Future<Output = ()> + Send;
}

/// What happened to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerChange {
    /// It can be sent to. Whether a link is up is not said: it is dialled when it is needed.
    Up,
    /// Nothing more comes from it, and nothing is sent to it. What was queued for it ends as departed or closed, as its
    /// receipts say.
    Down {
        /// Why.
        cause: DownCause,
    },
}

/// Why a peer is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownCause {
    /// A view was installed that does not hold it.
    Removed,
    /// Another process has taken its place; by a view, or at the address of a contact.
    Replaced {
        /// Who.
        by: MemberId,
    },
    /// It said goodbye, or its session ended for want of a reason.
    Left,
    /// This member was expelled: a view does not hold it, or the peer says so of its view, or it became another
    /// ([`Messenger::reincarnate`]).
    Expelled,
    /// The messenger closes.
    Closed,
}

impl std::fmt::Display for DownCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Removed => f.write_str("a view removed it"),
            Self::Replaced { by } => write!(f, "{by} has taken its place"),
            Self::Left => f.write_str("it left"),
            Self::Expelled => f.write_str("this member was expelled"),
            Self::Closed => f.write_str("the messenger closes"),
        }
    }
}

/// Why a router was not plugged in. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlugError {
    /// The kind is of the application's protocol: router and application would wait for each other.
    #[error("`{name}` needs a protocol of its own: `Kind::of_protocol(64)`, or another up to 4095")]
    Application {
        /// The kind's name.
        name: &'static str,
    },
    /// The kind is taken.
    #[error(transparent)]
    Handler(#[from] HandlerError),
}

/// Plugs a router into a messenger. Its frames are messages of `kind`, which has a protocol of its own and is the same on
/// all nodes; several routers may be plugged in, each with its own kind and protocol. The router stays until the messenger
/// ends. Peers that are there already are told as `Up` before this returns.
///
/// The plug holds the messenger: end it by [`Messenger::leave`] or [`Messenger::close`], not by dropping its clones. Every
/// peer that is up then is told as down.
///
/// # Errors
///
/// [`PlugError`]; nothing has changed.
pub fn plug<R: RouterTransport>(
    messenger: &Messenger,
    kind: Kind,
    router: R,
) -> Result<Transport, PlugError> {
    if kind.protocol_number() == 0 {
        return Err(PlugError::Application { name: kind.name() });
    }
    let table = Arc::new(Table::new(messenger.clone(), kind));
    let plugged = Arc::new(Plugged { transport: Transport::new(table), router });
    // Before anything is looked at, so that nothing is missed.
    let events = messenger.events();
    let handler = Arc::clone(&plugged);
    messenger.add_raw_handler(kind, move |from, raw| {
        let plugged = Arc::clone(&handler);
        async move { plugged.handle(from, raw.into_bytes()).await }
    })?;
    plugged.look_again(true);
    messenger.spawn(watch::run(watch::Closing(Arc::clone(&plugged)), events));
    Ok(plugged.transport.clone())
}

/// A router and its transport.
struct Plugged<R> {
    transport: Transport,
    router: R,
}
