//! Contacts, for threads.

use std::time::Duration;

use super::Messenger;
use crate::driver::own;
use crate::member::{Endpoint, MemberId};
use crate::messenger::{self, ContactError};

/// Keeps the session with the member found at an address, until it is dropped; as [`karere::Contact`](crate::Contact).
/// Does not keep the messenger open.
#[derive(Debug)]
#[must_use = "dropping a contact ends its session"]
pub struct Contact {
    contact: messenger::Contact,
}

impl Messenger {
    /// Finds out who is at an address, outside any view, and keeps a session with that member until the handle is dropped;
    /// as [`karere::Messenger::contact`](crate::Messenger::contact). Waits for at most
    /// [`Timeouts::contact_give_up`](crate::Timeouts).
    ///
    /// # Errors
    ///
    /// [`ContactError`]; nothing is kept.
    pub fn contact(&self, address: impl AsRef<str>) -> Result<Contact, ContactError> {
        self.wait(self.core.messenger.contact(address)).map(|contact| Contact { contact })
    }

    /// As [`Messenger::contact`], and the certificate there must be for this name; as
    /// [`karere::Messenger::contact_named`](crate::Messenger::contact_named).
    ///
    /// # Errors
    ///
    /// [`ContactError`]; nothing is kept.
    pub fn contact_named(
        &self,
        address: impl AsRef<str>,
        name: impl AsRef<str>,
    ) -> Result<Contact, ContactError> {
        self.wait(self.core.messenger.contact_named(address, name)).map(|contact| Contact { contact })
    }
}

impl Contact {
    /// Who is there now. Another member after [`Contact::replaced`].
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.contact.id()
    }

    /// The address that is dialled, as it was given.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        self.contact.endpoint()
    }

    /// Waits until another member than the first is found at the address, and says who; `None` when the time is over.
    #[must_use]
    pub fn replaced(&self, timeout: Duration) -> Option<MemberId> {
        own::wait_for(self.contact.replaced(), timeout)
    }
}
