//! How byte streams reach their peer's queue.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::Bytes;

use super::bytes::{Port, PushError};
use crate::driver::PeerHandle;
use crate::member::MemberId;
use crate::session::{Body, Cause, Outgoing, Refused, SharedIntake};
use crate::wire::{Class, Epoch, Protocol, StreamId};

/// The type under which byte streams travel; its protocol has no other.
const HASH: u32 = 0;
const VERSION: u16 = 1;

/// See the module's text. Holds the peer weakly: the peer holds the streams, they hold this.
pub(super) struct PeerPort {
    peer: MemberId,
    intake: SharedIntake,
    handle: Weak<PeerHandle>,
    /// The session whose byte streams these are, as far as they have been told.
    epoch: AtomicU64,
}

impl PeerPort {
    pub(super) fn new(handle: &Arc<PeerHandle>) -> Self {
        let epoch = handle.intake.lock().epoch();
        Self {
            peer: handle.id,
            intake: Arc::clone(&handle.intake),
            handle: Arc::downgrade(handle),
            epoch: AtomicU64::new(epoch.0),
        }
    }

    /// The byte streams were told that their session is over; what they send now is the next one's.
    pub(super) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::SeqCst);
    }
}

impl Port for PeerPort {
    fn push(&self, class: Class, body: Bytes, waker: Option<&Waker>) -> Result<(), PushError> {
        let out = Outgoing {
            stream: StreamId::new(Protocol::BYTES, class, true),
            hash: HASH,
            version: VERSION,
            body: Body::Shared(&body),
            reply: &|| false,
        };
        let pushed = {
            let mut intake = self.intake.lock();
            if intake.epoch().0 != self.epoch.load(Ordering::SeqCst) {
                // The session has ended, and the streams do not know yet: nothing of theirs goes into the next.
                return Err(PushError::Closed(Cause::SessionLost));
            }
            match (intake.push(out, None), waker) {
                (Err(Refused::Full(no_room)), Some(waker)) => {
                    intake.wake_at_room(waker, no_room);
                    // Room that came back in another queue meanwhile would not wake anybody.
                    intake.push(out, None)
                }
                (pushed, _) => pushed,
            }
        };
        match pushed {
            Ok(wake) => {
                if wake && let Some(handle) = self.handle.upgrade() {
                    handle.doorbell.ring();
                }
                Ok(())
            }
            Err(Refused::Full(_)) => Err(PushError::Full),
            Err(Refused::Closed(cause)) => Err(PushError::Closed(cause)),
        }
    }
}

impl fmt::Debug for PeerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerPort({:.8})", self.peer)
    }
}
