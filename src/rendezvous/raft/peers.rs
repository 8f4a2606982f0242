//! Who is at the other servers' addresses: a contact to each, kept as long as the address counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::SERVERS_MAX;
use super::tasks::Context;
use crate::{Contact, ContactError, MemberId, Messenger};

/// Addresses at the same time: those of a membership and of a list that have nothing in common.
const ADDRESSES_MAX: usize = 2 * SERVERS_MAX;
/// Between attempts at an address whose owner refuses, or that cannot be one.
const REFUSED: Duration = Duration::from_secs(5);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Peers {
    messenger: Messenger,
    context: Context,
    /// `None`: nobody was met there yet.
    contacts: Mutex<BTreeMap<String, Option<Contact>>>,
}

impl Peers {
    pub(super) fn new(messenger: Messenger, context: Context) -> Arc<Self> {
        Arc::new(Self { messenger, context, contacts: Mutex::default() })
    }

    /// Who is at an address now, if anybody was met there.
    pub(super) fn at(&self, address: &str) -> Option<MemberId> {
        self.contacts.lock().get(address)?.as_ref().map(Contact::id)
    }

    /// From now on there is a contact to this address. Says whether there is room for one.
    pub(super) fn keep(self: &Arc<Self>, address: &str) -> bool {
        let mut contacts = self.contacts.lock();
        if contacts.contains_key(address) {
            return true;
        }
        if contacts.len() >= ADDRESSES_MAX {
            return false;
        }
        contacts.insert(address.to_owned(), None);
        drop(contacts);
        let (peers, address) = (Arc::clone(self), address.to_owned());
        self.context.spawn(async move { peers.meet(address).await });
        true
    }

    /// Only these count any more.
    pub(super) fn keep_only(&self, wanted: &BTreeSet<String>) {
        let mut gone = Vec::new();
        self.contacts.lock().retain(|address, contact| {
            let stays = wanted.contains(address);
            if !stays {
                gone.push(contact.take());
            }
            stays
        });
        // Contacts end outside the lock.
        drop(gone);
    }

    async fn meet(&self, address: String) {
        loop {
            let met = self.messenger.contact(&address).await;
            if !self.contacts.lock().contains_key(&address) {
                return;
            }
            match met {
                Ok(contact) => {
                    if let Some(place) = self.contacts.lock().get_mut(&address) {
                        *place = Some(contact);
                    }
                    return;
                }
                Err(ContactError::Closed(_)) => return,
                Err(ContactError::GaveUp { .. }) => tracing::debug!(address, "nobody met yet"),
                Err(why) => {
                    tracing::warn!(address, "{why}");
                    tokio::time::sleep(REFUSED).await;
                }
            }
        }
    }
}
