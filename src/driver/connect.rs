//! Connects to whichever of several addresses answers first: happy eyeballs (RFC 8305, sections 4 and 5).
//!
//! Families alternate, so that a family without a route costs one delay and not the deadline. The next attempt begins
//! 250 ms after the one before, or at once when one fails; those before go on. The first connection wins, and the other
//! attempts are dropped with the future.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use tokio::time::Sleep;

use crate::limits::{ADDRESSES_MAX, ATTEMPT_DELAY};

/// The order in which addresses are tried: as the resolver ordered them, but families in turn, the first one's first.
/// At most [`ADDRESSES_MAX`].
fn order(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(first.next().into_iter().chain(second.next()));
        if ordered.len() == before || ordered.len() >= ADDRESSES_MAX {
            ordered.truncate(ADDRESSES_MAX);
            return ordered;
        }
    }
}

/// The first connection that comes up. The caller sets the deadline: dropping the future ends every attempt.
///
/// # Errors
///
/// That of the last attempt that failed, when all have; `NotFound` without an address.
pub(super) async fn first<C, F>(
    addresses: Vec<SocketAddr>,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> io::Result<C>
where
    F: Future<Output = io::Result<C>>,
{
    let mut waiting = order(addresses).into_iter();
    let mut attempts: Vec<Pin<Box<F>>> = Vec::with_capacity(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut delay: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(move |cx| {
        loop {
            let mut failed = false;
            let mut at = 0;
            while let Some(attempt) = attempts.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(conn)) => return Poll::Ready(Ok(conn)),
                    Poll::Ready(Err(error)) => {
                        drop(attempts.swap_remove(at));
                        last = error;
                        failed = true;
                    }
                    Poll::Pending => at += 1,
                }
            }
            let due = failed
                || attempts.is_empty()
                || delay.as_mut().is_some_and(|delay| delay.as_mut().poll(cx).is_ready());
            if due && let Some(address) = waiting.next() {
                attempts.push(Box::pin(connect(address)));
                delay = (waiting.len() > 0).then(|| Box::pin(tokio::time::sleep(ATTEMPT_DELAY)));
                continue;
            }
            if due {
                delay = None;
            }
            if attempts.is_empty() {
                return Poll::Ready(Err(std::mem::replace(&mut last, io::ErrorKind::NotFound.into())));
            }
            return Poll::Pending;
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    /// What an address does when it is dialled.
    #[derive(Clone, Copy)]
    enum Host {
        Answers(u64),
        Refuses(u64),
        Swallows,
    }
    use Host::{Answers, Refuses, Swallows};

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7400))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 7400))
    }

    struct Outcome {
        won: io::Result<SocketAddr>,
        millis: u128,
        /// When each was dialled.
        dialled: Vec<(SocketAddr, u128)>,
        /// Attempts that were not polled to their end.
        dropped: usize,
    }

    struct Alive<'a>(&'a RefCell<usize>);

    impl Drop for Alive<'_> {
        fn drop(&mut self) {
            *self.0.borrow_mut() += 1;
        }
    }

    async fn race(hosts: &[(SocketAddr, Host)]) -> Outcome {
        let start = Instant::now();
        let (dialled, ended, dropped) = (RefCell::new(Vec::new()), RefCell::new(0), RefCell::new(0));
        let connect = |address| {
            dialled.borrow_mut().push((address, start.elapsed().as_millis()));
            let host = hosts.iter().find(|(at, _)| *at == address).unwrap().1;
            let (ended, alive) = (&ended, Alive(&dropped));
            async move {
                let _alive = alive;
                let (after, outcome) = match host {
                    Answers(after) => (after, Ok(address)),
                    Refuses(after) => (after, Err(io::ErrorKind::ConnectionRefused.into())),
                    Swallows => (u64::MAX / 1_000_000, Err(io::ErrorKind::TimedOut.into())),
                };
                tokio::time::sleep(Duration::from_millis(after)).await;
                *ended.borrow_mut() += 1;
                outcome
            }
        };
        let won = first(hosts.iter().map(|(address, _)| *address).collect(), connect).await;
        let millis = start.elapsed().as_millis();
        let dropped = *dropped.borrow() - *ended.borrow();
        Outcome { won, millis, dialled: dialled.take(), dropped }
    }

    #[test]
    fn families_take_turns_and_the_resolver_says_which_begins() {
        let mixed = vec![v6(1), v6(2), v6(3), v4(1), v4(2)];
        assert_eq!(order(mixed), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(order(vec![v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
        assert_eq!(order(Vec::new()), []);
        let many: Vec<_> = (0..200).map(v4).chain((0..200).map(v6)).collect();
        assert_eq!(order(many).len(), ADDRESSES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_black_hole_costs_one_delay_and_not_the_deadline() {
        let race = race(&[(v6(1), Swallows), (v6(2), Swallows), (v4(1), Answers(20))]).await;
        assert_eq!((race.won.unwrap(), race.millis), (v4(1), 270), "the other family comes second");
        assert_eq!(race.dialled, [(v6(1), 0), (v4(1), 250)]);
        assert_eq!(race.dropped, 1, "the attempt that lost is ended");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_lets_the_next_begin_at_once() {
        let race = race(&[(v4(1), Refuses(10)), (v4(2), Refuses(10)), (v4(3), Answers(10))]).await;
        assert_eq!((race.won.unwrap(), race.millis), (v4(3), 30));
        assert_eq!(race.dialled, [(v4(1), 0), (v4(2), 10), (v4(3), 20)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_if_it_is_the_first_to_connect() {
        let race = race(&[(v6(1), Answers(300)), (v4(1), Answers(200)), (v6(2), Answers(10))]).await;
        assert_eq!((race.won.unwrap(), race.millis), (v6(1), 300));
        assert_eq!(race.dialled, [(v6(1), 0), (v4(1), 250)]);
        assert_eq!(race.dropped, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_last_failure_is_told_and_none_is_dialled_twice() {
        let race = race(&[(v6(1), Refuses(600)), (v4(1), Refuses(10)), (v4(2), Refuses(1))]).await;
        assert_eq!(race.won.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!((race.millis, race.dialled.len()), (600, 3));
        let nothing = super::first(Vec::new(), |_| std::future::pending::<io::Result<()>>()).await;
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_address_is_simply_dialled() {
        let race = race(&[(v4(1), Answers(2000))]).await;
        assert_eq!((race.won.unwrap(), race.millis, race.dialled.len()), (v4(1), 2000, 1));
    }
}
