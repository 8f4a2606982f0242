//! What a node knows of routes, told to any other that asks: by the messenger's requests, page by page.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::core::{Mark, Page, Scope};
use super::envelope::ActorRef;
use super::error::FlowError;
use super::hub::TIME_TO_LIVE;
use super::key::{KeyId, MessageKey};
use super::node::{Inner, Node};
use crate::{Cause, HandlerError, Kind, MemberId, Message, Request, RequestError};

/// Whoever asks keeps no more of an answer: a million routes and more.
const TABLES_BYTES_MAX: usize = 64 * 1024 * 1024;

const ASK: Kind = Kind::new("karere.router.tables", 1);
const TOLD: Kind = Kind::new("karere.router.page", 1);

/// What comes after this? `OPEN`: in a network without views.
#[derive(Serialize, Deserialize)]
struct Ask<const OPEN: bool> {
    after: Option<After>,
}

#[derive(Serialize, Deserialize)]
enum After {
    Internal(KeyId, u32),
    External(KeyId, ActorRef),
}

/// A page, or that there is no router any more.
#[derive(Serialize, Deserialize)]
struct Told(Option<Wire>);

#[derive(Serialize, Deserialize)]
struct Wire {
    /// Key, host, and whether it is local.
    internal: Vec<(MessageKey, u32, bool)>,
    external: Vec<(MessageKey, ActorRef)>,
    next: Option<After>,
    left: u64,
}

impl<const OPEN: bool> Message for Ask<OPEN> {
    const KIND: Kind = if OPEN { ASK.open() } else { ASK };
}

impl Message for Told {
    const KIND: Kind = TOLD;
}

impl<const OPEN: bool> Request for Ask<OPEN> {
    type Reply = Told;
}

impl After {
    const fn mark(&self) -> Mark {
        match self {
            Self::Internal(id, host) => Mark::Internal(*id, *host),
            Self::External(id, to) => Mark::External(*id, *to),
        }
    }

    const fn of(mark: Mark) -> Self {
        match mark {
            Mark::Internal(id, host) => Self::Internal(id, host),
            Mark::External(id, to) => Self::External(id, to),
        }
    }
}

impl From<Page> for Wire {
    fn from(Page { internal, external, next, left }: Page) -> Self {
        let internal = internal.into_iter().map(|(key, host, scope)| (key, host, scope == Scope::Local));
        Self { internal: internal.collect(), external, next: next.map(After::of), left }
    }
}

/// What a node knew of routes when it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tables {
    /// Those of its own hosts: key, host, and who may find it.
    pub internal: Vec<(MessageKey, u32, Scope)>,
    /// Those of others, as they said.
    pub external: Vec<(MessageKey, ActorRef)>,
    /// How many more it had: an answer ends after some 64 MiB.
    pub left_out: u64,
}

impl Tables {
    /// Adds a page, and says what it takes.
    fn add(&mut self, page: Wire) -> usize {
        let size = |key: &MessageKey| size_of::<(MessageKey, ActorRef)>() + key.identity().len();
        let keys = page.internal.iter().map(|(key, ..)| key).chain(page.external.iter().map(|(key, _)| key));
        let bytes = keys.map(size).sum();
        let scope = |local| if local { Scope::Local } else { Scope::Network };
        self.internal.extend(page.internal.into_iter().map(|(key, host, local)| (key, host, scope(local))));
        self.external.extend(page.external);
        self.left_out = page.left;
        bytes
    }
}

/// A question for the tables of a node; see [`Node::tables_of`]. Dropped meanwhile, it is called off.
#[derive(Debug)]
#[must_use = "nothing is asked before it is awaited"]
pub struct AskingTables {
    inner: Arc<Inner>,
    of: MemberId,
    time: Duration,
}

