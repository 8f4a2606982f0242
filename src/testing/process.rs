//! One process of a world: a real messenger in the simulated network, and what its application does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::net::{Host, Network, ProcessId};
use super::plan::Plan;
use super::routers::{Router, Told};
use crate::driver::clock;
use crate::member::MemberId;
use crate::{Contact, Kind, Message, Messenger, PeerEvent, Request, StartError};

pub(super) const MEMBERS: Kind = Kind::new("sim.members", 1);
pub(super) const OPEN: Kind = Kind::new("sim.open", 1).open();

/// Asked of another member, which says it back.
#[derive(Serialize, Deserialize)]
pub(super) struct Ask(pub(super) u64);

impl Message for Ask {
    const KIND: Kind = Kind::new("sim.ask", 1).open();
}

#[derive(Serialize, Deserialize)]
pub(super) struct Answer(pub(super) u64);

impl Message for Answer {
    const KIND: Kind = Kind::new("sim.answer", 1).open();
}

impl Request for Ask {
    type Reply = Answer;
}

/// What processes tell the world, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Note {
    Delivered {
        process: ProcessId,
        from: MemberId,
        body: Bytes,
    },
    Heard {
        process: ProcessId,
        event: PeerEvent,
    },
    /// A byte stream came to its end here, as it should.
    Drunk {
        process: ProcessId,
    },
    /// Something came that was never sent.
    Wrong {
        process: ProcessId,
        wrong: String,
    },
    WaitEnded {
        wait: u64,
        wrong: Option<String>,
    },
    Left {
        process: ProcessId,
        in_order: bool,
    },
    /// Of a flow.
    Flow(Told),
}

/// See [`Note`].
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: Mutex<Vec<(Instant, Note)>>,
    /// Numbers of flows and their messages.
    next: AtomicU64,
}

impl Notes {
    pub(super) fn add(&self, note: Note) {
        self.notes.lock().push((clock::now(), note));
    }

    pub(super) fn take(&self) -> Vec<(Instant, Note)> {
        std::mem::take(&mut *self.notes.lock())
    }

    /// One that nothing else has.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// How handlers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Prompt,
    Slow(Duration),
    Hung,
}

/// How the handlers of one process behave now.
#[derive(Debug)]
pub(super) struct Handlers {
    manner: Mutex<Manner>,
    changed: Notify,
}

impl Handlers {
    pub(super) fn set(&self, manner: Manner) {
        *self.manner.lock() = manner;
        self.changed.notify_waiters();
    }

    pub(super) async fn handle(&self) {
        loop {
            let changed = self.changed.notified();
            let manner = *self.manner.lock();
            match manner {
                Manner::Prompt => return,
                Manner::Slow(time) => return tokio::time::sleep(time).await,
                Manner::Hung => changed.await,
            }
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: ProcessId,
    pub(super) messenger: Messenger,
    pub(super) host: Arc<Host>,
    pub(super) handlers: Arc<Handlers>,
    pub(super) contacts: Arc<Mutex<Vec<Contact>>>,
    pub(super) router: Option<Router>,
}

impl Process {
    pub(super) async fn start(
        plan: &Plan,
        network: &Arc<Network>,
        id: ProcessId,
        address: SocketAddr,
        wrong_millis: i64,
        notes: &Arc<Notes>,
    ) -> Result<Self, StartError> {
        network.add(id, address);
        let host = Arc::new(Host::new(network, id, wrong_millis));
        let net = Arc::clone(&host);
        let builder = Messenger::builder().bind(address.to_string()).views(plan.views);
        let builder = builder.timeouts(plan.timeouts).limits(plan.limits);
        let messenger = builder.start_in(|_| net).await?;
        let handlers = Arc::new(Handlers { manner: Mutex::new(Manner::Prompt), changed: Notify::new() });
        let process = Self { id, messenger, host, handlers, contacts: Arc::default(), router: None };
        process.handle(notes);
        process.drink(notes);
        Ok(process)
    }

    fn handle(&self, notes: &Arc<Notes>) {
        let process = self.id;
        for kind in [MEMBERS, OPEN] {
            let (notes, handlers) = (Arc::clone(notes), Arc::clone(&self.handlers));
            let added = self.messenger.add_raw_handler(kind, move |from, raw| {
                notes.add(Note::Delivered { process, from, body: raw.into_bytes() });
                let handlers = Arc::clone(&handlers);
                async move { handlers.handle().await }
            });
            debug_assert!(added.is_ok(), "two kinds");
        }
        let handlers = Arc::clone(&self.handlers);
        let added = self.messenger.add_request_handler(move |_, Ask(number)| {
            let handlers = Arc::clone(&handlers);
            async move {
                handlers.handle().await;
                Ok(Answer(number))
            }
        });
        debug_assert!(added.is_ok(), "one kind");
        let (mut events, notes) = (self.messenger.events(), Arc::clone(notes));
        self.spawn(async move {
            while let Some(event) = events.next().await {
                notes.add(Note::Heard { process, event });
            }
        });
    }

    /// Runs something of its application: it stands still and dies with the process.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.host.gate_of().hold(task)));
    }

    pub(super) fn me(&self) -> MemberId {
        self.messenger.id()
    }

    /// Tasks that its driver owns.
    pub(super) fn tasks(&self) -> usize {
        self.messenger.driver().tasks()
    }
}
