//! What a membership system does with a messenger: installs views, becomes another member.

use std::sync::Arc;

use super::Messenger;
use crate::member::{Member, MemberId, View};
use crate::peer::{ViewChange, ViewError};

/// Why this process did not become another member: the messenger is closed, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the messenger is closed: {0}")]
pub struct ReincarnateError(&'static str);

impl Messenger {
    /// Installs the view that a membership system has decided, if it is newer than the one before. Atomic: when it
    /// returns, all who joined can be sent to, and nothing is taken for those who left. Never waits.
    ///
    /// Members are dialled when something is sent to them, at the endpoints that the view says, or by
    /// [`Messenger::preconnect`]. What members sent that this one did not know yet was held, and comes now.
    ///
    /// Who left: its queue, socket, dial and timers go within 100 ms, whoever waits for it is woken, its receipts end as
    /// departed; it is told `Removed`, and is never spoken with again under that id. What it had sent and we had
    /// accepted is still handled.
    ///
    /// # Errors
    ///
    /// [`ViewError`], each with what it leaves: above all [`ViewError::Expelled`], when this member is not in it.
    pub fn install_view(&self, view: View) -> Result<ViewChange, ViewError> {
        if let Some(by) = self.inner.closed.get() {
            return Err(ViewError::Closed(by));
        }
        self.inner.shared.driver.install_view(view)
    }

    /// The view that is installed.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.inner.shared.driver.view()
    }

    /// Dials these members of the view now, and not when something is first sent to them. Others are passed over.
    pub fn preconnect(&self, members: impl IntoIterator<Item = MemberId>) {
        self.inner.shared.driver.preconnect(members);
    }

    /// Becomes another member, with a new id: after this process was expelled, and before it joins again. Every session
    /// ends (what was written is indeterminate, the rest not sent), byte streams with them; no view is installed. Handlers,
    /// contacts, events and the address stay; no event tells of the sessions that end by this. Others are told nothing: whoever meets the new member has the evidence.
    ///
    /// # Errors
    ///
    /// The messenger is closed; nothing has changed.
    pub fn reincarnate(&self) -> Result<Member, ReincarnateError> {
        let closed = || ReincarnateError(self.closed_by());
        if self.inner.closed.get().is_some() {
            return Err(closed());
        }
        self.inner.shared.driver.reincarnate().map_err(|_closed| closed())
    }
}