impl Node {
    /// Asks a node what it knows: routes of its own hosts, those that are local among them, and routes of others. This node or
    /// any other that the messenger can reach, with a link or without one yet; that it has no routes here does not matter.
    ///
    /// Long tables come in parts: what changes meanwhile may be among them or not, all else is, each route once.
    ///
    /// Awaited, it ends with the [`Tables`], or as flows do: [`FlowError::Unroutable`] if the messenger knows no such member or
    /// that member has no router, [`FlowError::Departed`], [`FlowError::Deadline`], [`FlowError::Full`], [`FlowError::Closed`].
    ///
    /// ```
    /// # async fn f(node: karere::router::Node, other: karere::MemberId) -> Result<(), karere::router::FlowError> {
    /// let tables = node.tables_of(other).deadline(std::time::Duration::from_secs(2)).await?;
    /// for (key, host, scope) in &tables.internal {
    ///     println!("{key} at host {host}, {scope:?}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn tables_of(&self, node: MemberId) -> AskingTables {
        AskingTables { inner: Arc::clone(&self.inner), of: node, time: TIME_TO_LIVE }
    }
}

impl AskingTables {
    /// How long it waits; 30 s unless it is said.
    pub const fn deadline(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    async fn ask(self) -> Result<Tables, FlowError> {
        let Self { inner, of, time } = self;
        inner.open()?;
        let gone = inner.gone.clone();
        let asking = async {
            let mut tables = Tables::default();
            let (mut after, mut bytes) = (None, 0);
            loop {
                let page =
                    if of == inner.id() { own(&inner, after) } else { page(&inner, of, after, time).await? };
                // A page without an end of its own would come again and again.
                after = page.next.as_ref().map(After::mark).filter(|next| Some(*next) > after);
                bytes += tables.add(page);
                if after.is_none() || bytes >= TABLES_BYTES_MAX {
                    return Ok(tables);
                }
            }
        };
        let answer = gone.run_until_cancelled(tokio::time::timeout(time, asking)).await;
        answer.unwrap_or(Ok(Err(FlowError::Closed))).unwrap_or(Err(FlowError::Deadline))
    }
}

impl IntoFuture for AskingTables {
    type Output = Result<Tables, FlowError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.ask())
    }
}

fn own(inner: &Inner, after: Option<Mark>) -> Wire {
    inner.page(after).into()
}

async fn page(inner: &Inner, of: MemberId, after: Option<Mark>, time: Duration) -> Result<Wire, FlowError> {
    let (messenger, after) = (&inner.messenger, after.map(After::of));
    let told = if inner.kinds.is_open() {
        messenger.request(&Ask::<true> { after }, of, time).await
    } else {
        messenger.request(&Ask::<false> { after }, of, time).await
    };
    let unroutable = || FlowError::Unroutable(format!("questions for tables at {of}"));
    told.map_err(|error| refused(error, of)).and_then(|Told(page)| page.ok_or_else(unroutable))
}

fn refused(error: RequestError, of: MemberId) -> FlowError {
    match error {
        RequestError::Absent(_) | RequestError::NotUnderstood => {
            FlowError::Unroutable(format!("questions for tables at {of}"))
        }
        RequestError::Timeout | RequestError::NotSent(Cause::Expired) => FlowError::Deadline,
        RequestError::NotSent(_) | RequestError::Indeterminate(_) => FlowError::Departed(of),
        RequestError::Full(_) | RequestError::Busy => FlowError::Full,
        RequestError::Closed(_) => FlowError::Closed,
        RequestError::Encode(error) => FlowError::Encode(error),
        other => FlowError::Handler(other.to_string()),
    }
}

/// Answers others that ask.
pub(super) fn answer(inner: &Arc<Inner>) -> Result<(), HandlerError> {
    if inner.kinds.is_open() { answer_in::<true>(inner) } else { answer_in::<false>(inner) }
}

fn answer_in<const OPEN: bool>(inner: &Arc<Inner>) -> Result<(), HandlerError> {
    let weak: Weak<Inner> = Arc::downgrade(inner);
    inner.messenger.add_request_handler(move |_, Ask::<OPEN> { after }| {
        let inner = weak.upgrade().filter(|inner| inner.open().is_ok());
        let page = inner.map(|inner| own(&inner, after.map(|after| after.mark())));
        std::future::ready(Ok(Told(page)))
    })
}
