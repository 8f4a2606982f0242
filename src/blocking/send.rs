//! Sending from threads: the same calls, waiting on the thread that calls.

use std::time::Duration;

use super::Messenger;
use crate::driver::own;
use crate::member::MemberId;
use crate::messenger::{self, Outgoing, SendError, SendReport, is_within_handler};
use crate::session::{self, Lost};
use crate::wire::Class;

impl Messenger {
    /// Queues a message for each recipient and never waits, as [`karere::Messenger::send`](crate::Messenger::send).
    ///
    /// # Errors
    ///
    /// [`SendError`]: the message cannot be sent to anybody.
    pub fn send<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
    ) -> Result<SendReport, SendError> {
        self.core.messenger.send(message, recipients)
    }

    /// Queues a message wherever there is room, then waits for the rest, each separately. When the time is over, those that
    /// are still full are in the report. Woken by room, by the removal of the recipient and by the end of the messenger.
    ///
    /// Two programs whose threads wait for room for each other before they take what comes wait for the whole timeout:
    /// take and send on different threads, or answer with [`Messenger::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`], [`SendError::WithinHandler`] in a handler.
    pub fn send_wait<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        timeout: Duration,
    ) -> Result<SendReport, SendError> {
        self.class(Class::Normal).send_wait(message, recipients, timeout)
    }

    /// Queues a message for one recipient and tells what becomes of it. Never waits.
    ///
    /// # Errors
    ///
    /// [`SendError`], with [`SendError::Absent`] and [`SendError::Full`]: it was not queued.
    pub fn send_with_receipt<M: Outgoing>(
        &self,
        message: &M,
        recipient: MemberId,
    ) -> Result<Receipt, SendError> {
        self.class(Class::Normal).send_with_receipt(message, recipient)
    }

    /// Sends in a class: urgent messages overtake normal ones, bulk gives way to both. Order holds within a class.
    #[must_use]
    pub fn class(&self, class: Class) -> ClassSender<'_> {
        ClassSender { messenger: self, sender: self.core.messenger.class(class) }
    }
}

/// A way to send in one class; see [`Messenger::class`].
#[derive(Clone, Debug)]
pub struct ClassSender<'a> {
    pub(super) messenger: &'a Messenger,
    pub(super) sender: messenger::ClassSender<'a>,
}

impl ClassSender<'_> {
    /// As [`Messenger::send`], in this class.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::send`].
    pub fn send<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
    ) -> Result<SendReport, SendError> {
        self.sender.send(message, recipients)
    }

    /// As [`Messenger::send_with_receipt`], in this class.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::send_with_receipt`].
    pub fn send_with_receipt<M: Outgoing>(
        &self,
        message: &M,
        recipient: MemberId,
    ) -> Result<Receipt, SendError> {
        self.sender.send_with_receipt(message, recipient).map(|receipt| Receipt { receipt })
    }

    /// As [`Messenger::send_wait`], in this class.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::send_wait`].
    pub fn send_wait<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        timeout: Duration,
    ) -> Result<SendReport, SendError> {
        if is_within_handler() {
            return Err(SendError::WithinHandler);
        }
        // Most often there is room, and the runtime is not needed.
        let mut report = self.sender.send(message, recipients)?;
        if report.full.is_empty() {
            return Ok(report);
        }
        let full = std::mem::take(&mut report.full);
        match self.messenger.wait(self.sender.send_wait(message, full.iter().copied(), timeout)) {
            Ok(rest) => {
                report.queued += rest.queued;
                report.absent.extend(rest.absent);
                report.full = rest.full;
            }
            // Closed between the two: nobody takes it any more, as for those who wait when it closes.
            Err(_closed) => report.absent.extend(full),
        }
        Ok(report)
    }
}

/// Why a receipt did not say what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The message is lost, or nobody knows whether it was handled.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// It is still under way; ask again.
    #[error("not known in time")]
    TimedOut,
}

/// What became of one message. May be waited for by several threads; keeps no messenger open.
#[derive(Clone, Debug)]
#[must_use = "a receipt that nobody looks at costs memory and tells nothing"]
pub struct Receipt {
    receipt: session::Receipt,
}

impl Receipt {
    /// Waits until the message is in the receiver's memory.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Lost`] says whether it is safe to send it again; [`ReceiptError::TimedOut`] changes nothing.
    pub fn acked(&self, timeout: Duration) -> Result<(), ReceiptError> {
        known(own::wait_for(self.receipt.acked(), timeout))
    }

    /// Waits until the receiver is done with the message: its handler has returned or panicked, or it is in the channel of
    /// a [`blocking::Receiver`](crate::blocking::Receiver).
    ///
    /// # Errors
    ///
    /// As for [`Receipt::acked`]; `Indeterminate` also when the session ended between the two.
    pub fn handled(&self, timeout: Duration) -> Result<(), ReceiptError> {
        known(own::wait_for(self.receipt.handled(), timeout))
    }

    /// What is known now: `None` while the message is pending.
    #[must_use]
    pub fn now(&self) -> Option<Result<(), Lost>> {
        self.receipt.now()
    }
}

fn known(outcome: Option<Result<(), Lost>>) -> Result<(), ReceiptError> {
    Ok(outcome.ok_or(ReceiptError::TimedOut)??)
}
