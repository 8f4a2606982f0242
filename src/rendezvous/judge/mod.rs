//! Who has failed: the leader's judgement. Sans-IO; made anew at each election.

mod action;
mod config;

pub(crate) use action::{Action, Evidence, Health, ProbeId, Report};
pub(crate) use config::{JudgeConfig, JudgeConfigError};

use std::time::Instant;

use crate::MemberId;

/// As many have to say that they do not reach a suspect, if there are so many.
const WITNESSES: usize = 3;

/// The leader's judgement of all members.
#[derive(Debug)]
pub(crate) struct Judge {
    config: JudgeConfig,
}

impl Judge {
    /// A new leader counts everybody as heard at `now + settle`. Every choice comes from the seed.
    pub(crate) fn new(
        config: JudgeConfig,
        seed: u64,
        now: Instant,
        members: impl IntoIterator<Item = MemberId>,
    ) -> Self {
        let _ = (seed, now, members.into_iter().count());
        Self { config }
    }

    /// A view holds a new member: it counts as heard now.
    pub(crate) fn handle_joined(&mut self, now: Instant, member: MemberId) {
        let _ = (now, member);
    }

    /// A view does not hold a member any more: all that is known of it is dropped.
    pub(crate) fn handle_left(&mut self, now: Instant, member: MemberId) {
        let _ = (now, member);
    }

    /// A pong, or any other message of a member. To be told before what the message says.
    pub(crate) fn handle_heard(&mut self, now: Instant, member: MemberId) {
        let _ = (now, member);
    }

    /// A member says how its own traffic with another goes.
    pub(crate) fn handle_report(
        &mut self,
        now: Instant,
        reporter: MemberId,
        suspect: MemberId,
        what: Report,
    ) {
        let _ = (now, reporter, suspect, what);
    }

    /// A witness answers a probe: whether it reached the suspect.
    pub(crate) fn handle_probed(&mut self, now: Instant, witness: MemberId, probe: ProbeId, reached: bool) {
        let _ = (now, witness, probe, reached);
    }

    /// Time has passed. To be called at [`Judge::poll_timeout`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let _ = (now, self.config);
    }

    /// When [`Judge::handle_timeout`] is to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What is to be done next; to be asked after each input until there is nothing.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// The health table, in the order of ids.
    pub(crate) fn health(&self) -> impl Iterator<Item = (MemberId, Health)> {
        std::iter::empty()
    }
}
