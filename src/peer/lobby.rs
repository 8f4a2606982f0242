//! Who may be in a handshake: bounded in all and per address. A newcomer beyond the bound takes the place of the one
//! that has been at it longest: an honest hello takes a round trip, so what is oldest is least likely to be honest.
//! A flood is so slowed down, and nobody is banned.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// A place in the lobby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Lobby {
    most: usize,
    most_per_address: usize,
    next: u64,
    /// In the order of arrival.
    waiting: VecDeque<(Ticket, IpAddr)>,
    /// How many of them each address has, so that a flood from many addresses costs no more to count than one from one.
    counts: BTreeMap<IpAddr, usize>,
}

impl Lobby {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Self {
        Self { most, most_per_address, next: 0, waiting: VecDeque::new(), counts: BTreeMap::new() }
    }

    /// Lets a connection in; the other ticket, if any, has to go.
    pub(crate) fn enter(&mut self, address: IpAddr) -> (Ticket, Option<Ticket>) {
        let address = address.to_canonical();
        let out = if self.count(&address) >= self.most_per_address {
            self.waiting.iter().position(|(_, other)| *other == address)
        } else if self.waiting.len() >= self.most {
            self.oldest_of_the_most_frequent()
        } else {
            None
        };
        let out = out.and_then(|at| self.remove(at));
        self.next += 1;
        let ticket = Ticket(self.next);
        self.waiting.push_back((ticket, address));
        *self.counts.entry(address).or_default() += 1;
        (ticket, out)
    }

    fn count(&self, address: &IpAddr) -> usize {
        self.counts.get(address).copied().unwrap_or_default()
    }

    fn oldest_of_the_most_frequent(&self) -> Option<usize> {
        let most = self.counts.values().max()?;
        self.waiting.iter().position(|(_, address)| self.count(address) == *most)
    }

    fn remove(&mut self, at: usize) -> Option<Ticket> {
        let (ticket, address) = self.waiting.remove(at)?;
        if let Some(count) = self.counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&address);
            }
        }
        Some(ticket)
    }

    /// The handshake is over, however it ended.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        // Tickets ascend. Who was pushed out is not there any more.
        if let Ok(at) = self.waiting.binary_search_by_key(&ticket, |(other, _)| *other) {
            self.remove(at);
        }
    }

    /// Handshakes under way.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn a_flood_from_one_address_pushes_out_only_its_own_oldest() {
        let mut lobby = Lobby::new(100, 4);
        let (other, out) = lobby.enter(address(2));
        assert_eq!(out, None);
        let first: Vec<_> = (0..4).map(|_| lobby.enter(address(1)).0).collect();
        let (_, out) = lobby.enter(address(1));
        assert_eq!(out, Some(first[0]));
        assert_eq!(lobby.len(), 5);
        lobby.leave(other);
        assert_eq!(lobby.len(), 4);
    }

    /// What the module's text says, counted anew each time.
    fn who_goes(
        waiting: &[(Ticket, IpAddr)],
        most: usize,
        per_address: usize,
        new: IpAddr,
    ) -> Option<Ticket> {
        let of = |address: IpAddr| waiting.iter().filter(move |(_, other)| *other == address);
        if of(new).count() >= per_address {
            return of(new).next().map(|(ticket, _)| *ticket);
        }
        let frequent = waiting.iter().map(|(_, address)| of(*address).count()).max()?;
        let oldest = waiting.iter().find(|(_, address)| of(*address).count() == frequent)?;
        (waiting.len() >= most).then_some(oldest.0)
    }

    #[test]
    fn who_has_to_go_is_the_oldest_of_its_address_or_of_the_most_frequent_one() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut lobby, mut waiting) = (Lobby::new(20, 6), Vec::new());
        let mut pushed_out = 0;
        for _ in 0..20_000 {
            if random.u8(..) < 60 && !waiting.is_empty() {
                let (ticket, _) = waiting.remove(random.usize(..waiting.len()));
                lobby.leave(ticket);
                // Once more does nothing.
                lobby.leave(ticket);
            } else {
                let new = address(random.u8(..10) * random.u8(..3));
                let expected = who_goes(&waiting, 20, 6, new);
                let (ticket, out) = lobby.enter(new);
                assert_eq!(out, expected);
                waiting.retain(|(other, _)| Some(*other) != out);
                waiting.push((ticket, new));
                pushed_out += usize::from(out.is_some());
            }
            assert_eq!(lobby.len(), waiting.len());
            assert_eq!(lobby.counts.values().sum::<usize>(), waiting.len(), "and nothing else is remembered");
        }
        assert!(pushed_out > 1000);
    }

    #[test]
    fn a_full_lobby_takes_from_the_address_that_has_most() {
        let mut lobby = Lobby::new(6, 4);
        let (_alone, _) = lobby.enter(address(1));
        let many: Vec<_> = (0..4).map(|_| lobby.enter(address(2)).0).collect();
        lobby.enter(address(3));
        let (_, out) = lobby.enter(address(4));
        assert_eq!(out, Some(many[0]));
        assert_eq!(lobby.len(), 6);
    }
}
