//! The link: one connection's life after the handshake. Keep-alive, deadlines, and the frames in its bytes.
//!
//! Sans-IO. The handshake itself is decided in [`crate::peer`], because it is about sessions.

#[cfg(any(test, feature = "testing"))]
mod digest;
mod pace;
mod reader;

pub(crate) use pace::Pace;
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
    /// What it brought waited in vain for a view that includes its sender.
    NotInView,
    /// Another link took its place.
    Superseded,
    /// Nothing went through it for long, or there were too many links.
    Idle,
}

/// Times of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkConfig {
    /// Idle for so long: ask.
    pub(crate) ping: Duration,
    /// Silent for so long: dead.
    pub(crate) liveness: Duration,
}

impl LinkConfig {
    /// Of a link that never leaves the process: a process that stood still has not lost itself.
    pub(crate) const WITHIN: Self = {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        Self { ping: CENTURY, liveness: CENTURY }
    };
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Link {
    id: LinkId,
    config: LinkConfig,
    since: Instant,
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
    /// When we spoke: the last time that was noted and the one before, at least half a ping apart.
    spoke: [Instant; 2],
    /// When the next time is noted.
    note_at: Instant,
    /// How long the peer has not heard us, by its own word, though we spoke.
    unheard: Option<Duration>,
}

impl Link {
    pub(crate) fn new(id: LinkId, config: LinkConfig, now: Instant) -> Self {
        Self {
            id,
            config,
            since: now,
            heard: now,
            said: now,
            pinged: now,
            nonce: 0,
            asked: None,
            answer: None,
            ping_due: false,
            stalled_since: None,
            rtt: None,
            spoke: [now; 2],
            note_at: now + config.ping / 2,
            unheard: None,
        }
    }

    pub(crate) const fn id(&self) -> LinkId {
        self.id
    }

    /// When it was adopted.
    pub(crate) const fn since(&self) -> Instant {
        self.since
    }

    /// How long the peer has not heard us, by its own word, though we spoke: two pings or longer.
    pub(crate) const fn unheard(&self) -> Option<Duration> {
        self.unheard
    }

    /// The number of the last ping that was written; each has a higher one than those before it.
    pub(crate) const fn last_ping(&self) -> u64 {
        self.nonce
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
                self.note_heard(now, Duration::from_millis((*heard_millis).into()));
            }
            Frame::Pong { nonce, heard_millis } => {
                self.note_heard(now, Duration::from_millis((*heard_millis).into()));
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

    /// The peer says how long ago it heard us. What it says may have waited here while this process did not run, and
    /// then we did not speak either: so it counts only if something that we said lies well after what was heard
    /// last, and has had time to arrive.
    fn note_heard(&mut self, now: Instant, ago: Duration) {
        let (travel, least) = (self.config.ping / 2, self.config.ping * 2);
        let lost = |said: &Instant| {
            let age = now.saturating_duration_since(*said);
            age >= travel && age + travel <= ago
        };
        if ago < least {
            self.unheard = None;
        } else if self.spoke.iter().any(lost) {
            self.unheard = Some(ago);
        }
    }

    /// How writing goes: whether the last attempt took bytes, and whether some are left.
    pub(crate) fn handle_written(&mut self, now: Instant, took: bool, left: bool) {
        if took {
            self.said = now;
            if now >= self.note_at {
                self.spoke = [self.spoke[1], now];
                self.note_at = now + self.config.ping / 2;
            }
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
    fn a_link_that_takes_no_bytes_is_looked_at_when_it_dies_and_not_before() {
        let start = Instant::now();
        let mut link = Link::new(LinkId(1), CONFIG, start);
        link.handle_written(start, false, true);
        link.handle_heard(start + Duration::from_secs(1));
        link.handle_written(start + Duration::from_secs(1), false, true);
        assert!(link.poll_timeout() > start, "no timer of the past");
    }

    #[test]
    fn who_speaks_all_the_time_and_is_not_heard_learns_it() {
        let start = Instant::now();
        let mut link = Link::new(LinkId(1), CONFIG, start);
        for tenth in 0..100 {
            link.handle_written(start + Duration::from_millis(100) * tenth, true, false);
        }
        let ago = Duration::from_secs(9);
        report(&mut link, start + Duration::from_secs(10), ago);
        assert_eq!(link.unheard(), Some(ago));
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

    /// The peer says, now, that it has not heard us for so long.
    fn report(link: &mut Link, now: Instant, ago: Duration) {
        link.handle_heard(now);
        link.handle_frame(now, &Frame::Ping { nonce: 1, heard_millis: ago.as_millis() as u32 });
    }

    #[test]
    fn a_peer_that_did_not_hear_what_was_said_says_so_and_hears_again() {
        let start = Instant::now();
        let mut link = Link::new(LinkId(1), CONFIG, start);
        for pings in 1..4 {
            let now = start + CONFIG.ping * pings;
            report(&mut link, now, CONFIG.ping * pings);
            assert_eq!(link.unheard().is_some(), pings >= 2, "after {pings}");
            link.handle_written(now, true, false);
        }
        assert_eq!(link.unheard(), Some(CONFIG.ping * 3));
        report(&mut link, start + CONFIG.ping * 4, CONFIG.ping * 2 - Duration::from_millis(1));
        assert_eq!(link.unheard(), None);
    }

    #[test]
    fn a_process_that_did_not_run_was_not_unheard_but_silent() {
        let start = Instant::now();
        for busy in [false, true] {
            let mut link = Link::new(LinkId(1), CONFIG, start);
            let stopped = start + CONFIG.ping * 10;
            for tenth in 0..=150 {
                link.handle_written(start + Duration::from_millis(100) * tenth, true, false);
            }
            // All that was said meanwhile is read at once, and what is said first now comes between.
            let now = stopped + CONFIG.ping * 3 + Duration::from_millis(7);
            for pings in 1..4 {
                if busy {
                    link.handle_written(now, true, false);
                }
                report(&mut link, now, CONFIG.ping * pings);
                assert_eq!(link.unheard(), None, "{pings}");
            }
        }
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
