//! What an application does: flows begin, hosts come and go, handlers work, and nobody waits any more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::super::envelope::{ActorRef, Distribution};
use super::super::{Order, Product, Scope, Work};
use super::{Blob, Message, Run, key};
use crate::MemberId;

impl Run {
    pub(super) fn begin(&mut self, at: MemberId, asks: bool) {
        let (what, ways) = (self.u8(), self.u8());
        let (tag, token) = (self.next, self.next as u32);
        self.next += 1;
        let to = match ways & 7 {
            0 if !asks => Distribution::Broadcast,
            1 => Distribution::Node(self.anybody()),
            2 => Distribution::Actor(ActorRef { node: self.anybody(), host: u32::from(what >> 5) }),
            _ => Distribution::Unicast,
        };
        let order = Order {
            key: key(what).id(),
            body: Blob::of(tag),
            to,
            time_to_live: Duration::from_millis(u64::from(ways) * 20),
            idempotent: what & 16 != 0,
            affinity: (ways & 8 != 0).then(|| u64::from(ways >> 4)),
            trace: None,
            trail: ways & 16 != 0,
            watch: (what & 8 != 0).then_some(tag),
            tell: what & 8 != 0,
        };
        let message = Message {
            token: asks.then_some(token),
            twice: order.idempotent,
            handled: BTreeMap::new(),
            to_all: to == Distribution::Broadcast,
        };
        self.messages.insert(tag, message);
        if !asks {
            self.act(at, |core, now| core.submit(now, order).is_ok());
            return;
        }
        let keys = vec![key(3).id()];
        // Before it begins: it may end at once.
        self.open.insert(token);
        let asked =
            self.act(at, |core, now| core.request(now, 1, keys.into_iter().collect(), token, order).ok());
        match (asked.flatten(), self.sides.get_mut(&at)) {
            (Some(promise), Some(side)) => side.promises.push(promise),
            _ => drop(self.open.remove(&token)),
        }
    }

    pub(super) fn change_hosts(&mut self, at: MemberId) {
        let what = self.u8();
        let hosts = self.sides.get(&at).map_or(&[][..], |side| &side.hosts);
        let host = hosts.get(usize::from(what >> 4) % hosts.len().max(1)).copied();
        match (what & 3, host) {
            (0, Some(host)) => {
                if let Some(side) = self.sides.get_mut(&at) {
                    side.hosts.retain(|other| *other != host);
                }
                self.act(at, |core, now| core.remove_host(now, host));
            }
            (1, Some(host)) => {
                let id = key(what >> 2).id();
                self.act(at, |core, now| core.remove_routes(now, host, &[id]));
            }
            _ => {
                let scope = if what & 128 == 0 { Scope::Network } else { Scope::Local };
                let keys = [(key(what >> 2), scope), (key(what >> 4), Scope::Network)];
                let added = self.act(at, |core, now| core.add_host(now, &keys).ok()).flatten();
                self.sides.get_mut(&at).into_iter().for_each(|side| side.hosts.extend(added));
            }
        }
    }

    pub(super) fn next_work(&mut self, at: MemberId) {
        let Some(side) = self.sides.get(&at) else { return };
        let hosts = side.hosts.clone();
        for host in hosts {
            let Some(work) = self.act(at, |core, now| core.next_work(now, host)).flatten() else { continue };
            assert!(work.expires > self.now, "what is late is handled");
            if let Some(message) = work.body.tag().and_then(|tag| self.messages.get_mut(&tag)) {
                let times = message.handled.entry(ActorRef { node: at, host }).or_default();
                *times += 1;
                let all: u32 = if message.to_all { *times } else { message.handled.values().sum() };
                assert!(all == 1 || message.twice || self.hostile, "handled {all} times: {message:?}");
            }
            if let Some(side) = self.sides.get_mut(&at) {
                side.busy.push((host, work));
            }
        }
    }

    pub(super) fn handled(&mut self, at: MemberId) {
        let what = self.u8();
        let Some(side) = self.sides.get_mut(&at).filter(|side| !side.busy.is_empty()) else { return };
        let (_, work) = side.busy.swap_remove(usize::from(what >> 2) % side.busy.len());
        let outcome = if what & 3 == 3 {
            Err("no luck".to_owned())
        } else {
            Ok((0..what & 3).map(|_| self.product(&work)).collect())
        };
        self.act(at, |core, now| core.handle_handled(now, work.job, &work.envelope, work.expires, outcome));
    }

    fn product(&mut self, of: &Work<Blob>) -> Product<Blob> {
        let what = self.u8();
        let tag = self.next;
        self.next += 1;
        let token = of.body.tag().and_then(|tag| self.messages.get(&tag)).and_then(|message| message.token);
        let to_all = what & 0xf0 == 0xf0;
        let message = Message { token, twice: what & 8 != 0, handled: BTreeMap::new(), to_all };
        self.messages.insert(tag, message);
        let to = if to_all { Distribution::Broadcast } else { Distribution::Unicast };
        let key = key(what).id();
        Product { key, body: Blob::of(tag), to, affinity: None, idempotent: what & 8 != 0 }
    }

    /// Nobody waits for an answer any more, or nobody of a hub.
    pub(super) fn give_up(&mut self, at: MemberId) {
        let what = self.u8();
        let Some(side) = self.sides.get_mut(&at) else { return };
        let given_up = if what == 0 {
            side.core.close_promises(Some(1))
        } else {
            let promise = side.promises.get(usize::from(what) % side.promises.len().max(1));
            promise.and_then(|promise| side.core.drop_promise(*promise)).into_iter().collect()
        };
        for token in given_up {
            assert!(self.open.remove(&token), "{token} had ended");
        }
    }
}
