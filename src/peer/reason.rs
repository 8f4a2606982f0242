//! Why a session is kept, and where its peer can be dialled.

use std::sync::Arc;
use std::time::Instant;

use crate::member::Endpoint;

/// Names one contact handle of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ContactId(pub(crate) u64);

/// Where to dial, and for whose certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    /// The name that the certificate there must cover; `None`: the host of the endpoint. Without TLS it says nothing.
    pub(crate) name: Option<Arc<str>>,
}

impl From<Endpoint> for Place {
    fn from(endpoint: Endpoint) -> Self {
        Self { endpoint, name: None }
    }
}

/// A session lives while a reason holds it.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    /// Handles, with the address each was given: dialled as given, not as advertised.
    contacts: Vec<(ContactId, Place)>,
    /// The view holds the peer, and says that it can be reached there.
    view: Option<Arc<[Place]>>,
    /// The peer dialled: it has a reason of its own, and this side keeps the session while a link is up and for a
    /// lease after.
    peer_dialled: bool,
    /// When the lease is over; set while no link is up.
    lease: Option<Instant>,
    turn: usize,
    /// The peer is this process itself.
    oneself: bool,
}

impl Reasons {
    pub(crate) fn add_contact(&mut self, contact: ContactId, place: Place) {
        self.contacts.push((contact, place));
    }

    pub(crate) fn remove_contact(&mut self, contact: ContactId) {
        self.contacts.retain(|(other, _)| *other != contact);
    }

    /// The view holds the peer; or does not any more.
    pub(crate) fn set_view(&mut self, places: Option<Arc<[Place]>>) {
        self.view = places;
    }

    /// Whether the view holds the peer.
    pub(crate) const fn is_in_view(&self) -> bool {
        self.view.is_some()
    }

    /// Whether a handle holds it.
    #[cfg(test)]
    pub(crate) fn has_contact(&self) -> bool {
        !self.contacts.is_empty()
    }

    /// A process always keeps the session with itself.
    pub(crate) fn set_oneself(&mut self) {
        self.oneself = true;
    }

    /// Contacts at an address where somebody else was found.
    pub(crate) fn remove_contacts_at(&mut self, place: &Place) -> Vec<ContactId> {
        let gone = self.contacts.extract_if(.., |(_, at)| at == place);
        gone.map(|(contact, _)| contact).collect()
    }

    pub(crate) fn set_peer_dialled(&mut self) {
        self.peer_dialled = true;
    }

    /// The link is gone; without another reason the lease begins.
    pub(crate) fn start_lease(&mut self, until: Instant) {
        if self.peer_dialled {
            self.lease = Some(until);
        }
    }

    pub(crate) fn end_lease(&mut self) {
        self.lease = None;
    }

    /// When to look again, if only the lease holds the session.
    pub(crate) fn lease(&self) -> Option<Instant> {
        if self.is_passive() { self.lease } else { None }
    }

    /// Whether this side may dial.
    pub(crate) fn may_dial(&self) -> bool {
        !self.oneself && self.places().next().is_some()
    }

    /// Whether its link may be closed when it is idle: no contact holds it, and this side can dial it again.
    pub(crate) fn may_idle(&self) -> bool {
        self.contacts.is_empty() && self.may_dial()
    }

    /// Whether only the lease, or a link that the peer dialled, holds the session.
    pub(crate) fn is_passive(&self) -> bool {
        self.contacts.is_empty() && self.view.is_none()
    }

    /// Whether something holds it. A live link counts only if the peer dialled once.
    pub(crate) fn hold(&self, link_up: bool) -> bool {
        self.oneself || !self.is_passive() || self.lease.is_some() || (link_up && self.peer_dialled)
    }

    /// For a model checker; see `Peer::digest`. Which of several addresses has its turn does not count: they lead to the
    /// same process there.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn digest(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let Self { contacts, view, peer_dialled, lease, turn: _, oneself } = self;
        (contacts.len(), view.is_some(), peer_dialled, lease.is_some(), oneself).hash(into);
    }

    /// Where the peer may be: first where a contact was told, then what it advertises in the view.
    fn places(&self) -> impl Iterator<Item = &Place> {
        let contacts = self.contacts.iter().map(|(_, place)| place);
        contacts.chain(self.view.iter().flat_map(|places| places.iter()))
    }

    /// Where to dial next; several addresses take turns.
    pub(crate) fn next_place(&mut self) -> Option<Place> {
        let at = self.turn.checked_rem(self.places().count())?;
        self.turn = self.turn.wrapping_add(1);
        self.places().nth(at).cloned()
    }
}
