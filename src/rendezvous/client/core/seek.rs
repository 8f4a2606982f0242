//! Which server is asked, and when: a random one of the list first, the leader as soon as somebody names it, the next one on
//! silence. While none answers, or none leads, the waits grow.

use std::time::Duration;

use crate::rendezvous::common::SEEK_MAX;

/// The first wait after a server that did not answer; each further one is twice as long, less up to a half of it by chance.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = SEEK_MAX;
/// The first stay with a server that knows no leader, longer than an election takes; each further one is twice as long, less up to a half
/// of it by chance, and at most [`WAIT_MAX`]. So a thousand nodes without a leader are some thousand connections a second.
const STAY_MIN: Duration = Duration::from_millis(700);
/// So often the name of a leader is followed at once, without a wait; then whoever names it may be wrong.
const HOPS_MAX: u32 = 3;
/// The longest address of a leader that is looked at.
const ADDRESS_BYTES_MAX: usize = 300;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Seek {
    list: Vec<String>,
    at: usize,
    /// The leader, as a server said.
    leader: Option<String>,
    /// Who was asked last.
    current: String,
    /// Nobody was there when this address was tried last: it is not gone to because somebody still names it.
    dead: Option<String>,
    hops: u32,
    failures: u32,
    stays: u32,
    random: fastrand::Rng,
}

impl Seek {
    /// The list has an address at least.
    pub(super) fn new(list: Vec<String>, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let at = random.usize(0..list.len().max(1));
        Self {
            list,
            at,
            leader: None,
            current: String::new(),
            dead: None,
            hops: 0,
            failures: 0,
            stays: 0,
            random,
        }
    }

    /// Who is to be asked.
    pub(super) fn next(&mut self) -> String {
        self.current = match self.leader.take() {
            Some(leader) => leader,
            None => self.list.get(self.at).cloned().unwrap_or_default(),
        };
        self.current.clone()
    }

    /// The last one did not answer, or not well: how long to wait before the next.
    pub(super) fn failed(&mut self) -> Duration {
        self.pass();
        self.hops = 0;
        self.failures = self.failures.saturating_add(1);
        self.wait(WAIT_MIN, self.failures)
    }

    /// The last one does not lead, and says so as soon as it knows who does: how long to wait for that.
    pub(super) fn stay(&mut self) -> Duration {
        self.hops = 0;
        self.stays = self.stays.saturating_add(1);
        self.wait(STAY_MIN, self.stays)
    }

    fn wait(&mut self, first: Duration, count: u32) -> Duration {
        let wait = first.saturating_mul(1 << count.saturating_sub(1).min(10)).min(WAIT_MAX);
        wait.mul_f64(1.0 - self.random.f64() / 2.0)
    }

    /// Nobody is there any more, or was.
    pub(super) fn note_dead(&mut self) {
        self.dead = Some(self.current.clone());
    }

    /// Somebody is there.
    pub(super) fn note_met(&mut self) {
        self.dead = self.dead.take().filter(|dead| *dead != self.current);
    }

    /// It may have come back.
    pub(super) fn forget_dead(&mut self) {
        self.dead = None;
    }

    /// The last one is silent: the next one is asked at once.
    pub(super) fn pass(&mut self) {
        self.leader = None;
        // A leader that was named is not the one of the list whose turn it is.
        if self.list.get(self.at) == Some(&self.current) || !self.list.contains(&self.current) {
            self.at = (self.at + 1) % self.list.len().max(1);
        }
    }

    /// Somebody else leads. Whether to go there at once.
    pub(super) fn led_by(&mut self, leader: Option<String>) -> bool {
        let sound = |leader: &String| {
            leader.len() <= ADDRESS_BYTES_MAX
                && leader.parse::<crate::Endpoint>().is_ok_and(|at| !at.is_unusable())
        };
        let there = |leader: &String| *leader != self.current && self.dead.as_ref() != Some(leader);
        let Some(leader) = leader.filter(sound).filter(there) else { return false };
        if self.hops >= HOPS_MAX {
            return false;
        }
        self.hops += 1;
        self.leader = Some(leader);
        true
    }

    /// A leader has let this node in.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.stays, self.hops) = (0, 0, 0);
        self.dead = None;
        // After it is gone, the search begins somewhere else than where everybody else's does.
        if let Some(at) = self.list.iter().position(|address| *address == self.current) {
            self.at = at;
        }
    }

    /// The address that is asked, or was.
    pub(super) fn current(&self) -> &str {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seek(seed: u64) -> Seek {
        Seek::new(["a:1", "b:1", "c:1"].map(str::to_owned).to_vec(), seed)
    }

    #[test]
    fn the_first_is_random_and_the_rest_follow_in_turn() {
        let firsts: std::collections::BTreeSet<String> = (0..50).map(|seed| seek(seed).next()).collect();
        assert_eq!(firsts.len(), 3, "{firsts:?}");
        let mut seek = seek(7);
        let turns: Vec<String> = (0..6)
            .map(|_| {
                let next = seek.next();
                let _wait = seek.failed();
                next
            })
            .collect();
        assert_eq!(turns[..3], turns[3..]);
        assert_eq!(turns[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn waits_grow_to_a_second_and_begin_again_after_a_success() {
        let mut seek = seek(1);
        let waits: Vec<Duration> = (0..10).map(|_| seek.failed()).collect();
        assert!(waits[0] <= WAIT_MIN && waits[0] >= WAIT_MIN / 2, "{waits:?}");
        assert!(waits[1] <= WAIT_MIN * 2 && waits[1] >= WAIT_MIN, "{waits:?}");
        assert!(waits[9] <= WAIT_MAX && waits[9] >= WAIT_MAX / 2, "{waits:?}");
        seek.succeeded();
        assert!(seek.failed() <= WAIT_MIN);
    }

    #[test]
    fn a_leader_is_followed_at_once_but_not_in_circles() {
        let mut seek = seek(1);
        let _first = seek.next();
        assert!(seek.led_by(Some("d:9".to_owned())));
        assert_eq!(seek.next(), "d:9");
        assert!(!seek.led_by(Some("d:9".to_owned())), "it names itself");
        assert!(!seek.led_by(None) && !seek.led_by(Some("nonsense".to_owned())));
        assert!(!seek.led_by(Some("0.0.0.0:7500".to_owned())), "nobody is there");
        let others = ["e:1", "d:9", "e:1", "d:9"];
        let followed = others.iter().filter(|leader| {
            let follows = seek.led_by(Some((**leader).to_owned()));
            if follows {
                let _there = seek.next();
            }
            follows
        });
        assert_eq!(followed.count(), 2, "three hops in all");
        seek.succeeded();
        assert!(seek.led_by(Some("f:1".to_owned())));
    }
}
