//! What the servers say, and what it makes of the copy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::copy::NotApplied;
use super::way::Phase;
use super::{Client, Output, PROBE_MAX, PROBES_MAX};
use crate::rendezvous::common::{Change, ClusterId, REFUSED_WAIT, ROUTES_MAX, Refused, RoutesChange};
use crate::rendezvous::words::{Everything, Health, Ping, Pong, Refusal, ToNode, ToServer};
use crate::router::{Route, RouteChange};
use crate::{Member, MemberId};

impl Client {
    /// A word of a server.
    pub(crate) fn handle_word(&mut self, now: Instant, from: MemberId, word: ToNode) {
        // Before a hello of this member, what comes is for the one that it was.
        if self.server() != Some(from) {
            return;
        }
        if let ToNode::Probe { term, member, within } = word
            && !self.is_following()
        {
            // Of one whom a leader put off that asks about another in the same breath; it counts this node as a witness. Nothing
            // else is believed.
            if term >= self.term {
                self.handle_probe(member, within);
            }
            return;
        }
        let is_greeted = self.hellos > 0 || self.is_following();
        if !is_greeted {
            return;
        }
        match word {
            ToNode::NotLeader { term, leader } => {
                self.handle_not_leader(now, from, leader.filter(|_| term >= self.term));
            }
            // Who is not this node's leader yet may be of another history, whose terms are not those that this node knows.
            ToNode::Later { term: _, after } => self.handle_later(now, from, after),
            ToNode::Welcome { term, cluster, member, changes } if self.accepts(term) => {
                self.handle_welcome(now, from, cluster, (member, changes));
            }
            ToNode::Refused { term, why } if term >= self.term || why != Refusal::Refused(Refused::Gone) => {
                self.handle_refused(now, why);
            }
            ToNode::Evicted { term, why } if term >= self.term => {
                let why = why.map_or_else(|| "it is not known there".to_owned(), |why| why.to_string());
                self.evict(&why);
            }
            ToNode::Farewell { term } if self.accepts(term) && self.leaving => self.left(false),
            word if self.is_following() => self.handle_leaders_word(now, from, word),
            _ => {}
        }
    }

    /// What only the leader says to a member that it has let in.
    fn handle_leaders_word(&mut self, now: Instant, from: MemberId, word: ToNode) {
        let term = match &word {
            ToNode::Everything { term, .. }
            | ToNode::Change { term, .. }
            | ToNode::Registered { term, .. }
            | ToNode::Health { term, .. }
            | ToNode::Probe { term, .. }
            | ToNode::Lease { term, .. } => *term,
            _ => return,
        };
        if !self.accepts(term) {
            return;
        }
        self.note_heard(now);
        if self.leads_anew(now) {
            return;
        }
        match word {
            ToNode::Everything { part, parts, piece, .. } => self.handle_part(now, from, part, parts, &piece),
            ToNode::Change { change, .. } => self.handle_change(now, from, &change),
            ToNode::Registered { changes, refused: None, .. } => self.routes.handle_decided(changes),
            ToNode::Registered { changes, refused: Some(why), .. } => {
                self.routes.handle_refused(changes, why)
            }
            ToNode::Health { all, changed, .. } => self.handle_health(all, changed),
            ToNode::Probe { member, within, .. } => self.handle_probe(member, within),
            ToNode::Lease { number, refused, .. } => self.leases.handle_outcome(number, refused, &self.copy),
            _ => {}
        }
    }

