//! A node's place in a world, and its process while one runs: a messenger, a router, a rendezvous, and hosts that come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::rendezvous::doors::ClusterId;
use crate::rendezvous::{Lease, Rendezvous};
use crate::router::{Host as Actors, Node};
use crate::testing::net::{Host, Network, ProcessId};
use crate::{Kind, MemberId, Message, Messenger, Raw, View, ViewId};

/// Messages between members, numbered.
pub(super) const NUMBERED: Kind = Kind::new("sim.numbered", 1);

macro_rules! handled {
    ($($name:ident = $kind:literal),* $(,)?) => { $(
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        struct $name;
        impl Message for $name {
            const KIND: Kind = Kind::new($kind, 1);
        }
    )* };
}

handled!(Apple = "sim.apple", Pear = "sim.pear", Plum = "sim.plum");

/// What nodes tell the world, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Note {
    Installed { by: MemberId, cluster: Option<ClusterId>, view: Arc<View> },
    Delivered { from: MemberId, to: MemberId, number: u64 },
    Granted { name: String, cluster: Option<ClusterId>, to: MemberId, lease: Lease },
}

/// See [`Note`].
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<Note>>);

impl Notes {
    pub(super) fn add(&self, note: Note) {
        self.0.lock().push(note);
    }

    pub(super) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// A node that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: ProcessId,
    pub(super) messenger: Messenger,
    pub(super) rendezvous: Rendezvous,
    pub(super) node: Node,
    pub(super) host: Arc<Host>,
    pub(super) actors: Vec<Actors>,
    pub(super) leases: Vec<Lease>,
    pub(super) frozen: bool,
    pub(super) leaving: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct NodePlace {
    pub(super) address: SocketAddr,
    pub(super) running: Option<Running>,
    /// Until when something was wrong with it, or is.
    pub(super) ill: Option<Instant>,
}

impl NodePlace {
    pub(super) fn new(at: usize) -> Self {
        Self { address: node_address(at), running: None, ill: None }
    }

    pub(super) fn view_id(&self) -> Option<ViewId> {
        self.running.as_ref()?.messenger.view().map(|view| view.id())
    }

    /// How many members its view has.
    pub(super) fn sees(&self) -> usize {
        let view = self.running.as_ref().and_then(|one| one.messenger.view());
        view.map_or(0, |view| view.members().len())
    }

    pub(super) fn own_routes(&self) -> usize {
        self.running.as_ref().map_or(0, |one| one.node.internal_routes().len())
    }

    pub(super) fn known_routes(&self) -> usize {
        self.running.as_ref().map_or(0, |one| one.node.external_routes().len())
    }

    pub(super) fn is_ill_until(&mut self, until: Instant) {
        self.ill = self.ill.max(Some(until));
    }

    pub(super) async fn start(
        &mut self,
        network: &Arc<Network>,
        process: ProcessId,
        servers: &[SocketAddr],
        wrong_millis: i64,
        notes: &Arc<Notes>,
    ) -> Result<(), String> {
        network.add(process, self.address);
        let host = Arc::new(Host::new(network, process, wrong_millis));
        let net = Arc::clone(&host);
        let failed = |error: &dyn std::fmt::Display| format!("no node at {}: {error}", self.address);
        let builder = Messenger::builder().bind(self.address.to_string());
        let messenger = builder.start_in(|_| net).await.map_err(|error| failed(&error))?;
        let list: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        let rendezvous = Rendezvous::builder(list.join(",")).build().map_err(|error| failed(&error))?;
        listen(&messenger, &rendezvous, notes).map_err(|error| failed(&error))?;
        let node =
            Node::builder().source(rendezvous.clone()).start(&messenger).map_err(|error| failed(&error))?;
        self.running = Some(Running {
            process,
            messenger,
            rendezvous,
            node,
            host,
            actors: Vec::new(),
            leases: Vec::new(),
            frozen: false,
            leaving: false,
        });
        Ok(())
    }

    /// The process is no more; its machine, or its kernel, says so or not.
    pub(super) fn end(&mut self, network: &Network, silently: bool) {
        let Some(running) = self.running.take() else { return };
        running.host.gate_of().kill();
        network.kill(running.process, silently);
    }
}

fn listen(
    messenger: &Messenger,
    rendezvous: &Rendezvous,
    notes: &Arc<Notes>,
) -> Result<(), crate::HandlerError> {
    let (told, here) = (Arc::clone(notes), messenger.clone());
    messenger.add_raw_handler(NUMBERED, move |from, raw| {
        let number = raw.bytes().get(..8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        told.add(Note::Delivered { from, to: here.id(), number: number.unwrap_or_default() });
        async {}
    })?;
    let (told, here, rendezvous) = (Arc::clone(notes), messenger.clone(), rendezvous.clone());
    messenger.spawn(async move {
        let mut seen = None;
        loop {
            let view = here.view_other_than(seen).await;
            seen = view.as_ref().map(|view| view.id());
            if let Some(view) = view {
                told.add(Note::Installed { by: here.id(), cluster: rendezvous.cluster(), view });
            }
        }
    });
    Ok(())
}

impl Running {
    pub(super) fn id(&self) -> MemberId {
        self.messenger.id()
    }

    /// One more host of some of the keys, or one less.
    pub(super) fn change_actors(&mut self, chance: &mut fastrand::Rng) -> Result<(), String> {
        if self.actors.len() > 2 || (!self.actors.is_empty() && chance.u8(..3) == 0) {
            let at = chance.usize(..self.actors.len());
            self.actors.swap_remove(at).stop();
            return Ok(());
        }
        let host = self.node.host();
        let host = match chance.u8(..3) {
            0 => host.on(|Apple, _| async { Ok(()) }),
            1 => host.on(|Pear, _| async { Ok(()) }).on(|Apple, _| async { Ok(()) }),
            _ => host.on(|Plum, _| async { Ok(()) }),
        };
        self.actors.push(host.start().map_err(|error| error.to_string())?);
        Ok(())
    }

    pub(super) fn numbered(number: u64) -> Raw {
        Raw::new(NUMBERED, bytes::Bytes::copy_from_slice(&number.to_le_bytes()))
    }

    /// Runs something of its application: it stands still and dies with the process.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.host.gate_of().hold(task)));
    }
}

pub(super) fn node_address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, (at / 200) as u8, 0, 1 + (at % 200) as u8], 7400))
}
