//! Two processes joined by simulated connections. Does what the driver does; time moves only from event to event.

use std::time::{Duration, Instant};

use super::super::*;
use super::net::{Conn, Door, Net, Stage, Told};
use super::side::{CREDIT, NORMAL, Side, push};
use crate::session::{Lost, Receipt};

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// More steps than that without an end are a storm.
pub(super) const STEPS_MAX: usize = 200_000;

/// A message that somebody sent; its tag is its place, from 1.
pub(super) struct Message {
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    receipt: Receipt,
    pub(super) times: u32,
}

/// See the module's text.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) sides: [Side; 2],
    pub(super) conns: Vec<Conn>,
    pub(super) net: Net,
    pub(super) messages: Vec<Message>,
    credit_bytes: u64,
    incarnations: u128,
}

impl Pair {
    pub(super) fn new(credit_bytes: u64) -> Self {
        let ids = [MemberId::from_parts(1, 1), MemberId::from_parts(2, 2)];
        let mut seed = 0;
        let sides = ids.map(|id| {
            seed += 1000;
            Side::new(id, credit_bytes, seed)
        });
        let delay = Duration::from_millis(1);
        let net = Net { doors: [Door::Open; 2], delays: [delay; 2], fates: VecDeque::new() };
        let messages = Vec::new();
        Self { now: Instant::now(), sides, conns: Vec::new(), net, messages, credit_bytes, incarnations: 2 }
    }

    /// A holds a contact to B, nothing is dialled yet.
    pub(super) fn contact() -> Self {
        let mut pair = Self::new(CREDIT);
        pair.add_contact(A);
        pair
    }

    /// A has dialled B, both have the link and know each other's types.
    pub(super) fn linked() -> Self {
        let mut pair = Self::contact();
        pair.settle();
        assert!(pair.same_link().is_some());
        pair
    }

    // ---- what tests do ----

    pub(super) fn id(&self, side: usize) -> MemberId {
        self.sides[side].id
    }

    pub(super) fn add_contact(&mut self, side: usize) {
        let (now, of) = (self.now, self.id(1 - side));
        let endpoint: crate::member::Endpoint = "10.0.0.1:7400".parse().unwrap();
        self.sides[side].room(of).peer.add_contact(now, ContactId(1), endpoint);
    }

    /// The peer that stands for the other side.
    pub(super) fn peer(&mut self, side: usize) -> &mut Peer {
        let of = self.id(1 - side);
        &mut self.sides[side].room(of).peer
    }

    pub(super) fn has_peer(&self, side: usize) -> bool {
        self.sides[side].rooms.contains_key(&self.id(1 - side))
    }

    pub(super) fn accounts(&mut self, side: usize) -> crate::session::Accounts {
        self.peer(side).session().accounts()
    }

    pub(super) fn send(&mut self, side: usize, bytes: usize) -> u32 {
        self.send_on(side, NORMAL, bytes).expect("the peer takes messages")
    }

    /// `None`: this side has no such peer, or its intake is closed.
    pub(super) fn send_on(&mut self, side: usize, stream: StreamId, bytes: usize) -> Option<u32> {
        if !self.has_peer(side) {
            return None;
        }
        let tag = self.messages.len() as u32 + 1;
        let intake = Arc::clone(self.peer(side).session().intake());
        let receipt = push(&intake, stream, tag, bytes).ok()?;
        self.messages.push(Message { from: self.id(side), to: self.id(1 - side), receipt, times: 0 });
        self.poll();
        Some(tag)
    }

    pub(super) fn end_of(&self, tag: u32) -> Option<Result<(), Lost>> {
        self.messages[tag as usize - 1].receipt.now()
    }

    /// The newest connection breaks.
    pub(super) fn break_link(&mut self, told: Told) {
        let now = self.now;
        if let Some(conn) = self.conns.last_mut() {
            conn.break_now(told, now);
        }
        self.pump();
    }

    /// A side's process ends and another begins at its address. The kernel tells the other side, or does not.
    pub(super) fn restart(&mut self, side: usize, told: Told) {
        self.incarnations += 1;
        let id = MemberId::from_parts(self.incarnations as u64, self.incarnations);
        self.lose_sockets(side, told, |_| true);
        self.sides[side] = Side::new(id, self.credit_bytes, 77 + self.incarnations as u64);
        self.pump();
    }

    /// A side ends the session without a word that comes through, as if its lease had expired. Its contact stays.
    pub(super) fn forget(&mut self, side: usize) {
        let of = self.id(1 - side);
        self.lose_sockets(side, Told::Nobody, |link| link.is_some_and(|(peer, _)| peer == of));
        let Some(mut room) = self.sides[side].rooms.remove(&of) else { return };
        let dialled = room.peer.reasons.may_dial();
        room.peer.end(Cause::SessionLost);
        while let Some(output) = room.peer.poll_output() {
            // What was accepted is delivered also then.
            if let PeerOutput::Deliver { epoch, delivery } = output {
                self.deliver(side, of, epoch, &delivery);
            }
        }
        if let Some(room) = self.sides[side].rooms.get_mut(&of) {
            room.held.clear();
        }
        drop(room);
        self.sides[side].rooms.remove(&of);
        if dialled {
            self.add_contact(side);
        }
        self.pump();
    }

