//! Servers on real sockets, and nodes whose every word is scripted.

mod cluster;
mod joining;
mod leaders;
mod node;
mod refusals;

use std::time::Duration;

use super::{Server, ServerTimes};
use crate::Timeouts;

/// Nothing that is waited for takes so long.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// Short, and they hold together.
pub(super) fn short() -> ServerTimes {
    let millis = Duration::from_millis;
    ServerTimes {
        ping: millis(100),
        eviction: millis(1_500),
        probe: millis(200),
        settle: millis(100),
        ..ServerTimes::default()
    }
}

pub(super) fn timeouts() -> Timeouts {
    Timeouts {
        ping: Duration::from_millis(300),
        liveness: Duration::from_secs(1),
        ..super::times::ServerTimes::messenger()
    }
}

/// One that keeps all in memory, at any port.
pub(super) async fn alone() -> Server {
    let builder = Server::builder().in_memory().bind("127.0.0.1:0").times(short()).timeouts(timeouts());
    let server = builder.start().await.unwrap();
    tokio::time::timeout(LONG, server.leads()).await.unwrap();
    server
}
