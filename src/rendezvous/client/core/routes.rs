//! This node's own routes, and how far the log knows them. Changes are numbered from 1; those that are not known to be
//! decided are kept, and said again to the next leader; if it knows less than it should, all are said anew.

use std::collections::{BTreeSet, VecDeque};

use crate::rendezvous::common::Refused;
use crate::rendezvous::words::ToServer;
use crate::router::{Route, RouteChange};

/// Changes that are said and not decided: what a leader may be slow with, and what is said again to the next.
const UNDER_WAY_MAX: usize = 8;
/// So many routes more than twice as many as there are may wait to be said; then all are said anew.
pub(super) const UNSAID_MORE: usize = 1024;
/// Bytes of routes in one change: below what an entry of the log may have.
const CHANGE_BYTES_MAX: usize = 16 * 1024;
/// A route's, beside its key's texts.
const ROUTE_BYTES: usize = 16;

/// A change that was said.
#[derive(Clone, Debug)]
struct Said {
    from: u64,
    to: u64,
    add: Vec<Route>,
    remove: Vec<Route>,
    /// What its user had announced, if nothing more was left to be said after it.
    complete: Option<u64>,
}

impl Said {
    fn word(&self) -> ToServer {
        let Self { from, to, add, remove, .. } = self.clone();
        ToServer::Routes { from, to, add, remove }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct OwnRoutes {
    /// Those that there are.
    all: BTreeSet<Route>,
    /// Of those in `all`, which the log does not take, and the last reason.
    refused: BTreeSet<Route>,
    why: Option<Refused>,
    /// Those of which something is to be said: that they are, if they are in `all`, or that they are not. Saying it once too
    /// often does no harm.
    unsaid: BTreeSet<Route>,
    under_way: VecDeque<Said>,
    /// What is said next begins with nothing.
    anew: bool,
    /// The number after which what is said next counts.
    tip: u64,
    /// The highest number that was given.
    last: u64,
    /// Up to which of them the log is known to know.
    decided: u64,
    /// How often the user has announced something, and up to which of these all is decided.
    announced: u64,
    registered: u64,
    withdrawn: bool,
}

impl OwnRoutes {
    pub(super) fn announce(&mut self, change: RouteChange) {
        if self.withdrawn {
            return;
        }
        self.announced += 1;
        for route in change.removed {
            if self.all.remove(&route) && !self.refused.remove(&route) {
                self.unsaid.insert(route);
            }
        }
        for route in change.added {
            if self.all.insert(route.clone()) {
                self.unsaid.insert(route);
            }
        }
        if self.unsaid.len() > 2 * self.all.len() + UNSAID_MORE {
            // While no leader listens routes may come and go without end: then it is shorter to say those that there are.
            self.unsaid = self.all.difference(&self.refused).cloned().collect();
            self.anew = true;
        }
        self.settle();
    }

    /// All go, and none comes any more.
    pub(super) fn withdraw(&mut self) {
        let removed = self.all.iter().cloned().collect();
        self.announce(RouteChange { added: Vec::new(), removed });
        self.withdrawn = true;
    }

    /// How many announcements of the user there were, how many of them are decided, and why some route is not taken.
    pub(crate) fn progress(&self) -> (u64, u64, Option<Refused>) {
        (self.announced, self.registered, self.why.clone().filter(|_| !self.refused.is_empty()))
    }

    /// All of them, if all are decided.
    #[cfg(all(feature = "rendezvous", feature = "testing"))]
    pub(crate) fn registered_routes(&self) -> Option<BTreeSet<Route>> {
        let settled = self.announced == self.registered && self.refused.is_empty() && !self.withdrawn;
        settled.then(|| self.all.clone())
    }

    /// Routes of which something is to be said, and those that there are.
    #[cfg(any(test, all(feature = "rendezvous", feature = "testing")))]
    pub(super) fn backlog(&self) -> (usize, usize) {
        (self.unsaid.len(), self.all.len())
    }

    /// How many times the routes have changed, as a hello says it.
    pub(super) const fn changes(&self) -> u64 {
        self.last
    }

    /// The oldest change that was said and is not decided.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.under_way.front().map(|said| said.to)
    }

    /// A leader knows them up to this change: what is to be said again.
    pub(super) fn handle_welcome(&mut self, known: u64) -> Vec<ToServer> {
        self.handle_decided(known);
        let goes_on = self.under_way.front().map_or(self.tip, |said| said.from) == known;
        if !goes_on || self.anew {
            self.begin_anew(known);
        }
        self.under_way.iter().map(Said::word).collect()
    }

    /// This node is another member: nothing of it is known.
    pub(super) fn handle_reborn(&mut self) {
        self.begin_anew(0);
    }

    fn begin_anew(&mut self, known: u64) {
        self.refused.clear();
        self.say_all(known);
    }

    /// All that the log may take is said, and replaces what it knows up to `known`.
    fn say_all(&mut self, known: u64) {
        // Numbers only grow, so that an answer to a change of before is told from one to these.
        self.last = self.last.max(known);
        (self.tip, self.decided) = (known, known);
        self.under_way.clear();
        self.unsaid = self.all.difference(&self.refused).cloned().collect();
        self.anew = known > 0;
        self.registered = 0;
        self.settle();
    }

    /// Decided up to this change.
    pub(super) fn handle_decided(&mut self, changes: u64) {
        while let Some(said) = self.under_way.pop_front_if(|said| said.to <= changes) {
            self.decided = said.to;
            self.registered = said.complete.unwrap_or(self.registered);
        }
        self.settle();
    }

    /// A change is not taken.
    pub(super) fn handle_refused(&mut self, change: u64, why: Refused) {
        match why {
            Refused::RoutesBehind(known) if self.under_way.iter().any(|said| said.to == change) => {
                self.begin_anew(known);
            }
            Refused::Full(_) | Refused::Unsound(_) => {
                let Some(at) = self.under_way.iter().position(|said| said.to == change) else { return };
                let Some(said) = self.under_way.remove(at) else { return };
                tracing::error!(%why, routes = said.add.len(), "routes of this node are not registered");
                self.why = Some(why);
                self.refused.extend(said.add.into_iter().filter(|route| self.all.contains(route)));
                if at > 0 {
                    // Nothing is known of those before it.
                    return self.say_all(self.decided);
                }
                // What was said after it counts from before it now.
                self.unsaid.extend(said.remove);
                for later in std::mem::take(&mut self.under_way) {
                    self.unsaid.extend(later.add.into_iter().chain(later.remove));
                }
                if said.from == self.decided {
                    self.tip = said.from;
                    self.settle();
                } else {
                    self.say_all(self.decided);
                }
            }
            // Of one that is no member, or of what was said before all was said anew: a welcome goes before what comes next.
            _ => {}
        }
    }

    /// The next change to be said, if there is one, and not too much is under way.
    pub(super) fn poll(&mut self) -> Option<ToServer> {
        if self.under_way.len() >= UNDER_WAY_MAX || !self.has_more() {
            return None;
        }
        let (mut add, mut remove, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(route) = self.unsaid.pop_first() {
            bytes += route.key.identity().len() + route.key.partition().len() + ROUTE_BYTES;
            if bytes > CHANGE_BYTES_MAX && !(add.is_empty() && remove.is_empty()) {
                self.unsaid.insert(route);
                break;
            }
            let is = self.all.contains(&route);
            if is { &mut add } else { &mut remove }.push(route);
        }
        let from = if std::mem::take(&mut self.anew) { 0 } else { self.tip };
        // A leader that says that it knows the last number of all gets none of them right any more, and breaks nothing.
        self.last = self.last.saturating_add(1);
        self.tip = self.last;
        let complete = self.unsaid.is_empty().then_some(self.announced);
        let said = Said { from, to: self.last, add, remove, complete };
        let word = said.word();
        self.under_way.push_back(said);
        Some(word)
    }

    fn has_more(&self) -> bool {
        self.anew || !self.unsaid.is_empty()
    }

    /// If nothing is left to be said or decided, all is.
    fn settle(&mut self) {
        if !self.has_more() && self.under_way.is_empty() {
            self.registered = self.announced;
        }
    }
}
