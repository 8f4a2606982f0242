//! The link: one connection's life after the handshake. Keep-alive, deadlines, and the frames in its bytes.
//!
//! Sans-IO. The handshake itself is decided in [`crate::peer`], because it is about sessions.

mod reader;

pub(crate) use reader::FrameReader;

use std::time::{Duration, Instant};

use crate::session::{ProtocolError, Transmit};
use crate::wire::Frame;
use crate::wire::first::Code;

/// Names one link of a process; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// Why a link is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The other side ended it without a word.
    End,
    /// The operating system says so: reset, unreachable, timed out.
    Io(std::io::ErrorKind),
    /// Nothing was heard for the liveness time.
    Silence,
    /// Nothing that was to be written was taken for the liveness time.
    WriteStalled,
    /// The peer misbehaved, or bytes changed on the way.
    Protocol(ProtocolError),
    /// The other side closed it, and said why.
    Closed(Code, String),
    /// Another link took its place.
    Superseded,
}

/// Times of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkConfig {
    /// Idle for so long: ask.
    pub(crate) ping: Duration,
    /// Silent for so long: dead.
    pub(crate) liveness: Duration,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Link {
    id: LinkId,
    config: LinkConfig,
    heard: Instant,
    /// When bytes of ours were last taken.
    said: Instant,
    /// When it was last decided to ask.
    pinged: Instant,
    nonce: u64,
    asked: Option<(u64, Instant)>,
    answer: Option<u64>,
    ping_due: bool,
    /// Bytes wait to be written, and none was taken since then.
    stalled_since: Option<Instant>,
    rtt: Option<Duration>,
    /// How long ago the peer last heard us, by its own word.
    heard_by_peer: Option<Duration>,
}

impl Link {
    pub(crate) fn new(id: LinkId, config: LinkConfig, now: Instant) -> Self {
        Self {
            id,
            config,
            heard: now,
            said: now,
            pinged: now,
            nonce: 0,
            asked: None,
            answer: None,
            ping_due: false,
            stalled_since: None,
            rtt: None,
            heard_by_peer: None,
        }
    }

    pub(crate) const fn id(&self) -> LinkId {
        self.id
    }

    /// The last round trip measured by a ping.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Bytes came, whatever they are: a slow large frame is no silence.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When to ask, unless something is heard and something is said before. Both: while a slow large frame comes in
    /// there is nothing to acknowledge, and its sender, whose own pings wait behind it, must hear that we live.
    fn ping_at(&self) -> Instant {
        self.heard.min(self.said).max(self.pinged) + self.config.ping
    }

