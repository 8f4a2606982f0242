//! Who is at an address? A contact asks, with a hello to anyone, until somebody answers with an id. Only then there is
//! a peer, and a session.

use std::time::{Duration, Instant};

use super::handshake::is_for_good;
use super::{Backoff, DialRequest, Place, Surroundings};
use crate::link::LinkId;
use crate::member::MemberId;
use crate::wire::FirstBytes;
use crate::wire::first::{self, Code};

/// What came of a search.
#[derive(Debug)]
pub(crate) enum Finding {
    /// This member is there.
    Found(MemberId),
    /// Who is there will never be met: another network, no common version, a certificate that does not fit. Says why.
    Refused(String),
    /// Nobody answered in time; the last thing that was seen.
    GaveUp(String),
}

#[derive(Debug)]
enum State {
    Waiting(Instant),
    Asking { link: LinkId, deadline: Instant },
    Over,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Search {
    with: Surroundings,
    place: Place,
    backoff: Backoff,
    state: State,
    give_up: Option<Instant>,
    last: String,
}

impl Search {
    /// Starts at once. With `give_up` it ends after that time; without it only with an answer.
    pub(crate) fn new(
        with: Surroundings,
        place: impl Into<Place>,
        now: Instant,
        give_up: Option<Duration>,
        seed: u64,
    ) -> Self {
        Self {
            backoff: Backoff::new(with.config.backoff, seed),
            with,
            place: place.into(),
            state: State::Waiting(now),
            give_up: give_up.map(|after| now + after),
            last: "nothing was heard".to_owned(),
        }
    }

    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<DialRequest> {
        match self.state {
            State::Waiting(until) if until <= now => {
                let link = self.with.counters.link();
                self.state = State::Asking { link, deadline: now + self.with.config.connect };
                Some(DialRequest { link, place: self.place.clone() })
            }
            State::Waiting(_) | State::Asking { .. } | State::Over => None,
        }
    }

    /// The connection stands: what to write on it.
    pub(crate) fn handle_connected(&mut self, now: Instant, link: LinkId) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Asking { link: asked, deadline } if *asked == link => {
                *deadline = now + self.with.config.hello;
                Some(first::encode(&FirstBytes::Hello(Box::new(self.with.me.question()))))
            }
            State::Waiting(_) | State::Asking { .. } | State::Over => None,
        }
    }

    /// The first bytes that came back. The connection is closed in any case.
    pub(crate) fn handle_reply(&mut self, now: Instant, link: LinkId, reply: FirstBytes) -> Option<Finding> {
        if !matches!(self.state, State::Asking { link: asked, .. } if asked == link) {
            return None;
        }
        match reply {
            FirstBytes::Reject(reject) => match (reject.code, reject.from) {
                (Code::WrongMember, Some(found)) => {
                    self.state = State::Over;
                    Some(Finding::Found(found))
                }
                (code, _) if is_for_good(code) => {
                    self.state = State::Over;
                    tracing::warn!(place = %self.place.endpoint, "refused: {code:?}: {}", reject.text);
                    Some(Finding::Refused(reject.text))
                }
                (code, _) => {
                    self.again(now, format!("refused: {code:?}: {}", reject.text));
                    None
                }
            },
            FirstBytes::Answer(_) | FirstBytes::Hello(_) => {
                self.again(now, "who is there answered what was not asked".to_owned());
                None
            }
        }
    }

    /// The dial came to nothing.
    pub(crate) fn handle_failed(&mut self, now: Instant, link: LinkId, why: String) {
        if matches!(self.state, State::Asking { link: asked, .. } if asked == link) {
            self.again(now, why);
        }
    }

    fn again(&mut self, now: Instant, why: String) {
        self.last = why;
        self.state = State::Waiting(now + self.backoff.next());
    }

    /// Ends it: that was the last attempt.
    pub(crate) fn give_up(&mut self) -> Finding {
        let in_time = !matches!(self.state, State::Asking { .. });
        self.state = State::Over;
        if !in_time {
            return Finding::GaveUp("no answer in time".to_owned());
        }
        Finding::GaveUp(std::mem::take(&mut self.last))
    }

    /// Ends an attempt that takes too long, and the search when its time is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Finding> {
        if self.give_up.is_some_and(|at| at <= now) {
            self.state = State::Over;
            return Some(Finding::GaveUp(std::mem::take(&mut self.last)));
        }
        if let State::Asking { deadline, .. } = self.state
            && deadline <= now
        {
            self.again(now, "no answer in time".to_owned());
        }
        None
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next = match self.state {
            State::Waiting(until) => until,
            State::Asking { deadline, .. } => deadline,
            State::Over => return None,
        };
        Some(self.give_up.map_or(next, |at| at.min(next)))
    }
}
