//! The messenger for programs built on threads: the same names, calls that block, and
//! [`crossbeam_channel::Receiver`]s for messages and events.
//!
//! ```
//! use std::time::Duration;
//!
//! use karere::blocking::{Messenger, Received};
//! use karere::{Kind, Message};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Greeting {
//!     text: String,
//! }
//! impl Message for Greeting {
//!     const KIND: Kind = Kind::new("example.greeting", 1).open();
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Messenger::builder().bind("127.0.0.1:0").start_blocking()?;
//! let greetings = server.receiver::<Greeting>(100)?;
//! let address = server.local_address().ok_or("not bound")?;
//!
//! let client = Messenger::builder().start_blocking()?;
//! let contact = client.contact(address.to_string())?;
//! let greeting = Greeting { text: "kia ora".to_owned() };
//! let report = client.send_wait(&greeting, [contact.id()], Duration::from_secs(5))?;
//! assert!(report.is_complete());
//!
//! let Received { message, .. } = greetings.recv_timeout(Duration::from_secs(5))?;
//! assert_eq!(message.text, "kia ora");
//! client.leave(Duration::from_secs(5));
//! server.close();
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//!
//! A messenger has one thread, `karere`, which drives a runtime of its own: sockets, timers, decoding for receivers.
//! [`Messenger::add_handler`] starts one more for each handler. Calls that wait do so on the thread that calls them, and
//! every one has a bound: its timeout, or the messenger's.
//!
//! Calls may come from any thread. Inside an async runtime they work, and block that runtime's thread: use
//! [`karere::Messenger`](crate::Messenger) there. The one thread they must not come from is `karere` itself, on which of
//! the user's code only `Deserialize` for receivers runs: a waiting call of the messenger panics there, with a text that
//! says so, and that message counts as one whose handler panicked; receipts and streams would wait in vain.
//!
//! # When a message counts as handled
//!
//! Until it does, it withholds its sender's credit: that is how a slow receiver is felt by the sender, and by nobody else.
//!
//! - A *receiver*: when it is in the channel. So a message costs no round trip between threads, and a channel of
//!   `capacity` stands between the sender's [`Receipt::handled`] and the one who takes it.
//! - A *handler*: when the closure has returned (or panicked), as in the async API. Whole batches go to its thread, so
//!   that this costs a round trip between threads for a batch; receipts hear of it within 20 ms, or at its end.

mod asking;
mod contact;
mod events;
mod handler;
mod receive;
mod send;
mod stream;

pub use contact::Contact;
pub use receive::Received;
pub use send::{ClassSender, Receipt, ReceiptError};
pub use stream::{ByteStream, ReadHalf, WriteHalf};

/// What [`Messenger::receiver`] and [`Messenger::events`] give, and what waiting for it may say.
pub use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, TryRecvError};

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::driver::own::Own;
use crate::limits::THREADS_JOIN;
use crate::member::{Member, MemberId, View};
use crate::messenger::{self, Builder, ReincarnateError, StartError, Stats};
use crate::peer::{ViewChange, ViewError};

/// A messenger for threads: [`karere::Messenger`](crate::Messenger) with a runtime of its own. Cheap to clone; when the
/// last clone is dropped it closes, within the bounds of [`Messenger::close`], and its threads end. A handler that holds a
/// clone keeps it open: then call [`Messenger::close`] or [`Messenger::leave`].
#[derive(Clone, Debug)]
pub struct Messenger {
    core: Arc<Core>,
}

/// What the clones share. The messenger goes before its runtime.
struct Core {
    messenger: messenger::Messenger,
    /// Ends those who listen for events.
    listening: CancellationToken,
    listeners: Mutex<VecDeque<CancellationToken>>,
    missed: Arc<AtomicU64>,
    own: Own,
}

impl Builder {
    /// As [`Builder::start`], for programs built on threads: binds, and starts a thread of its own. Returns when
    /// connections are accepted. Waits for the look-up of a name, if one is to be bound.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running.
    pub fn start_blocking(self) -> Result<Messenger, StartError> {
        let own = Own::start().map_err(StartError::Thread)?;
        let messenger = own.wait(self.start())?;
        let core = Core {
            messenger,
            listening: CancellationToken::new(),
            listeners: Mutex::default(),
            missed: Arc::default(),
            own,
        };
        Ok(Messenger { core: Arc::new(core) })
    }
}

impl Messenger {
    /// How a messenger is to be; ends by [`Builder::start_blocking`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Waits for what the async messenger does.
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.core.own.wait(future)
    }

    // ---- who ----

    /// This member: the id of this run, what it advertises, and the view in which it joined.
    #[must_use]
    pub fn member(&self) -> Member {
        self.core.messenger.member()
    }

    /// The id of this member. Another one after [`Messenger::reincarnate`].
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.core.messenger.id()
    }

    /// The address that was bound; `None` for a messenger that dials only.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.core.messenger.local_address()
    }

    // ---- views ----

    /// As [`karere::Messenger::install_view`](crate::Messenger::install_view): atomic, never waits.
    ///
    /// # Errors
    ///
    /// [`ViewError`], each with what it leaves.
    pub fn install_view(&self, view: View) -> Result<ViewChange, ViewError> {
        self.core.messenger.install_view(view)
    }

    /// The view that is installed.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.core.messenger.view()
    }

    /// Dials these members of the view now, and not when something is first sent to them. Never waits.
    pub fn preconnect(&self, members: impl IntoIterator<Item = MemberId>) {
        self.core.messenger.preconnect(members);
    }

    /// As [`karere::Messenger::reincarnate`](crate::Messenger::reincarnate): becomes another member. Never waits.
    ///
    /// # Errors
    ///
    /// The messenger is closed; nothing has changed.
    pub fn reincarnate(&self) -> Result<Member, ReincarnateError> {
        self.core.messenger.reincarnate()
    }

    // ---- what is seen ----

    /// Figures, exact for each peer at one moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.messenger.stats()
    }

    // ---- the end ----

    /// Leaves in order, as [`karere::Messenger::leave`](crate::Messenger::leave): drains, says goodbye, lets handlers and
    /// receivers take what was accepted; after `deadline` at the latest it closes. Called in a handler it waits for that
    /// very handler, until the deadline.
    pub fn leave(&self, deadline: Duration) {
        self.wait(self.core.messenger.leave(deadline));
        self.core.ended();
    }

    /// Closes at once: what was written and not acknowledged is indeterminate, the rest not sent. Whoever waits is woken;
    /// receivers give what they hold and are then disconnected; handlers end after the message they are at. Returns
    /// within some 4 s also with a hung peer or handler, and does not wait for the handler it is called in.
    pub fn close(&self) {
        self.wait(self.core.messenger.close());
        self.core.ended();
    }
}

impl Core {
    /// After the end of the messenger: those who listen and those who handle come to theirs.
    fn ended(&self) {
        self.listening.cancel();
        if !self.own.join_handlers() {
            tracing::warn!("a handler does not return; its thread is left to itself after {THREADS_JOIN:?}");
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A message that held the last clone was dropped on the runtime's thread: it all ends without being waited for.
        if !self.own.is_here() {
            self.own.wait(self.messenger.close());
            self.ended();
        }
        self.listening.cancel();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("messenger", &self.messenger).finish_non_exhaustive()
    }
}
