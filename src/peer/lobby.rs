//! Who may be in a handshake: bounded in all and per address. A newcomer beyond the bound takes the place of the one
//! that has been at it longest: an honest hello takes a round trip, so what is oldest is least likely to be honest.
//! A flood is so slowed down, and nobody is banned.

use std::collections::VecDeque;
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
}

impl Lobby {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Self {
        Self { most, most_per_address, next: 0, waiting: VecDeque::new() }
    }

    /// Lets a connection in; the other ticket, if any, has to go.
    pub(crate) fn enter(&mut self, address: IpAddr) -> (Ticket, Option<Ticket>) {
        let address = address.to_canonical();
        let same = self.waiting.iter().filter(|(_, other)| *other == address).count();
        let out = if same >= self.most_per_address {
            self.waiting.iter().position(|(_, other)| *other == address)
        } else if self.waiting.len() >= self.most {
            Some(self.oldest_of_the_most_frequent())
        } else {
            None
        };
        let out = out.and_then(|at| self.waiting.remove(at)).map(|(ticket, _)| ticket);
        self.next += 1;
        let ticket = Ticket(self.next);
        self.waiting.push_back((ticket, address));
        (ticket, out)
    }

    fn oldest_of_the_most_frequent(&self) -> usize {
        let count = |address: &IpAddr| self.waiting.iter().filter(|(_, other)| other == address).count();
        let mut best = (0, 0);
        for (at, (_, address)) in self.waiting.iter().enumerate() {
            let first = self.waiting.iter().position(|(_, other)| other == address) == Some(at);
            if first && count(address) > best.1 {
                best = (at, count(address));
            }
        }
        best.0
    }

    /// The handshake is over, however it ended.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|(other, _)| *other != ticket);
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