    /// The link's own frames; the others are the session's.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &Frame) {
        match frame {
            Frame::Ping { nonce, heard_millis } => {
                self.answer = Some(*nonce);
                self.heard_by_peer = Some(Duration::from_millis((*heard_millis).into()));
            }
            Frame::Pong { nonce, heard_millis } => {
                self.heard_by_peer = Some(Duration::from_millis((*heard_millis).into()));
                if let Some((_, asked)) = self.asked.take_if(|(asked, _)| asked == nonce) {
                    self.rtt = Some(now.saturating_duration_since(asked));
                }
            }
            Frame::Batch(_)
            | Frame::Datagram(_)
            | Frame::Ack(_)
            | Frame::Types(_)
            | Frame::Joined(_)
            | Frame::Goodbye { .. }
            | Frame::Close { .. }
            | Frame::Unknown => {}
        }
    }

    /// How writing goes: whether the last attempt took bytes, and whether some are left.
    pub(crate) fn handle_written(&mut self, now: Instant, took: bool, left: bool) {
        if took {
            self.said = now;
        }
        if !left {
            self.stalled_since = None;
        } else if took || self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
    }

    /// Asks at once whether the other side is there; for a round trip that is measured now.
    pub(crate) fn ping_now(&mut self) {
        self.ping_due = true;
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkEnd> {
        if now >= self.heard + self.config.liveness {
            return Err(LinkEnd::Silence);
        }
        if self.stalled_since.is_some_and(|since| now >= since + self.config.liveness) {
            return Err(LinkEnd::WriteStalled);
        }
        if now >= self.ping_at() {
            self.ping_due = true;
            self.pinged = now;
        }
        Ok(())
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) {
        let heard_millis = u32::try_from(now.saturating_duration_since(self.heard).as_millis());
        let heard_millis = heard_millis.unwrap_or(u32::MAX);
        if let Some(nonce) = self.answer.take() {
            out.push(out.encode(&Frame::Pong { nonce, heard_millis }));
        }
        if std::mem::take(&mut self.ping_due) {
            self.nonce += 1;
            self.asked = Some((self.nonce, now));
            out.push(out.encode(&Frame::Ping { nonce: self.nonce, heard_millis }));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let dead = self.heard + self.config.liveness;
        let stalled = self.stalled_since.map_or(dead, |since| since + self.config.liveness);
        self.ping_at().min(dead).min(stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: LinkConfig =
        LinkConfig { ping: Duration::from_millis(1500), liveness: Duration::from_secs(5) };

    /// Lets the link's own timers run until it dies or `limit` is over; how long it lived and how often it asked.
    fn run(link: &mut Link, from: Instant, limit: Duration) -> (Option<LinkEnd>, Duration, usize) {
        let mut pings = 0;
        let mut now = from;
        for _ in 0..1_000 {
            now = link.poll_timeout().max(now);
            if now > from + limit {
                return (None, limit, pings);
            }
            if let Err(end) = link.handle_timeout(now) {
                return (Some(end), now - from, pings);
            }
            let mut out = Transmit::default();
            link.poll_transmit(now, &mut out);
            pings += out.parts.len();
        }
        panic!("the timers stand still");
    }

    #[test]
    fn a_silent_link_is_asked_thrice_and_dies_at_liveness() {
        let start = Instant::now();
        let mut link = Link::new(LinkId(1), CONFIG, start);
        assert_eq!(run(&mut link, start, CONFIG.liveness * 2), (Some(LinkEnd::Silence), CONFIG.liveness, 3));
    }

    #[test]
    fn a_link_that_takes_no_bytes_dies_though_it_is_heard() {
        let start = Instant::now();
        let mut link = Link::new(LinkId(1), CONFIG, start);
        link.handle_written(start, true, true);
        for second in 1..5 {
            let now = start + Duration::from_secs(second);
            link.handle_heard(now);
            link.handle_written(now, false, true);
            assert_eq!(link.handle_timeout(now), Ok(()));
        }
        let late = start + CONFIG.liveness;
        assert_eq!(link.handle_timeout(late), Err(LinkEnd::WriteStalled));
        link.handle_written(late, true, true);
        assert_eq!(link.handle_timeout(late), Ok(()), "one byte taken is progress");
    }

    #[test]
    fn a_link_that_only_hears_says_something_each_ping_time() {
        let start = Instant::now();
        let mut link = Link::new(LinkId(1), CONFIG, start);
        let mut pings = 0;
        for tenth in 0..100 {
            let now = start + Duration::from_millis(100) * tenth;
            link.handle_heard(now);
            assert_eq!(link.handle_timeout(now), Ok(()));
            let mut out = Transmit::default();
            link.poll_transmit(now, &mut out);
            pings += out.parts.len();
            link.handle_written(now, !out.is_empty(), false);
        }
        assert_eq!(pings, 6, "every 1.5 s of 10");
    }

    #[test]
    fn a_ping_is_answered_with_its_nonce_and_measures_the_round_trip() {
        let start = Instant::now();
        let mut link = Link::new(LinkId(1), CONFIG, start);
        link.ping_now();
        link.poll_transmit(start, &mut Transmit::default());
        let later = start + Duration::from_millis(7);
        link.handle_frame(later, &Frame::Pong { nonce: 99, heard_millis: 0 });
        assert_eq!(link.rtt(), None, "somebody else's nonce");
        link.handle_frame(later, &Frame::Pong { nonce: 1, heard_millis: 0 });
        assert_eq!(link.rtt(), Some(Duration::from_millis(7)));
    }
}
