//! The task that carries out what the core decides: one for each messenger.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::api::Inner;
use super::core::{Client, Output};
use super::standing::Standing;
use crate::rendezvous::damp::Damped;
use crate::rendezvous::words::ToServer;
use crate::router::Routes;
use crate::{Contact, ContactError, Disconnect, Events, MemberId, Messenger, PeerEvent, ViewError};

/// How long a word waits for room on its way to the server before another server is tried.
const SAY: Duration = Duration::from_secs(3);
/// How long this node's messenger has to leave when it stops because it is frozen.
const STOP: Duration = Duration::from_secs(2);

type Found = Result<Contact, ContactError>;
type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A seed that differs with each run of each process, because its id does.
pub(super) fn seed(id: MemberId) -> u64 {
    let bytes = id.to_bytes();
    let half = |range: std::ops::Range<usize>| {
        bytes.get(range).into_iter().flatten().fold(0, |seed: u64, byte| seed << 8 | u64::from(*byte))
    };
    half(0..8) ^ half(8..16)
}

/// See the module's text.
struct Shell {
    inner: Arc<Inner>,
    messenger: Messenger,
    routes: Option<Routes>,
    attempt: u64,
    address: String,
    contact: Option<Contact>,
    seeking: Pending<Found>,
    /// Words for the server that was met, in their order.
    to_say: VecDeque<ToServer>,
    saying: Pending<Option<MemberId>>,
    refusals: Damped<String>,
}

pub(super) async fn run(inner: Arc<Inner>, messenger: Messenger, routes: Option<Routes>) {
    let events = messenger.events();
    let closed = routes.clone();
    let closed = async move {
        match closed {
            Some(routes) => routes.closed().await,
            None => std::future::pending().await,
        }
    };
    let ended = inner.ended.clone();
    let mut shell = Shell {
        inner,
        messenger,
        routes,
        attempt: 0,
        address: String::new(),
        contact: None,
        seeking: None,
        to_say: VecDeque::new(),
        saying: None,
        refusals: Damped::default(),
    };
    tokio::select! {
        biased;
        () = ended.cancelled() => {}
        () = closed => {}
        () = shell.run(events) => {}
    }
    shell.inner.end();
}

impl Shell {
    async fn run(&mut self, mut events: Events) {
        loop {
            while let Some(output) = self.inner.next_output(&self.messenger) {
                if !self.perform(output) {
                    return;
                }
            }
            self.inner.publish();
            self.inner.room.notify_waiters();
            self.say_next();
            let timeout = self.inner.next_timeout(&self.messenger);
            tokio::select! {
                biased;
                () = self.inner.bell.notified() => {}
                event = events.next() => match event {
                    Some(event) => self.note(&event),
                    None => return,
                },
                found = ready(&mut self.seeking) => self.found(found),
                () = another(self.contact.as_ref()) => {
                    self.contact = None;
                    let attempt = self.attempt;
                    self.act(|core, now| core.handle_gone(now, attempt));
                }
                stuck = ready(&mut self.saying) => {
                    if let Some(server) = stuck {
                        self.act(|core, now| core.handle_stuck(now, server));
                    }
                }
                () = until(timeout) => self.act(Client::handle_timeout),
            }
        }
    }

    fn act(&self, happen: impl FnOnce(&mut Client, std::time::Instant)) {
        let now = self.messenger.now();
        self.inner.act(|core| happen(core, now));
    }

    /// `false`: it is over.
    fn perform(&mut self, output: Output) -> bool {
        match output {
            Output::Seek { attempt, address } => {
                (self.attempt, self.address) = (attempt, address);
                self.seek();
            }
            Output::Say(word) => self.to_say.push_back(word),
            Output::View { down, view, up } => self.install(&down, view, &up),
            Output::Routes { member, anew, change } => match &self.routes {
                Some(routes) if anew => routes.replace(member, change.added),
                Some(routes) => routes.change(member, change),
                None => {}
            },
            Output::Reincarnate => return self.reincarnate(),
            Output::Probe { member, within } => self.probe(member, within),
            Output::Lease(ticket, news) => self.inner.tell_lease(ticket, news),
            Output::Standing(standing) => {
                self.inner.publish();
                self.inner.show(standing);
            }
            Output::Left { stop } => {
                if stop {
                    let messenger = self.messenger.clone();
                    self.messenger.spawn(async move { messenger.leave(STOP).await });
                }
                self.inner.show(Standing::Left);
                return false;
            }
        }
        true
    }