    /// A server that leads again in a higher term knows nothing of what it was told and said before.
    fn leads_anew(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Following { server, term } if term < self.term => {
                self.hello_again(now, server);
                true
            }
            _ => false,
        }
    }

    fn note_heard(&mut self, now: Instant) {
        self.word_at = now;
        if self.is_settled() {
            self.heard = now;
        }
    }

    /// Whether a leader of this term may speak: none with a higher one has spoken before.
    fn accepts(&mut self, term: u64) -> bool {
        if term < self.term {
            tracing::debug!(term, highest = self.term, "a leader of before still speaks");
            return false;
        }
        self.term = term;
        true
    }

    /// A ping of a server, and what it is answered.
    pub(crate) fn handle_ping(&mut self, now: Instant, from: MemberId, ping: Ping) -> Option<Pong> {
        if self.server() != Some(from) || !self.accepts(ping.term) {
            return None;
        }
        if self.is_following() {
            self.note_heard(now);
            if !self.leads_anew(now) && ping.index > self.copy.index() {
                let (_, since) = self.behind.unwrap_or((ping.index, now));
                self.behind = Some((ping.index, since));
            }
        }
        Some(Pong { term: ping.term, number: ping.number })
    }

    fn handle_refused(&mut self, now: Instant, why: Refusal) {
        if self.leaving {
            return self.left(false);
        }
        if why == Refusal::Refused(Refused::Gone) {
            return self.evict("it is a member no more");
        }
        self.refuse(now, why.to_string());
    }

    fn refuse(&mut self, now: Instant, why: String) {
        if let Some(unsaid) = self.refusals.note(now, why.clone()) {
            let server = self.seek.current();
            tracing::error!(server, why, unsaid, "the rendezvous does not let this node in");
        }
        self.refused = Some(why);
        self.fail(now, REFUSED_WAIT);
    }

    fn handle_welcome(
        &mut self,
        now: Instant,
        from: MemberId,
        cluster: ClusterId,
        (member, changes): (Member, u64),
    ) {
        if member.id != self.me.id || member.joined.is_none() {
            return;
        }
        self.me.joined = member.joined;
        self.phase = Phase::Following { server: from, term: self.term };
        self.word_at = now;
        self.seek.succeeded();
        self.put_off = None;
        self.welcomed = Some((cluster, Some(changes)));
        if self.copy.cluster().is_none() {
            self.copy.set_cluster(cluster);
        }
        if self.leaving {
            self.outputs.push_back(Output::Say(ToServer::Leave));
        }
        self.settle_in(now);
    }

    /// Once this node has a view that it is in, of the history that the leader goes by, it says what is its own.
    fn settle_in(&mut self, now: Instant) {
        let of_it = self.welcomed.as_ref().is_some_and(|(cluster, _)| self.copy.cluster() == Some(*cluster));
        if !of_it || self.told.is_none() {
            return;
        }
        let Some(changes) = self.welcomed.as_mut().and_then(|(_, changes)| changes.take()) else { return };
        self.refused = None;
        self.note_heard(now);
        let again = self.routes.handle_welcome(changes);
        self.outputs.extend(again.into_iter().map(Output::Say));
        self.leases.handle_welcome(self.me.id, &self.copy);
        self.reports.handle_welcome(now);
    }

    // ---- the copy ----

    fn not_applied(&mut self, now: Instant, from: MemberId, why: NotApplied) {
        match why {
            NotApplied::Old => {}
            NotApplied::Gap => {
                tracing::debug!("something is missing: asking for it");
                self.hello_again(now, from);
            }
            NotApplied::Broken(what) => {
                tracing::warn!(server = self.seek.current(), what, "the server says what cannot be");
                self.hello_again(now, from);
            }
        }
    }

    fn note_progress(&mut self, now: Instant) {
        self.behind =
            self.behind.filter(|(index, _)| *index > self.copy.index()).map(|(index, _)| (index, now));
    }

    fn handle_part(&mut self, now: Instant, from: MemberId, part: u32, parts: u32, piece: &Bytes) {
        self.note_progress(now);
        match self.copy.take_part(part, parts, piece) {
            Ok(None) => {}
            Ok(Some(everything)) => self.handle_everything(now, from, everything),
            Err(why) => self.not_applied(now, from, why),
        }
    }

    fn handle_everything(&mut self, now: Instant, from: MemberId, everything: Everything) {
        let Everything { cluster, index, view, .. } = everything;
        let newest = self.newest.unwrap_or(self.copy.view_id()).max(self.copy.view_id());
        if self.welcomed.as_ref().is_none_or(|(welcomed, _)| *welcomed != cluster) {
            return self.not_applied(
                now,
                from,
                NotApplied::Broken("everything of another cluster than its own"),
            );
        }
        let goes_on = match self.copy.cluster() {
            Some(ours) if ours != cluster => view.generation > newest.generation,
            // After a recovery the log may be shorter; within a generation it is not.
            Some(_) | None => {
                view.generation > newest.generation || (view >= newest && index >= self.copy.index())
            }
        };
        // Who was evicted comes again in a view that is newer than all it has seen.
        let goes_on = goes_on && (self.told.is_some() || self.newest.is_none_or(|newest| view > newest));
        if !goes_on {
            let why = format!(
                "the servers' history ends at view {view}, this node has seen view {newest}: if their disks are lost, say so there: karere rendezvous recover"
            );
            return self.refuse(now, why);
        }
        let stays = |(member, _): &(Member, _)| self.copy.members().contains_key(&member.id);
        let same =
            everything.members.len() == self.copy.members().len() && everything.members.iter().all(stays);
        if self.told.is_some() && view <= newest && !same {
            return self.not_applied(now, from, NotApplied::Broken("other members in the same view"));
        }
        self.copy.become_everything(&everything);
        self.hellos = 0;
        self.note_progress(now);
        if !self.copy.members().contains_key(&self.me.id) {
            return self.evict("it is not in the view");
        }
        self.early.clear();
        let there: BTreeSet<MemberId> = self.others().collect();
        let before = self.told.replace(there.clone());
        let known = before.clone().unwrap_or_default();
        if before.is_none() || self.newest.is_none_or(|newest| view > newest) {
            let down = known.difference(&there).copied().collect();
            self.install(down, there.difference(&known).copied().collect());
        }
        for (member, routes) in everything.members {
            if member.id != self.me.id {
                let change = RouteChange { added: routes, removed: Vec::new() };
                self.outputs.push_back(Output::Routes { member: member.id, anew: true, change });
            }
        }
        self.health.retain(|id, _| self.copy.members().contains_key(id));
        self.reports.keep(|id| self.copy.members().contains_key(&id));
        self.leases.handle_copy(None::<std::iter::Empty<&str>>, &self.copy);
        self.settle_in(now);
    }

    fn handle_change(&mut self, now: Instant, from: MemberId, bytes: &Bytes) {
        let of_it = self.welcomed.as_ref().is_some_and(|(cluster, _)| self.copy.cluster() == Some(*cluster));
        if !of_it {
            // First everything, to be judged.
            return self.not_applied(now, from, NotApplied::Gap);
        }
        let Ok((change, [])) = postcard::take_from_bytes::<Change>(bytes) else {
            return self.not_applied(now, from, NotApplied::Broken("a change that cannot be read"));
        };
        if let Err(why) = self.copy.apply(&change) {
            return self.not_applied(now, from, why);
        }
        self.hellos = 0;
        self.note_progress(now);
        for (id, _) in &change.left {
            self.health.remove(id);
            self.reports.forget(*id);
        }
        if let Some((_, why)) = change.left.iter().find(|(id, _)| *id == self.me.id) {
            let why = why.to_string();
            return self.evict(&why);
        }
        match &mut self.told {
            None => self.apply_early(&change),
            Some(told) => {
                for (id, _) in &change.left {
                    told.remove(id);
                }
                told.extend(change.joined.iter().map(|member| member.id));
                if change.view.is_some() {
                    let down = change.left.iter().map(|(id, _)| *id).collect();
                    let me = self.me.id;
                    let up = change.joined.iter().map(|member| member.id).filter(|id| *id != me).collect();
                    self.install(down, up);
                }
                let others = change.routes.into_iter().filter(|routes| routes.member != self.me.id);
                self.outputs.extend(others.map(|RoutesChange { member, anew, add, remove }| {
                    let change = RouteChange { added: add, removed: remove };
                    Output::Routes { member, anew, change }
                }));
            }
        }
        self.leases.handle_copy(Some(change.leases.iter().map(|lease| lease.name.as_str())), &self.copy);
        self.settle_in(now);
    }

    /// As long as this node is in no view, the router hears nothing: what changes is kept for it.
    fn apply_early(&mut self, change: &Change) {
        change.left.iter().for_each(|(id, _)| drop(self.early.remove(id)));
        for routes in &change.routes {
            let room = ROUTES_MAX.saturating_sub(self.early.values().map(BTreeSet::len).sum());
            let known = self.early.entry(routes.member).or_default();
            if routes.anew {
                known.clear();
            }
            for route in &routes.remove {
                known.remove(route);
            }
            known.extend(routes.add.iter().take(room).cloned());
        }
        let is_newer = self.newest.is_none_or(|newest| self.copy.view_id() > newest);
        if !is_newer || !self.copy.members().contains_key(&self.me.id) {
            return;
        }
        let there: BTreeSet<MemberId> = self.others().collect();
        self.told = Some(there.clone());
        self.install(Vec::new(), there.into_iter().collect());
        let early: BTreeMap<MemberId, BTreeSet<Route>> = std::mem::take(&mut self.early);
        for (member, routes) in early.into_iter().filter(|(member, _)| *member != self.me.id) {
            let change = RouteChange { added: routes.into_iter().collect(), removed: Vec::new() };
            self.outputs.push_back(Output::Routes { member, anew: true, change });
        }
    }

    fn others(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.copy.members().keys().copied().filter(|id| *id != self.me.id)
    }

    fn install(&mut self, down: Vec<MemberId>, up: Vec<MemberId>) {
        let view = self.copy.view();
        self.newest = self.newest.max(Some(view.id()));
        self.evicted = false;
        self.outputs.push_back(Output::View { down, view, up });
    }

    /// This member is one no more: it becomes another one, of which nothing is known.
    fn evict(&mut self, why: &str) {
        if self.leaving {
            return self.left(false);
        }
        tracing::warn!(member = %self.me.id, why, "this node is a member no more; it comes again as another one");
        let server = self.server();
        self.lose_leader();
        self.leases.handle_reborn();
        self.routes.handle_reborn();
        self.reports.clear();
        self.copy.forget();
        self.early.clear();
        self.health.clear();
        (self.told, self.welcomed, self.me.joined) = (None, None, None);
        self.evicted = true;
        self.refused = None;
        self.phase = Phase::Reborn { server };
        self.outputs.push_back(Output::Reincarnate);
    }

    fn handle_health(&mut self, all: bool, changed: Vec<(MemberId, Health)>) {
        if all {
            self.health.clear();
        }
        for (id, health) in changed {
            match health {
                Health::Healthy => drop(self.health.remove(&id)),
                _ if self.copy.members().contains_key(&id) => drop(self.health.insert(id, health)),
                _ => {}
            }
        }
    }

    fn handle_probe(&mut self, member: MemberId, within: Duration) {
        if self.probes < PROBES_MAX && member != self.me.id && self.copy.members().contains_key(&member) {
            self.probes += 1;
            self.outputs.push_back(Output::Probe { member, within: within.min(PROBE_MAX) });
        }
    }
}
