//! Named leases that this node's user wants or holds. One ticket a want; those of one name wait for each other here, and only
//! the first of them is wanted of the log.

use std::collections::{BTreeMap, VecDeque};

use super::copy::Copy;
use crate::MemberId;
use crate::rendezvous::common::{LeaseOp, Refused, Token};
use crate::rendezvous::words::ToServer;

/// Names that are wanted at once.
const NAMES_MAX: usize = 1024;
/// Wants of one name.
const TICKETS_MAX: usize = 256;

/// A want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What became of a want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseNews {
    Granted(Token),
    /// It is over: this member is one no more, or somebody else holds it.
    Lost,
    Refused(Refused),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is wanted of the log, or it cannot be said now.
    Idle,
    Asked {
        number: u64,
    },
    Held(Token),
    Releasing {
        number: u64,
    },
}

#[derive(Debug)]
struct Name {
    state: State,
    /// Who wants it, and whether it waits for somebody else.
    queue: VecDeque<(Ticket, bool)>,
    /// What was released: the copy may still say that it is held.
    released: Option<Token>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct OwnLeases {
    names: BTreeMap<String, Name>,
    next_ticket: u64,
    next_number: u64,
    /// Whether a leader listens, and to whom.
    me: Option<MemberId>,
    words: VecDeque<ToServer>,
    news: VecDeque<(Ticket, LeaseNews)>,
}

impl OwnLeases {
    /// `Err`: too many are wanted already.
    pub(super) fn acquire(&mut self, name: &str, wait: bool, copy: &Copy) -> Result<Ticket, Refused> {
        let full = |what: String| Err(Refused::Full(what));
        if !self.names.contains_key(name) && self.names.len() >= NAMES_MAX {
            return full(format!("this node wants {NAMES_MAX} leases already"));
        }
        let new = || Name { state: State::Idle, queue: VecDeque::new(), released: None };
        let wants = self.names.entry(name.to_owned()).or_insert_with(new);
        if wants.queue.len() >= TICKETS_MAX {
            return full(format!("{TICKETS_MAX} here wait for it already"));
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        wants.queue.push_back((ticket, wait));
        self.drive(name, copy);
        Ok(ticket)
    }

    /// The want is over, whether it was granted or not.
    pub(super) fn release(&mut self, name: &str, ticket: Ticket, copy: &Copy) {
        let Some(wants) = self.names.get_mut(name) else { return };
        let Some(at) = wants.queue.iter().position(|(other, _)| *other == ticket) else { return };
        wants.queue.remove(at);
        if at == 0 {
            match wants.state {
                State::Held(token) => {
                    wants.released = Some(token);
                    self.say_release(name);
                }
                State::Asked { .. } => self.say_release(name),
                State::Idle | State::Releasing { .. } => {}
            }
        }
        self.drive(name, copy);
    }

    /// A leader listens to this member: what it was told before is told again, because it may not have been decided.
    pub(super) fn handle_welcome(&mut self, me: MemberId, copy: &Copy) {
        self.me = Some(me);
        for name in self.all() {
            let state = self.names.get(&name).map(|wants| wants.state);
            match state {
                Some(State::Asked { .. }) => self.set(&name, State::Idle),
                Some(State::Releasing { .. }) => self.say_release(&name),
                Some(State::Idle | State::Held(_)) | None => {}
            }
            self.drive(&name, copy);
        }
    }

    /// No leader listens any more.
    pub(super) fn handle_silence(&mut self) {
        self.me = None;
        self.words.clear();
    }

    /// This process is another member: what was held is lost.
    pub(super) fn handle_reborn(&mut self) {
        self.handle_silence();
        for wants in self.names.values_mut() {
            if let State::Held(_) = wants.state
                && let Some((ticket, _)) = wants.queue.pop_front()
            {
                self.news.push_back((ticket, LeaseNews::Lost));
            }
            (wants.state, wants.released) = (State::Idle, None);
        }
        self.names.retain(|_, wants| !wants.queue.is_empty());
    }

    /// What was said under this number was decided, or was not.
    pub(super) fn handle_outcome(&mut self, number: u64, refused: Option<Refused>, copy: &Copy) {
        let is_it = |wants: &Name| match wants.state {
            State::Asked { number: said } | State::Releasing { number: said } => said == number,
            State::Idle | State::Held(_) => false,
        };
        let Some((name, wants)) = self.names.iter_mut().find(|(_, wants)| is_it(wants)) else { return };
        let name = name.clone();
        match (wants.state, refused) {
            // It waits, or a change says that it is granted.
            (State::Asked { .. }, None) => {}
            (State::Asked { .. }, Some(why)) => {
                wants.state = State::Idle;
                if let Some((ticket, _)) = wants.queue.pop_front() {
                    self.news.push_back((ticket, LeaseNews::Refused(why)));
                }
            }
            (State::Idle | State::Held(_) | State::Releasing { .. }, _) => wants.state = State::Idle,
        }
        self.drive(&name, copy);
    }

    /// The copy says something else of these names than before; of all, if everything is new.
    pub(super) fn handle_copy<'a>(&mut self, names: Option<impl Iterator<Item = &'a str>>, copy: &Copy) {
        match names {
            Some(names) => names.for_each(|name| self.drive(name, copy)),
            None => self.all().iter().for_each(|name| self.drive(name, copy)),
        }
    }

