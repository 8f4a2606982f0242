//! One connection: a client, the target, a lane each way, and the orders that come for it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::counts::add;
use super::fate::{Armed, Deed, Fate};
use super::lane::{Ends, Lane, LaneEnd};
use super::parting::{Parting, arrive, hold, leave, reset, reset_both};
use super::plan::{Direction, Ending, Fault, Rate};
use super::registry::{Admission, Order, Standing};
use super::shared::{Shared, Weather, delay};

/// A target that does not answer counts as unreachable after this.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// What is asked for when a rate limit is lifted: the kernel no longer sizes a buffer that was once set by
/// hand. The usual ceiling of its own sizing (`tcp_wmem`); it grants what its limits allow.
const SOCKET_BUFFER_BYTES: u32 = 4 * 1024 * 1024;

/// Joins a client to the target, until one of them or a fault ends it.
pub(super) async fn serve(client: TcpStream, admission: Admission, shared: Arc<Shared>) {
    let Admission { connection, orders, stop } = admission;
    // Removed however this task ends.
    let _removal = Removal { connection, shared: &shared };
    let weather = shared.weather.subscribe();
    let rate = weather.borrow().rate();
    let server = tokio::select! {
        () = stop.cancelled() => return,
        server = connect(shared.target(), rate) => server,
    };
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(connection, %error, "target unreachable");
            add(&shared.counters.unreachable, 1);
            return reset(client);
        }
    };
    add(&shared.counters.connections, 1);
    let mut link = Link::new(connection, client, server, &shared);
    let parting = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        parting = link.run(orders, weather) => parting,
    };
    let (client, server) = link.into_sockets();
    match parting {
        Parting::Close => {}
        Parting::Reset => reset_both(client, server),
        Parting::ResetAfter(direction) => {
            shared.registry().stand(connection, Standing::Leaving);
            let sink = match direction {
                Direction::Up => &server,
                Direction::Down => &client,
            };
            arrive(sink, stop).await;
            reset_both(client, server);
        }
        Parting::Fin => {
            shared.registry().stand(connection, Standing::Leaving);
            leave(client, server, stop).await;
        }
        Parting::Hold { drain } => {
            shared.registry().stand(connection, Standing::Held);
            hold(client, server, drain, stop).await;
        }
    }
}

struct Removal<'a> {
    connection: u64,
    shared: &'a Shared,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.shared.registry().remove(self.connection);
    }
}

async fn connect(target: SocketAddr, rate: Option<Rate>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(rate) = rate {
        // Before connecting, so that the first window is small already.
        socket.set_recv_buffer_size(rate.buffer_bytes)?;
        socket.set_send_buffer_size(rate.buffer_bytes)?;
    }
    timeout(CONNECT_MAX, socket.connect(target)).await?
}

struct Link<'a> {
    connection: u64,
    client: TcpStream,
    server: TcpStream,
    up: Lane,
    down: Lane,
    /// As it was last seen.
    weather: Weather,
    shared: &'a Shared,
}

/// What the link's task woke up for.
enum Turn {
    Weather(Weather),
    Order(Order),
    Lane(Direction, LaneEnd),
}

impl<'a> Link<'a> {
    fn new(connection: u64, client: TcpStream, server: TcpStream, shared: &'a Shared) -> Link<'a> {
        for stream in [&client, &server] {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(connection, %error, "no TCP_NODELAY");
            }
        }
        let lane =
            |direction| Lane::new(connection, direction, Fate::new(&shared.plan, connection, direction));
        Link {
            connection,
            client,
            server,
            up: lane(Direction::Up),
            down: lane(Direction::Down),
            weather: Weather::default(),
            shared,
        }
    }

    /// Only the sockets: the buffers are dropped.
    fn into_sockets(self) -> (TcpStream, TcpStream) {
        (self.client, self.server)
    }

