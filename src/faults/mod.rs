//! A TCP proxy that breaks things on purpose: for tests, for the demo, and for whoever wants to see it break.
//!
//! A [`Plan`] says from one seed what goes wrong and when; a [`Proxy`] stands between a client and a target
//! on real sockets and does it. [`FaultCounts`] counts only what really happened, [`FaultEvents`] tells it
//! live.
//!
//! | fault | what both ends see |
//! |---|---|
//! | [`Fault::Reset`] | `ECONNRESET` |
//! | [`Fault::Cut`] | exactly N bytes of one direction, then an end of file or a reset |
//! | [`Fault::Flip`] | one bit of one byte is wrong, nothing else |
//! | [`Fault::Silence`] | nothing, for ever: no bytes, no close |
//! | [`Fault::OneWay`] | nothing in one direction; the other goes on |
//! | [`Fault::Delay`] | every byte later, in order |
//! | [`Fault::Rate`] | few bytes a second through small buffers |
//! | [`Fault::Refuse`] | new connections are reset at once |
//!
//! ```no_run
//! # async fn show() -> std::io::Result<()> {
//! use karere::faults::{Fault, Plan, Proxy, Schedule};
//!
//! let schedule = Schedule { reset_every_ms: Some((150..=600).into()), ..Schedule::default() };
//! let target = "127.0.0.1:7000".parse().expect("an address");
//! let proxy = Proxy::start("127.0.0.1:0".parse().expect("an address"), target, Plan::new(7, schedule))?;
//! proxy.inject(Fault::Silence { drain: false });
//! proxy.heal();
//! println!("{:?}", proxy.counts());
//! proxy.stop().await;
//! # Ok(())
//! # }
//! ```

mod counts;
mod events;
mod fate;
mod lane;
mod link;
mod pacer;
mod parting;
mod pipe;
mod plan;
mod proxy;
mod registry;
mod schedule;
mod scheduler;
mod shared;
mod timeline;

#[cfg(test)]
mod tests;

pub use counts::FaultCounts;
pub use events::{FaultEvent, FaultEvents};
pub use plan::{Direction, Ending, Episode, Fault, Hits, Plan, Rate};
pub use proxy::Proxy;
pub use schedule::{DelaySpells, Pace, RateSpells, RefuseSpells, Schedule, Span};
pub use timeline::Timeline;