    fn lose_sockets(&mut self, side: usize, told: Told, which: impl Fn(Option<(MemberId, LinkId)>) -> bool) {
        let now = self.now;
        let open = |conn: &&mut Conn| conn.ends[side].stage != Stage::Closed && which(conn.ends[side].link);
        for conn in self.conns.iter_mut().filter(open) {
            if !conn.broken {
                conn.break_now(told, now);
            }
            conn.close(side, now);
        }
    }

    // ---- time ----

    fn next(&self) -> Option<Instant> {
        let conns = self.conns.iter().filter_map(|conn| conn.next().map(|(at, _)| at));
        let rooms = self.sides.iter().flat_map(|side| side.rooms.values());
        conns.chain(rooms.filter_map(|room| room.peer.poll_timeout())).min()
    }

    /// What happens next, if it happens by `until`.
    fn step(&mut self, until: Instant) -> bool {
        self.poll();
        let Some(next) = self.next().filter(|next| *next <= until) else { return false };
        self.now = self.now.max(next);
        self.arrivals();
        let now = self.now;
        for room in self.sides.iter_mut().flat_map(|side| side.rooms.values_mut()) {
            if room.peer.poll_timeout().is_some_and(|at| at <= now) {
                room.peer.handle_timeout(now);
            }
        }
        self.poll();
        true
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let done = (0..STEPS_MAX).any(|_| !self.step(until));
        assert!(done, "a storm");
        self.now = until;
    }

    /// Runs until it holds, and tells how long that took.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        for _ in 0..STEPS_MAX {
            if holds(self) {
                return self.now - start;
            }
            assert!(self.step(start + limit), "not within {limit:?}: {what}");
        }
        panic!("a storm before: {what}");
    }

    /// For whatever needs a few round trips.
    pub(super) fn settle(&mut self) {
        self.run(Duration::from_millis(200));
    }

    // ---- what must hold ----

    /// The connection that is live at both sides.
    pub(super) fn same_link(&self) -> Option<usize> {
        let is = |conn: &Conn| !conn.broken && conn.ends.iter().all(|end| end.stage == Stage::Live);
        let found = self.conns.iter().position(is)?;
        let live = |side: usize| {
            let room = self.sides[side].rooms.get(&self.id(1 - side));
            room.is_some_and(|room| {
                let link = self.conns[found].ends[side].link;
                room.peer.live_link().map(|live| (self.id(1 - side), live)) == link
            })
        };
        (live(A) && live(B)).then_some(found)
    }

    pub(super) fn is_drained(&self) -> bool {
        let rooms = || self.sides.iter().flat_map(|side| side.rooms.values());
        rooms().all(|room| room.peer.session().is_drained() && room.peer.session().is_handled())
    }

    pub(super) fn check(&self) {
        for side in [A, B] {
            self.sides[side].check();
            for (of, room) in &self.sides[side].rooms {
                let open = |conn: &&Conn| {
                    let end = &conn.ends[side];
                    end.stage == Stage::Live && end.link.is_some_and(|(peer, _)| peer == *of)
                };
                let open: Vec<_> = self.conns.iter().filter(open).map(|conn| conn.ends[side].link).collect();
                let live = room.peer.live_link().map(|live| Some((*of, live)));
                assert_eq!(open, Vec::from_iter(live), "one live link a side at most, the others are closed");
            }
        }
    }

    /// Each message that ended came as often as its end says; with `lossless` each came.
    pub(super) fn check_ends(&self, lossless: bool) {
        for (at, message) in self.messages.iter().enumerate() {
            let (tag, times) = (at + 1, message.times);
            match message.receipt.now() {
                Some(Ok(())) => assert_eq!(times, 1, "{tag} was acknowledged"),
                Some(Err(Lost::NotSent(_))) => assert_eq!(times, 0, "{tag} was not sent"),
                Some(Err(Lost::Indeterminate(_))) => assert!(times <= 1),
                None => panic!("{tag} never ended"),
            }
            assert!(!lossless || message.receipt.now() == Some(Ok(())), "{tag}: {:?}", message.receipt.now());
        }
    }

    /// Heals nothing by itself: waits until both sides are drained and on the same link, then checks every end.
    pub(super) fn finish(&mut self, limit: Duration, lossless: bool) -> Duration {
        let took = self
            .run_until(limit, "drained, on one link", |pair| pair.same_link().is_some() && pair.is_drained());
        self.settle();
        assert!(self.same_link().is_some() && self.is_drained(), "and it stays so");
        for room in [A, B].into_iter().filter_map(|side| self.sides[side].rooms.get(&self.id(1 - side))) {
            assert!(!room.peer.health.is_ill(), "all is well, and that was told: {:?}", room.peer.health);
        }
        self.check_ends(lossless);
        took
    }
}