    async fn run(
        &mut self,
        mut orders: mpsc::Receiver<Order>,
        mut weather: watch::Receiver<Weather>,
    ) -> Parting {
        weather.mark_changed();
        loop {
            let turn = tokio::select! {
                biased;
                Ok(()) = weather.changed() => Turn::Weather(*weather.borrow_and_update()),
                turn = poll_fn(|cx| self.poll_turn(cx, &mut orders)) => turn,
            };
            let parting = match turn {
                Turn::Weather(weather) => self.set_weather(weather),
                Turn::Order(order) => self.obey(order),
                Turn::Lane(direction, end) => self.lane_ended(direction, end),
            };
            if let Some(parting) = parting {
                return parting;
            }
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, orders: &mut mpsc::Receiver<Order>) -> Poll<Turn> {
        // None once it is evicted; then its stop comes.
        if let Poll::Ready(Some(order)) = orders.poll_recv(cx) {
            return Poll::Ready(Turn::Order(order));
        }
        let (client, server, shared) = (&self.client, &self.server, self.shared);
        let news = || !orders.is_empty() || *shared.weather.borrow() != self.weather;
        if let Poll::Ready(end) = self.up.poll(cx, Ends { source: client, sink: server, shared }, news) {
            return Poll::Ready(Turn::Lane(Direction::Up, end));
        }
        let end = self.down.poll(cx, Ends { source: server, sink: client, shared }, news);
        end.map(|end| Turn::Lane(Direction::Down, end))
    }

    fn set_weather(&mut self, weather: Weather) -> Option<Parting> {
        let before = std::mem::replace(&mut self.weather, weather);
        if weather.heals > before.heals {
            self.up.fate.heal();
            self.down.fate.heal();
        }
        self.set_delay(weather.delay());
        self.set_rate(weather.rate());
        None
    }

    fn obey(&mut self, Order { fault, scheduled, heals }: Order) -> Option<Parting> {
        if heals < self.weather.heals || scheduled && !self.shared.budgets.take(&fault) {
            return None;
        }
        match fault {
            Fault::Reset => {
                self.note(fault);
                Some(Parting::Reset)
            }
            Fault::Silence { drain } => {
                self.note(fault);
                Some(Parting::Hold { drain })
            }
            Fault::OneWay { silent, drain } => self.fall_silent(silent, drain, scheduled),
            Fault::Cut { direction, after_bytes, ending } => {
                self.arm(direction, after_bytes, Deed::Cut(ending))
            }
            Fault::Flip { direction, after_bytes, bit } => {
                self.arm(direction, after_bytes, Deed::Flip(1 << (bit % 8)))
            }
            Fault::Delay { ms } => {
                self.set_delay(delay(ms));
                None
            }
            Fault::Rate { bytes_per_second, buffer_bytes } => {
                self.set_rate(Some(Rate { bytes_per_second, buffer_bytes }));
                None
            }
            // For the acceptor, not for a connection.
            Fault::Refuse { .. } => None,
        }
    }

    fn fall_silent(&mut self, silent: Direction, drain: bool, scheduled: bool) -> Option<Parting> {
        let fault = Fault::OneWay { silent, drain };
        if !self.lane(silent).silence(drain) {
            if scheduled {
                self.shared.budgets.give_back(&fault);
            }
            return None;
        }
        self.note(fault);
        let other = self.lane(silent.reverse());
        // Both silent, or nothing left to come the other way.
        (other.is_silent() || other.is_shut()).then_some(Parting::Hold { drain })
    }

    fn arm(&mut self, direction: Direction, after_bytes: u64, deed: Deed) -> Option<Parting> {
        let lane = self.lane(direction);
        let at = lane.forwarded().saturating_add(after_bytes);
        if !lane.fate.arm(Armed { at, deed, scheduled: false }) {
            tracing::debug!(connection = self.connection, "too many cuts and flips wait already");
        }
        None
    }

    fn lane_ended(&mut self, direction: Direction, end: LaneEnd) -> Option<Parting> {
        let other = self.lane(direction.reverse());
        match end {
            LaneEnd::Cut(Ending::Rst) => Some(Parting::ResetAfter(direction)),
            LaneEnd::Cut(Ending::Fin) => Some(Parting::Fin),
            LaneEnd::Finished if other.is_shut() => Some(Parting::Close),
            // The end does not pass through the silent direction.
            LaneEnd::Finished if other.is_silent() => Some(Parting::Hold { drain: false }),
            LaneEnd::Finished => None,
            // Nor does the news that the receiving side is gone.
            LaneEnd::SinkLost(_) if other.is_silent() => Some(Parting::Hold { drain: false }),
            LaneEnd::SinkLost(error) | LaneEnd::SourceLost(error) => {
                tracing::trace!(connection = self.connection, %error, "one side is gone");
                Some(Parting::Reset)
            }
        }
    }

    fn set_delay(&mut self, delay: Duration) {
        let changed = self.up.delay != delay;
        (self.up.delay, self.down.delay) = (delay, delay);
        if changed && !delay.is_zero() {
            // At most one hour.
            self.note(Fault::Delay { ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX) });
        }
    }

    fn set_rate(&mut self, rate: Option<Rate>) {
        if self.up.rate() == rate.map(Rate::normal) {
            return;
        }
        self.up.set_rate(rate);
        self.down.set_rate(rate);
        let buffer_bytes = rate.map_or(SOCKET_BUFFER_BYTES, |rate| rate.buffer_bytes);
        for stream in [&self.client, &self.server] {
            set_buffers(stream, buffer_bytes);
        }
        if let Some(Rate { bytes_per_second, buffer_bytes }) = rate {
            self.note(Fault::Rate { bytes_per_second, buffer_bytes });
        }
    }

    fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn note(&self, fault: Fault) {
        self.shared.note(self.connection, fault, || self.to_string());
    }
}

impl fmt::Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} bytes up, {} down", self.up.forwarded(), self.down.forwarded())
    }
}

fn set_buffers(stream: &TcpStream, bytes: u32) {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let socket = SockRef::from(stream);
    if let Err(error) = socket.set_recv_buffer_size(bytes).and_then(|()| socket.set_send_buffer_size(bytes)) {
        tracing::debug!(%error, bytes, "socket buffers unchanged");
    }
}
