//! Contacts: who is at an address, kept for as long as a handle is held, and followed when another member comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::search::Patience;
use super::{Driver, Registry, clock, search};
use crate::member::MemberId;
use crate::peer::{ContactId, Finding, PeerEvent, Place};

/// A contact that a handle holds.
#[derive(Debug)]
pub(super) struct Held {
    place: Place,
    found: watch::Sender<MemberId>,
}

impl Driver {
    /// Who is at this address? Asks until somebody answers. Cancel safe: dropping the future ends the search.
    #[cfg(test)]
    pub(crate) async fn search(self: &Arc<Self>, place: Place) -> Finding {
        self.search_from(place, false).await.0
    }

    /// The same, and from which address of this side; `once`: one attempt only.
    pub(crate) async fn search_from(
        self: &Arc<Self>,
        place: Place,
        once: bool,
    ) -> (Finding, Option<SocketAddr>) {
        let patience = if once { Patience::Once } else { Patience::For(self.contact_give_up) };
        search::run(self, place, patience).await
    }

    /// Keeps the session with a member found at an address. `None`: closed.
    pub(crate) fn hold(
        self: &Arc<Self>,
        id: MemberId,
        place: Place,
    ) -> Option<(ContactId, watch::Receiver<MemberId>)> {
        let mut registry = self.registry.lock();
        if registry.closed {
            return None;
        }
        let contact = ContactId(self.next_contact.fetch_add(1, Ordering::Relaxed));
        let (found, watcher) = watch::channel(id);
        registry.contacts.insert(contact, Held { place: place.clone(), found });
        self.attach_contact(&registry, id, contact, place);
        Some((contact, watcher))
    }

    fn attach_contact(self: &Arc<Self>, registry: &Registry, id: MemberId, contact: ContactId, place: Place) {
        let handle = self.peer_or_new(registry, id);
        handle.peer.lock().add_contact(clock::now(), contact, place);
        handle.doorbell.ring();
    }

    /// The handle of a contact is gone.
    pub(crate) fn release(&self, contact: ContactId) {
        let held = self.registry.lock().contacts.remove(&contact);
        if let Some(handle) = held.and_then(|held| self.peer(*held.found.borrow())) {
            handle.peer.lock().remove_contact(contact);
            handle.doorbell.ring();
        }
    }

    /// This process is another member: its contacts are the same, in new sessions.
    pub(super) fn renew_contacts(self: &Arc<Self>, registry: &mut Registry, old: MemberId, new: MemberId) {
        let contacts: Vec<_> =
            registry.contacts.iter().map(|(id, held)| (*id, *held.found.borrow())).collect();
        for (contact, with) in contacts {
            // Whoever departed is being looked for already, or rather whoever comes in its place.
            if registry.roster.seat(with).gone.is_none() {
                self.go_over(registry, contact, if with == old { new } else { with });
            }
        }
    }

    /// Another member was found at the address of these contacts: they go over to it. In a task of its own, because
    /// the caller holds the lock of the peer that was there.
    pub(super) fn replaced(self: &Arc<Self>, contacts: Vec<ContactId>, by: MemberId) {
        let driver = Arc::clone(self);
        self.spawn(async move {
            let mut registry = driver.registry.lock();
            for contact in contacts {
                driver.go_over(&mut registry, contact, by);
            }
        });
    }

    /// A member that contacts were held for has departed: they go on looking for whoever comes to their addresses.
    pub(super) fn seek_others(self: &Arc<Self>, registry: &Registry, departed: MemberId) {
        for (contact, held) in &registry.contacts {
            if *held.found.borrow() == departed {
                let (driver, contact, place) = (Arc::clone(self), *contact, held.place.clone());
                let mut released = held.found.subscribe();
                self.spawn(async move {
                    let seek = async {
                        let by = search::another(&driver, place, departed).await;
                        driver.go_over(&mut driver.registry.lock(), contact, by);
                        driver.event(PeerEvent::Replaced { old: departed, new: by });
                    };
                    tokio::select! {
                        biased;
                        () = driver.stop.cancelled() => {}
                        _released = released.changed() => {}
                        () = seek => {}
                    }
                });
            }
        }
    }

    /// Another member was found at the address of a contact, if that is still held.
    fn go_over(self: &Arc<Self>, registry: &mut Registry, contact: ContactId, to: MemberId) {
        let Some(held) = registry.contacts.get(&contact) else { return };
        let place = held.place.clone();
        held.found.send_replace(to);
        if !registry.closed {
            self.attach_contact(registry, to, contact, place);
        }
    }
}
