//! The public face: builder, typed messages, handlers, receipts, contacts, byte streams.

mod builder;
mod bytes;
mod contact;
mod datagram;
mod dispatch;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod doors;
mod ending;
mod events;
mod flush;
mod handlers;
mod ledger;
mod message;
mod module;
mod port;
mod probe;
mod request;
mod run;
mod send;
mod stats;
mod taking;
mod views;

pub use self::bytes::{ByteStream, OpenError, StreamError};
pub use builder::{Builder, StartError};
pub use contact::{Contact, ContactError};
pub use datagram::DatagramReport;
pub(crate) use dispatch::{as_handler, is_within_handler};
pub use events::Events;
pub(crate) use events::Hub;
pub use flush::{Digest, FlushReport, Missing, Unflushed};
pub(crate) use handlers::Handler;
pub use handlers::{HandlerError, Unmatched};
pub use message::{EncodeError, Kind, Message, Outgoing, Raw, RawRef};
pub use module::Spawner;
pub use probe::ProbeReport;
pub use request::{Request, RequestError};
pub(crate) use run::{HandlerCounts, Run};
pub use send::{ClassSender, SendError, SendReport};
pub use stats::{Books, PeerStats, Stats, StreamStats};
pub(crate) use taking::{Pieces, Take, TakeRaw, TakeTyped, TakeUnmatched};
pub use views::ReincarnateError;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use dispatch::{Extension, PeerInbound, Shared};
use handlers::Handlers;
use ledger::Ledger;
use request::Requests;

#[cfg(feature = "tls")]
use crate::config::tls::{Tls, TlsError};
use crate::driver::{Application, Driver, Inbound, Nobody, PeerHandle, clock};
use crate::limits::BYTE_STREAM_BACKLOG;
use crate::member::{Endpoint, EndpointError, Member, MemberId};
use crate::peer::{Finding, PeerEvent, Place};
use crate::session::{NoRoom, Receipt};
use crate::wire::Class;
use port::PeerPort;

/// A messenger: sends to members, hands what comes to handlers, keeps links, resumes sessions. Cheap to clone; when the
/// last clone is dropped it closes. A handler that holds a clone keeps it open: then call [`Messenger::close`] or
/// [`Messenger::leave`].
#[derive(Clone, Debug)]
pub struct Messenger {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    events: Arc<Hub>,
    opened: tokio::sync::Mutex<mpsc::Receiver<ByteStream>>,
    /// Held while handlers change, so that the types the peers are told follow each other.
    registering: Mutex<()>,
    /// What closed it.
    closed: OnceLock<&'static str>,
    message_bytes: usize,
    local: Option<SocketAddr>,
}

impl Messenger {
    /// How a messenger is to be.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn assemble(driver: Arc<Driver>, message_bytes: usize, local: Option<SocketAddr>) -> Self {
        let events = Arc::<Hub>::default();
        let (opened, accepted) = mpsc::channel(BYTE_STREAM_BACKLOG);
        let shared = Arc::new(Shared {
            driver,
            handlers: ArcSwap::default(),
            counts: Arc::default(),
            lanes: TaskTracker::new(),
            datagrams_absent: AtomicU64::new(0),
            opened,
            requests: Requests::new(message_bytes),
            ledger: Ledger::default(),
        });
        let face = Face { shared: Arc::downgrade(&shared), events: Arc::clone(&events) };
        shared.driver.set_application(Arc::new(face));
        shared.driver.set_types(Handlers::default().types());
        let inner = Inner {
            shared,
            events,
            opened: tokio::sync::Mutex::new(accepted),
            registering: Mutex::new(()),
            closed: OnceLock::new(),
            message_bytes,
            local,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What is below.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn driver(&self) -> &Arc<Driver> {
        &self.inner.shared.driver
    }

    /// This member: the id of this run, what it advertises, and the view in which it joined.
    #[must_use]
    pub fn member(&self) -> Member {
        self.inner.shared.driver.me().member.clone()
    }

    /// The id of this member. Another one after [`Messenger::reincarnate`].
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.inner.shared.driver.me().member.id
    }

