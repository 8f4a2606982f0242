//! karere
#![allow(dead_code, unused_imports)]
#[cfg(feature = "faults")]
pub mod faults;
mod config;
mod driver;
mod limits;
mod link;
mod member;
mod messenger;
mod peer;
mod session;
mod wire;

pub use config::{ConfigError, Limits, Timeouts};
pub use member::{Endpoint, EndpointError, Member, MemberId, MemberIdError, ViewId};
pub use messenger::{
    Books, Builder, ByteStream, ClassSender, Contact, ContactError, EncodeError, Events, HandlerError, Kind, Message,
    Messenger, OpenError, Outgoing, PeerStats, Raw, SendError, SendReport, StartError, Stats, StreamError, StreamStats,
    Unmatched,
};
pub use peer::{Disconnect, PeerEvent};
pub use session::{Cause, Lost, Receipt};
pub use wire::{Class, Versions};
