//! The connections a proxy holds, and how orders reach them.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::plan::Fault;

/// Orders that wait for a connection that is not yet joined to the target; more are not handed over.
const ORDERS_LEN: usize = 16;

/// A fault for one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) fault: Fault,
    pub(super) scheduled: bool,
    /// How often everything had been healed before.
    pub(super) heals: u32,
}

/// What a connection's task is given.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) connection: u64,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) stop: CancellationToken,
}

/// No more orders are taken in any but the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Live,
    /// Silent in both directions; gives way when the proxy is full.
    Held,
    /// Cut, waiting for both sides to close.
    Leaving,
}

#[derive(Debug)]
struct Entry {
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
    standing: Standing,
}

#[derive(Debug)]
pub(super) struct Registry {
    connections_max: usize,
    last: u64,
    entries: BTreeMap<u64, Entry>,
    /// Numbers of the silent ones, oldest silence first.
    held: VecDeque<u64>,
}

impl Registry {
    pub(super) fn new(connections_max: usize) -> Registry {
        Registry { connections_max, last: 0, entries: BTreeMap::new(), held: VecDeque::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.connections_max
    }

    /// Drops the connection that has been silent longest; false if none is silent.
    pub(super) fn evict(&mut self) -> bool {
        let Some(entry) = self.held.pop_front().and_then(|oldest| self.entries.remove(&oldest)) else {
            return false;
        };
        entry.stop.cancel();
        true
    }

    pub(super) fn admit(&mut self, stop: CancellationToken) -> Admission {
        debug_assert!(!self.is_full());
        self.last += 1;
        let (sender, orders) = mpsc::channel(ORDERS_LEN);
        let entry = Entry { orders: sender, stop: stop.clone(), standing: Standing::Live };
        self.entries.insert(self.last, entry);
        Admission { connection: self.last, orders, stop }
    }

    pub(super) fn stand(&mut self, connection: u64, standing: Standing) {
        // Evicted in the meantime if it is not there.
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        entry.standing = standing;
        if standing == Standing::Held {
            self.held.push_back(connection);
        }
    }

    pub(super) fn remove(&mut self, connection: u64) {
        if self.entries.remove(&connection).is_some_and(|entry| entry.standing == Standing::Held) {
            self.held.retain(|held| *held != connection);
        }
    }

    /// The numbers of the live ones, ascending.
    pub(super) fn live(&self) -> Vec<u64> {
        let live = |entry: &Entry| entry.standing == Standing::Live;
        self.entries.iter().filter(|(_, entry)| live(entry)).map(|(connection, _)| *connection).collect()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Hands an order over; false if the connection is gone or has too many waiting.
    pub(super) fn order(&self, connection: u64, order: Order) -> bool {
        self.entries.get(&connection).is_some_and(|entry| entry.orders.try_send(order).is_ok())
    }
}
