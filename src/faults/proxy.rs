//! The proxy: listens, joins clients to the target, and is told what to break.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::DropGuard;

use super::counts::{FaultCounts, add};
use super::events::FaultEvents;
use super::link::serve;
use super::parting::reset;
use super::plan::{Fault, Plan, Rate};
use super::registry::Admission;
use super::scheduler::follow;
use super::shared::{Shared, Weather, delay};

/// Clients the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running proxy. Dropping it stops everything: the listener, all connections, also the silent ones.
#[derive(Debug)]
#[must_use = "a proxy stops when it is dropped"]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    _stop: DropGuard,
}

impl Proxy {
    /// Listens on `listen` (port 0 for any), forwards to `target` and follows the plan from now on.
    ///
    /// # Errors
    /// If there is no tokio runtime, or the address cannot be bound. Nothing runs then.
    ///
    /// # Panics
    /// If the runtime was built without its network or time driver.
    pub fn start(listen: SocketAddr, target: SocketAddr, plan: Plan) -> io::Result<Proxy> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let listener = bind(listen, plan.rate)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(plan, target));
        shared.tasks.spawn_on(accept(listener, Arc::clone(&shared)), &runtime);
        shared.tasks.spawn_on(follow(Arc::clone(&shared)), &runtime);
        let stop = shared.stop.clone().drop_guard();
        Ok(Proxy { shared, address, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened so far.
    pub fn counts(&self) -> FaultCounts {
        self.shared.counts()
    }

    /// A feed of the faults that take effect from now on.
    pub fn events(&self) -> FaultEvents {
        FaultEvents::new(self.shared.subscribe())
    }

    /// Where new connections go from now on.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.set_target(target);
    }

    /// Applies a fault to all connections that are not silent; returns how many it was handed to, 0 for a
    /// refusal.
    ///
    /// No byte sent after this returns is forwarded before the fault took effect; [`Proxy::counts`] says when
    /// it did. An injected delay or rate holds for these connections until the delay or rate for all changes.
    /// At most 64 cuts and flips wait in one direction of a connection, and 16 faults for one that is not
    /// joined yet; more are dropped.
    pub fn inject(&self, fault: Fault) -> usize {
        if let Fault::Refuse { ms } = fault {
            self.shared.refuse(ms);
            return 0;
        }
        self.shared.order(fault, false, |_| {})
    }

    /// Limits the rate of all connections, new ones too, or lifts the limit.
    pub fn set_rate(&self, rate: Option<Rate>) {
        self.shared.weather.send_modify(|weather| (weather.calm_rate, weather.spell_rate) = (rate, None));
    }

    /// Delays all connections, new ones too, or lifts the delay. At most one hour, in whole milliseconds.
    pub fn set_delay(&self, time: Option<Duration>) {
        let ms = time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.shared
            .weather
            .send_modify(|weather| (weather.calm_delay, weather.spell_delay) = (delay(ms), None));
    }

    /// Ends it all: no more scheduled faults, waiting cuts and flips are disarmed, delay, rate and refusal
    /// lifted. What is silent stays so. Faults can still be injected and rates and delays be set.
    pub fn heal(&self) {
        self.shared.healed.cancel();
        self.shared.weather.send_modify(|weather| {
            *weather = Weather { heals: weather.heals.saturating_add(1), ..Weather::default() };
        });
        self.shared.refuse(0);
    }

    /// Stops everything and waits until all sockets are closed. Cancel safe: dropped early, everything stops
    /// all the same, only nobody waits for it.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// Small buffers, if any, are set before listening: accepted sockets inherit them, and the first window is
/// small.
fn bind(listen: SocketAddr, rate: Option<Rate>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if let Some(rate) = rate {
        let bytes = usize::try_from(rate.buffer_bytes).unwrap_or(usize::MAX);
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => match shared.refuses() {
                Some(left) => refuse(client, left, &shared),
                None => admit(client, &shared),
            },
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn refuse(client: TcpStream, left: Duration, shared: &Shared) {
    reset(client);
    let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    shared.note(0, Fault::Refuse { ms }, || format!("refuses for {ms} ms more"));
}

fn admit(client: TcpStream, shared: &Arc<Shared>) {
    match make_room(shared) {
        Some(admission) => {
            shared.tasks.spawn(serve(client, admission, Arc::clone(shared)));
        }
        None => {
            reset(client);
            add(&shared.counters.turned_away, 1);
        }
    }
}

/// Room for one more connection, of the oldest silent one if need be.
fn make_room(shared: &Shared) -> Option<Admission> {
    let mut registry = shared.registry();
    if registry.is_full() {
        if !registry.evict() {
            return None;
        }
        add(&shared.counters.evicted, 1);
    }
    Some(registry.admit(shared.stop.child_token()))
}