    pub(super) fn poll_word(&mut self) -> Option<ToServer> {
        self.words.pop_front()
    }

    pub(super) fn poll_news(&mut self) -> Option<(Ticket, LeaseNews)> {
        self.news.pop_front()
    }

    fn all(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn set(&mut self, name: &str, state: State) {
        if let Some(wants) = self.names.get_mut(name) {
            wants.state = state;
        }
    }

    fn say(&mut self, op: LeaseOp) -> u64 {
        self.next_number += 1;
        self.words.push_back(ToServer::Lease { number: self.next_number, op });
        self.next_number
    }

    fn say_release(&mut self, name: &str) {
        // Without a leader it is said with the next welcome.
        let number = match self.me {
            Some(_) => self.say(LeaseOp::Release { name: name.to_owned() }),
            None => 0,
        };
        self.set(name, State::Releasing { number });
    }

    /// Does what the state of things asks for.
    fn drive(&mut self, name: &str, copy: &Copy) {
        let Some(me) = self.me else { return self.prune(name, copy) };
        let mine = copy.lease(name).filter(|(holder, _)| *holder == me).map(|(_, token)| token);
        loop {
            let Some(wants) = self.names.get_mut(name) else {
                // A grant that nobody wants any more.
                return;
            };
            // What the copy says of a token that was released is old.
            let mine = mine.filter(|token| wants.released.is_none_or(|released| *token > released));
            let front = wants.queue.front().copied();
            match (wants.state, mine) {
                (State::Held(token), Some(now)) if token == now => return,
                (State::Held(_), _) => {
                    wants.state = State::Idle;
                    if let Some((ticket, _)) = wants.queue.pop_front() {
                        self.news.push_back((ticket, LeaseNews::Lost));
                    }
                }
                (State::Asked { .. } | State::Idle, Some(token)) => match front {
                    Some((ticket, _)) => {
                        wants.state = State::Held(token);
                        self.news.push_back((ticket, LeaseNews::Granted(token)));
                        return;
                    }
                    None => {
                        wants.released = Some(token);
                        return self.say_release(name);
                    }
                },
                (State::Idle, None) => match front {
                    Some((_, wait)) => {
                        let number = self.say(LeaseOp::Acquire { name: name.to_owned(), wait });
                        return self.set(name, State::Asked { number });
                    }
                    None => return self.prune(name, copy),
                },
                (State::Asked { .. } | State::Releasing { .. }, _) => return,
            }
        }
    }

    /// A name that nobody wants is forgotten, once the copy does not say that it is held here.
    fn prune(&mut self, name: &str, copy: &Copy) {
        let Some(wants) = self.names.get(name) else { return };
        let holds = |released: Token| copy.lease(name).is_some_and(|(_, token)| token <= released);
        let done = wants.queue.is_empty() && wants.state == State::Idle;
        if done && !wants.released.is_some_and(holds) {
            self.names.remove(name);
        }
    }
}
