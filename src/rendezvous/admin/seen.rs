//! What a tool is told.

use crate::rendezvous::Health;
use crate::rendezvous::common::ClusterId;
use crate::rendezvous::words;
use crate::router::Route;
use crate::{Member, MemberId, ViewId};

/// Who is in, as a server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// Which server said it.
    pub by: String,
    /// The cluster whose history this is, 32 hexadecimal digits; `None` before it has begun.
    pub cluster: Option<String>,
    /// The view that is valid.
    pub view: ViewId,
    /// In which term of a leader.
    pub term: u64,
    /// By their ids.
    pub members: Vec<(Member, Health)>,
}

impl Members {
    pub(super) fn new(
        by: String,
        cluster: Option<ClusterId>,
        view: ViewId,
        term: u64,
        mut members: Vec<(Member, Health)>,
    ) -> Self {
        members.sort_by_key(|(member, _)| member.id);
        Self { by, cluster: cluster.map(text), view, term, members }
    }
}

/// What everybody handles, as a server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Routing {
    /// Which server said it.
    pub by: String,
    /// The view that was valid when the first part was said.
    pub view: ViewId,
    /// By member.
    pub routes: Vec<(MemberId, Vec<Route>)>,
}

impl Routing {
    pub(super) fn new(by: String, view: ViewId, mut routes: Vec<(MemberId, Vec<Route>)>) -> Self {
        // A member with many routes comes in parts.
        routes.sort_by_key(|(member, _)| *member);
        Self { by, view, routes }
    }
}

/// The servers, as one of them sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Servers {
    /// Which server said it: its address.
    pub by: String,
    /// Its number.
    pub this: u64,
    /// The cluster, 32 hexadecimal digits; `None` before it is founded.
    pub cluster: Option<String>,
    /// The newest term it knows.
    pub term: u64,
    /// Who leads, if it knows.
    pub leader: Option<u64>,
    /// How it stands itself, for people.
    pub standing: String,
    /// All of them.
    pub servers: Vec<ServerSeen>,
}

impl Servers {
    pub(super) fn new(by: String, told: words::Servers) -> Self {
        let words::Servers { cluster, this, term, leader, standing, servers } = told;
        let one = |server: words::ServerSeen| ServerSeen {
            id: server.id,
            address: server.address,
            voter: server.voter,
            matched: server.matched,
        };
        let servers = servers.into_iter().map(one).collect();
        Self { by, this, cluster: cluster.map(text), term, leader, standing, servers }
    }
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSeen {
    /// Its number, drawn once for its disk.
    pub id: u64,
    /// Where the others reach it.
    pub address: String,
    /// Whether its voice counts; if not, it is still catching up.
    pub voter: bool,
    /// Entries of the log that it is known to have, if the leader says so.
    pub matched: Option<u64>,
}

fn text(cluster: ClusterId) -> String {
    format!("{:032x}", cluster.0)
}