    // ---- the server ----

    fn seek(&mut self) {
        // With it goes the session, and what waits in it.
        self.contact = None;
        (self.saying, self.to_say) = (None, VecDeque::new());
        let (messenger, address) = (self.messenger.clone(), self.address.clone());
        self.seeking = Some(Box::pin(async move { messenger.contact_once(address).await }));
    }

    fn found(&mut self, found: Found) {
        let attempt = self.attempt;
        match found {
            Ok(contact) => {
                let id = contact.id();
                self.contact = Some(contact);
                self.act(|core, now| core.handle_met(now, attempt, id));
            }
            Err(error) => {
                if let ContactError::Refused { .. } = &error
                    && let Some(unsaid) = self.refusals.note(self.messenger.now(), error.to_string())
                {
                    tracing::error!(%error, unsaid, "a rendezvous server refuses this node");
                }
                self.act(|core, now| core.handle_unmet(now, attempt, &error.to_string()));
            }
        }
    }

    fn say_next(&mut self) {
        let Some(contact) = self.contact.as_ref().filter(|_| self.saying.is_none()) else { return };
        let Some(word) = self.to_say.pop_front() else { return };
        let (messenger, server) = (self.messenger.clone(), contact.id());
        self.saying = Some(Box::pin(async move {
            match messenger.send_wait(&word, [server], SAY).await {
                Ok(report) if report.full.is_empty() && report.absent.is_empty() => None,
                Ok(_) | Err(_) => Some(server),
            }
        }));
    }

    // ---- the messenger and the router ----

    fn install(&self, down: &[MemberId], view: crate::View, up: &[MemberId]) {
        if let Some(routes) = &self.routes {
            down.iter().for_each(|gone| routes.node_down(*gone));
        }
        let id = view.id();
        match self.messenger.install_view(view) {
            Ok(_change) => {}
            Err(ViewError::Closed(_)) => return,
            Err(error) => tracing::error!(view = %id, %error, "the view is not installed"),
        }
        if let Some(routes) = &self.routes {
            routes.self_changed();
            up.iter().for_each(|new| routes.node_up(*new));
        }
    }

    fn reincarnate(&mut self) -> bool {
        (self.saying, self.to_say) = (None, VecDeque::new());
        let Ok(me) = self.messenger.reincarnate() else { return false };
        if let Some(routes) = &self.routes {
            routes.self_changed();
        }
        self.act(|core, now| core.handle_reborn(now, me));
        true
    }

    fn probe(&self, member: MemberId, within: Duration) {
        let (messenger, inner) = (self.messenger.clone(), Arc::clone(&self.inner));
        self.messenger.spawn(async move {
            let answered = messenger.probe(member, within).await.has_answered(member);
            inner.act(|core| core.handle_probed(member, answered));
        });
    }

    /// What happened to a peer, as evidence for the leader.
    fn note(&self, event: &PeerEvent) {
        let peer = event.peer();
        match event {
            PeerEvent::Disconnected { reason: Disconnect::End | Disconnect::Reset, .. } => {
                self.act(|core, now| core.handle_link(now, peer, false));
            }
            PeerEvent::Connected { .. } => self.act(|core, now| core.handle_link(now, peer, true)),
            _ => {}
        }
        let lost = match event {
            PeerEvent::SessionLost { .. } => {
                return self.act(|core, now| core.handle_session_lost(now, peer));
            }
            PeerEvent::Unreachable { .. }
            | PeerEvent::Stuck { .. }
            | PeerEvent::OneWaySilence { .. }
            | PeerEvent::Disconnected { reason: Disconnect::Silence, .. }
            | PeerEvent::Replaced { .. }
            | PeerEvent::Left { .. } => true,
            PeerEvent::Connected { .. } | PeerEvent::Recovered { .. } => false,
            _ => return,
        };
        self.act(|core, now| core.handle_evidence(now, peer, lost));
    }
}

/// What is waited for, once; nothing is waited for if there is nothing.
async fn ready<T>(pending: &mut Pending<T>) -> T {
    match pending {
        Some(future) => {
            let value = future.as_mut().await;
            *pending = None;
            value
        }
        None => std::future::pending().await,
    }
}

/// Until another member is at the address of the contact.
async fn another(contact: Option<&Contact>) {
    match contact {
        Some(contact) => drop(contact.replaced().await),
        None => std::future::pending().await,
    }
}

async fn until(timeout: Option<std::time::Instant>) {
    match timeout {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
