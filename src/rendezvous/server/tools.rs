//! Answers to tools. Any server answers what it knows; only the leader changes anything.

use std::sync::Arc;

use bytes::Bytes;

use super::desk::Order;
use super::office::Office;
use super::standing::ServerStanding;
use crate::MemberId;
use crate::rendezvous::raft::{ChangeError, Standing};
use crate::rendezvous::words::{Ask, Health, ServerSeen, Servers, Told};

/// A piece of a snapshot.
const PIECE_BYTES: usize = 256 * 1024;
/// Routes of one answer, about: a member's are not torn apart.
const PAGE_ROUTES: usize = 8192;
/// Snapshots that are kept while tools fetch them. Whoever is pushed out begins again.
const COPIES_MAX: usize = 2;

pub(super) async fn answer(office: &Arc<Office>, from: MemberId, ask: Ask) -> Told {
    if is_for_admins(&ask)
        && let Some(why) = office.refuses(from)
    {
        tracing::warn!(peer = %from, ?ask, "{why}");
        return Told::Denied(why);
    }
    match ask {
        Ask::Network => {
            Told::Network { environment: office.environment.clone(), network: office.network.clone() }
        }
        Ask::Members => members(office),
        Ask::Routes { after } => routes(office, after),
        Ask::Servers => Told::Servers(servers(office)),
        Ask::Evict { member } => order(office, Order::Evict(member)).await,
        Ask::Recover => order(office, Order::Recover).await,
        Ask::Add { address } => changed(office, office.log.add(&address).await.map(drop)),
        Ask::Remove { server } => changed(office, office.log.remove(&server).await.map(drop)),
        Ask::Snapshot { offset } => snapshot(office, from, offset).await,
    }
}

/// What changes the cluster, or gives away all of it at once.
const fn is_for_admins(ask: &Ask) -> bool {
    match ask {
        Ask::Add { .. } | Ask::Remove { .. } | Ask::Evict { .. } | Ask::Recover | Ask::Snapshot { .. } => {
            true
        }
        Ask::Network | Ask::Members | Ask::Routes { .. } | Ask::Servers => false,
    }
}

fn members(office: &Office) -> Told {
    let health = |id| office.at_desk(|desk, _, _| desk.health_of(id)).unwrap_or(Health::Healthy);
    let (term, _) = office.leader();
    let (cluster, view, members) = {
        let state = office.applied.read();
        (state.cluster(), state.view_id(), state.members().cloned().collect::<Vec<_>>())
    };
    let members = members.into_iter().map(|member| {
        let health = health(member.id);
        (member, health)
    });
    Told::Members { cluster, view, term, members: members.collect() }
}

fn routes(office: &Office, after: Option<MemberId>) -> Told {
    let state = office.applied.read();
    let (mut page, mut count, mut next) = (Vec::new(), 0, None);
    let later = state.members().map(|member| member.id).filter(|id| after.is_none_or(|after| *id > after));
    for id in later {
        if count >= PAGE_ROUTES {
            next = page.last().map(|(id, _)| *id);
            break;
        }
        let routes: Vec<_> = state.routes_of(id).cloned().collect();
        count += routes.len() + 1;
        page.push((id, routes));
    }
    Told::Routes { view: state.view_id(), routes: page, next }
}

fn servers(office: &Office) -> Servers {
    let (term, _) = office.leader();
    let seen = office.log.servers();
    let speaks_in = office.log.lease(office.now()).map(|lease| lease.term);
    let now_is = office.log.standing().borrow().clone();
    let standing = ServerStanding::of(&now_is, speaks_in);
    let leader = match &now_is {
        Standing::Leader { .. } => standing.leads().then(|| office.log.id()),
        Standing::Follower { leader, .. } => leader.as_ref().map(|(id, _)| *id),
        Standing::Founding { .. } | Standing::NotMember | Standing::Stopped { .. } => None,
    };
    Servers {
        cluster: office.applied.read().cluster(),
        this: office.log.id(),
        term,
        leader,
        standing: standing.to_string(),
        servers: seen
            .into_iter()
            .map(|server| ServerSeen {
                id: server.id,
                address: server.address,
                voter: server.votes,
                matched: server.matched,
            })
            .collect(),
    }
}

async fn order(office: &Office, order: Order) -> Told {
    match office.order(order).await {
        Some(Ok(())) => Told::Done,
        Some(Err(why)) => Told::Failed(why),
        None => not_leader(office),
    }
}

fn not_leader(office: &Office) -> Told {
    Told::NotLeader { leader: office.leader().1 }
}

fn changed(office: &Office, done: Result<(), ChangeError>) -> Told {
    match done {
        Ok(()) => Told::Done,
        Err(ChangeError::NotLeader { .. }) => not_leader(office),
        Err(why) => Told::Failed(why.to_string()),
    }
}

async fn snapshot(office: &Office, from: MemberId, offset: u64) -> Told {
    if offset == 0 {
        match office.log.snapshot().await {
            Ok(snapshot) => {
                let mut copies = office.copies.lock();
                copies.0.retain(|(to, _)| *to != from);
                if copies.0.len() >= COPIES_MAX {
                    copies.0.remove(0);
                }
                copies.0.push((from, snapshot));
            }
            Err(why) => return Told::Failed(format!("no snapshot: {why}; nothing has changed; try again")),
        }
    }
    let mut copies = office.copies.lock();
    let Some(at) = copies.0.iter().position(|(to, _)| *to == from) else {
        return Told::Failed("that snapshot is not kept any more; begin again".to_owned());
    };
    let snapshot: &Bytes = &copies.0[at].1;
    let total = snapshot.len();
    let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(total);
    let end = begin.saturating_add(PIECE_BYTES).min(total);
    let piece = snapshot.slice(begin..end);
    if end == total {
        copies.0.remove(at);
    }
    Told::Snapshot { total: total as u64, piece }
}