    /// The address that was bound; `None` for a messenger that dials only.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.inner.local
    }

    // ---- handlers ----

    /// Handles messages of type `M`: one after the other for each sender and class, side by side for different ones.
    /// Until its handler is done a message withholds its sender's credit. A handler that panics costs that one message.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]; nothing has changed.
    pub fn add_handler<M, F, R>(&self, handler: F) -> Result<(), HandlerError>
    where
        M: Message,
        F: Fn(MemberId, M) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.register(|handlers| handlers.add(handler))
    }

    /// Handles raw messages of one kind, without decoding or copying them.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]; nothing has changed.
    pub fn add_raw_handler<F, R>(&self, kind: Kind, handler: F) -> Result<(), HandlerError>
    where
        F: Fn(MemberId, Raw) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.register(|handlers| handlers.add_raw(kind, handler))
    }

    /// Handles whatever no other handler does. Without it the sender of such a message is told
    /// [`Cause::NotUnderstood`](crate::Cause::NotUnderstood).
    ///
    /// # Errors
    ///
    /// [`HandlerError::SecondFallback`].
    pub fn set_fallback_handler<F, R>(&self, handler: F) -> Result<(), HandlerError>
    where
        F: Fn(MemberId, Unmatched) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.register(|handlers| handlers.set_fallback(handler))
    }

    fn register(
        &self,
        change: impl FnOnce(&mut Handlers) -> Result<(), HandlerError>,
    ) -> Result<(), HandlerError> {
        let _one_at_a_time = self.inner.registering.lock();
        let shared = &self.inner.shared;
        let mut handlers = Handlers::clone(&shared.handlers.load());
        change(&mut handlers)?;
        let types = handlers.types();
        shared.handlers.store(Arc::new(handlers));
        shared.driver.set_types(types);
        Ok(())
    }

    // ---- sending ----

    /// Queues a message for each recipient and never waits. Recipients are contacts, peers whose session a resume lease
    /// holds, and this member itself. It is encoded once. The caller keeps the message.
    ///
    /// # Errors
    ///
    /// [`SendError`]: the message cannot be sent to anybody. A recipient that is absent or full is no error but part of
    /// the report.
    pub fn send<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
    ) -> Result<SendReport, SendError> {
        self.class(Class::Normal).send(message, recipients)
    }

    /// Queues a message wherever there is room, then waits for the rest, each separately. When the time is over, those
    /// that are still full are in the report. Cancel safe: what was queued stays queued, the rest is not sent.
    ///
    /// # Errors
    ///
    /// [`SendError`], [`SendError::WithinHandler`] in a handler.
    pub async fn send_wait<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        timeout: Duration,
    ) -> Result<SendReport, SendError> {
        self.class(Class::Normal).send_wait(message, recipients, timeout).await
    }

    /// Queues a message for one recipient and tells what becomes of it.
    ///
    /// # Errors
    ///
    /// [`SendError`], with [`SendError::Absent`] and [`SendError::Full`]: it was not queued.
    pub fn send_with_receipt<M: Outgoing>(
        &self,
        message: &M,
        recipient: MemberId,
    ) -> Result<Receipt, SendError> {
        self.class(Class::Normal).send_with_receipt(message, recipient)
    }

    /// Sends in a class: urgent messages overtake normal ones, bulk gives way to both. Order holds within a class.
    #[must_use]
    pub const fn class(&self, class: Class) -> ClassSender<'_> {
        ClassSender::new(self, class)
    }

    // ---- contacts and byte streams ----

    /// Finds out who is at an address, outside any view, and keeps a session with that member until the handle is
    /// dropped. The address given is dialled, not the one advertised. Gives up after
    /// [`Timeouts::contact_give_up`](crate::Timeouts) if nobody is met; once somebody was, never. Cancel safe.
    ///
    /// The link may still be coming up when this returns: until it is there, the queue takes what the reserve holds
    /// ([`Limits::reserve_bytes`](crate::Limits)), and `send_wait` waits for more.
    ///
    /// # Errors
    ///
    /// [`ContactError`]; nothing is kept.
    pub async fn contact(&self, address: impl AsRef<str>) -> Result<Contact, ContactError> {
        self.meet(address.as_ref(), None, false).await
    }

    /// As [`Messenger::contact`], and gives up after the first attempt: for who knows other addresses to be tried. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ContactError`]; nothing is kept.
    pub async fn contact_once(&self, address: impl AsRef<str>) -> Result<Contact, ContactError> {
        self.meet(address.as_ref(), None, true).await
    }

    /// As [`Messenger::contact`], with the name that the certificate at the address must cover, where it is not for the host as
    /// it is written in the address. It is asked for at each link. Without TLS the name says nothing. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ContactError`]; nothing is kept.
    pub async fn contact_named(
        &self,
        address: impl AsRef<str>,
        name: impl AsRef<str>,
    ) -> Result<Contact, ContactError> {
        self.meet(address.as_ref(), Some(name.as_ref().into()), false).await
    }

    async fn meet(&self, text: &str, name: Option<Arc<str>>, once: bool) -> Result<Contact, ContactError> {
        let driver = &self.inner.shared.driver;
        let endpoint: Endpoint = text.parse()?;
        if endpoint.is_unusable() {
            let reason = "nobody can be reached there";
            return Err(EndpointError { text: text.to_owned(), reason }.into());
        }
        let closed = || ContactError::Closed(self.closed_by());
        let place = Place { endpoint: endpoint.clone(), name };
        let search = driver.search_from(place.clone(), once);
        let (finding, local) = driver.stop.run_until_cancelled(search).await.ok_or_else(closed)?;
        match finding {
            Finding::Found(id) => {
                let held = driver.hold(id, place).ok_or_else(closed)?;
                Ok(Contact::new(Arc::clone(driver), held, endpoint, local))
            }
            Finding::Refused(why) => Err(ContactError::Refused { endpoint, why }),
            Finding::GaveUp(last) => Err(ContactError::GaveUp { endpoint, last }),
        }
    }

    fn closed_by(&self) -> &'static str {
        self.inner.closed.get().copied().unwrap_or("it is going away")
    }

    /// Opens a byte stream to a member there is a session with. Waits for room for the opening message, but not inside
    /// a handler, which could wait for itself. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`OpenError`], with [`OpenError::Full`] inside a handler only; no stream was opened.
    pub async fn open_stream(&self, member: MemberId, name: &str) -> Result<ByteStream, OpenError> {
        let (handle, extension) = self.extension(member).ok_or(OpenError::Absent)?;
        let streams = &extension.streams;
        let waits = !dispatch::is_within_handler();
        std::future::poll_fn(|cx| match streams.open(name, Class::Normal) {
            Err(OpenError::Full) if waits => {
                handle.intake.lock().wake_at_room(cx.waker(), NoRoom::Process);
                // Room that came back meanwhile would wake nobody.
                match streams.open(name, Class::Normal) {
                    Err(OpenError::Full) => Poll::Pending,
                    opened => Poll::Ready(opened),
                }
            }
            opened => Poll::Ready(opened),
        })
        .await
    }

    fn extension(&self, member: MemberId) -> Option<(Arc<PeerHandle>, Arc<Extension>)> {
        let driver = &self.inner.shared.driver;
        let handle = match driver.peer(member) {
            None => driver.peer_wanted(member)?,
            Some(handle) => handle,
        };
        let extension = Arc::clone(handle.extension.get()?).downcast().ok()?;
        Some((handle, extension))
    }

    /// The next byte stream that a peer opened; `None` when the messenger is closed. Cancel safe.
    pub async fn accept_stream(&self) -> Option<ByteStream> {
        let mut opened = self.inner.opened.lock().await;
        let stop = &self.inner.shared.driver.stop;
        stop.run_until_cancelled(opened.recv()).await.flatten()
    }

    // ---- certificates ----

    /// Other certificates, authorities or both: handshakes that begin from now on use them. Links and sessions stay as they
    /// are, so nothing is lost or sent again. To change the authority, first trust both everywhere, then change the
    /// certificates, then take the old one away.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: it does not fit this member, or this messenger was started without TLS. The settings of before hold.
    #[cfg(feature = "tls")]
    pub fn rotate_tls(&self, tls: Tls) -> Result<(), TlsError> {
        self.inner.shared.driver.rotate(tls)
    }

    // ---- what is seen ----

    /// Events of peers from now on. At most 64 subscriptions are open at once; one more ends at once, with an error in the
    /// log.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.events.subscribe()
    }

    /// Figures, exact for each peer at one moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        let now = clock::now();
        let mut stats = Stats::default();
        // Those that are gone first: a peer that goes meanwhile is missing rather than counted twice.
        stats.set_gone(&shared.driver.gone());
        stats.peers =
            shared.driver.peers().iter().map(|handle| PeerStats::of(&handle.peer.lock(), now)).collect();
        (stats.refused_connections, stats.accept_errors) = shared.driver.refusals();
        stats.handler_panics = shared.counts.panics.load(Ordering::Relaxed);
        stats.undecodable = shared.counts.undecodable.load(Ordering::Relaxed);
        stats.refused_records = shared.counts.refused.load(Ordering::Relaxed);
        stats.dropped_at_close = shared.counts.dropped.load(Ordering::Relaxed);
        stats.datagrams_absent = shared.datagrams_absent.load(Ordering::Relaxed);
        stats.late_replies = shared.requests.late_replies.load(Ordering::Relaxed);
        stats.requests_called_off = shared.requests.called_off.load(Ordering::Relaxed);
        stats
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.driver.end();
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("driver", &self.shared.driver).finish_non_exhaustive()
    }
}

/// What the driver sees of the messenger.
struct Face {
    shared: Weak<Shared>,
    events: Arc<Hub>,
}

impl Application for Face {
    fn attach(&self, handle: &Arc<PeerHandle>) -> Box<dyn Inbound> {
        let port = Arc::new(PeerPort::new(handle));
        let Some(shared) = self.shared.upgrade() else { return Box::new(Nobody) };
        let intakes = shared.ledger.open(handle.id, |member| shared.driver.peer(member).is_some());
        let (inbound, extension) =
            PeerInbound::new(Arc::downgrade(&shared), Arc::clone(handle), port, intakes);
        let _first = handle.extension.set(Arc::new(extension));
        Box::new(inbound)
    }

    fn event(&self, event: PeerEvent) {
        self.events.tell(&event);
    }
}
