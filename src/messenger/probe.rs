//! Probes: who answers now.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;

use super::Messenger;
use crate::member::MemberId;
use crate::peer::Answered;

/// What a probe found. Each member that was asked is in one of the three, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "who is silent is said here, and nowhere else"]
pub struct ProbeReport {
    /// Who answered, with the round trip of the ping that was answered, in the order of their ids.
    pub answered: Vec<(MemberId, Duration)>,
    /// Who did not answer in time.
    pub silent: Vec<MemberId>,
    /// Who is not in the view, and there is no session with: not asked.
    pub absent: Vec<MemberId>,
}

impl ProbeReport {
    /// Whether this member answered.
    #[must_use]
    pub fn has_answered(&self, member: MemberId) -> bool {
        self.answered.iter().any(|(answered, _)| *answered == member)
    }

    /// Whether everybody answered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.silent.is_empty() && self.absent.is_empty()
    }
}

/// A member that was asked.
struct Asked {
    member: MemberId,
    answered: watch::Receiver<Answered>,
    round: u64,
}

impl Messenger {
    /// Asks members whether they are there, and tells who answered within `timeout`: for quorum checks. Works for every
    /// member of the view, every peer there is a session with, and for this member itself, which answers at once. Only what the peer said after this
    /// call counts: a ping that is written now, and its answer. It is answered by the peer's link, not by its handlers, so
    /// one whose handlers hang answers. Without a link one dial is made now, at most one a second, if this side may dial.
    ///
    /// Ends when all have answered or the time is over. Any number of probes at the same time share pings. Cancel safe:
    /// nothing is left behind.
    pub async fn probe(&self, members: impl IntoIterator<Item = MemberId>, timeout: Duration) -> ProbeReport {
        let mut report = ProbeReport::default();
        let mut asked = Vec::new();
        // Whoever is listed twice counts once: quorums are counted by it.
        for member in members.into_iter().collect::<BTreeSet<_>>() {
            match self.ask(member) {
                Some(one) => asked.push(one),
                None if member == self.id() && self.inner.closed.get().is_none() => {
                    report.answered.push((member, Duration::ZERO));
                }
                None => report.absent.push(member),
            }
        }
        let all = async {
            for one in &mut asked {
                let round = one.round;
                // An error: the peer is gone, and will not answer. One after the other, and all at the same time.
                let _gone = one.answered.wait_for(|answered| answered.round >= round).await;
            }
        };
        let stop = &self.inner.shared.driver.stop;
        let _over = tokio::time::timeout(timeout, stop.run_until_cancelled(all)).await;
        for one in asked {
            let answered = *one.answered.borrow();
            if answered.round >= one.round {
                report.answered.push((one.member, answered.round_trip));
            } else {
                report.silent.push(one.member);
            }
        }
        report.answered.sort_unstable();
        report
    }

    /// `None`: there is nobody to ask.
    fn ask(&self, member: MemberId) -> Option<Asked> {
        if member == self.id() {
            return None;
        }
        let (answered, round) = self.inner.shared.driver.peer_wanted(member)?.probe()?;
        Some(Asked { member, answered, round })
    }
}
