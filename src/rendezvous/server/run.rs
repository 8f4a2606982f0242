//! The one task of a server that acts: makes a desk when it comes to lead, puts proposals into the log, says what the desk says.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep_until;

use super::desk::{Desk, Saying};
use super::office::{LOOK, Office};
use super::standing::ServerStanding;
use crate::rendezvous::raft::{ProposeError, Standing};
use crate::rendezvous::state::decode_outcomes;
use crate::rendezvous::words::{Ping, ToNode};
use crate::{Class, MemberId};

/// With nothing to do it looks around so often.
const IDLE: Duration = Duration::from_secs(60);

/// A proposal under way.
type Deciding = Pin<Box<dyn Future<Output = Result<Bytes, ProposeError>> + Send>>;

/// What comes of one turn.
#[derive(Default)]
struct Turn {
    command: Option<Bytes>,
    /// When there is something to do again.
    next: Option<Instant>,
}

/// Runs until the server is closed, or its log is over.
pub(super) async fn run(office: Arc<Office>) {
    let mut standing = office.log.standing();
    // Whom the last desk has spoken to: they are told where to go once that is known.
    let mut audience: Vec<MemberId> = Vec::new();
    let mut deciding: Option<Deciding> = None;
    loop {
        let now_is = standing.borrow_and_update().clone();
        let lease_ends = tell_standing(&office, &now_is);
        if let Some(before) = follow(&office, &now_is) {
            // Of another term: it may be decided, and is nobody's who is here.
            deciding = None;
            audience.extend(before);
        }
        part(&office, &now_is, &mut audience);
        call(&office, &now_is);
        let turn = turn(&office);
        if let Some(command) = turn.command {
            let office = Arc::clone(&office);
            deciding = Some(Box::pin(async move { office.log.propose(command).await }));
        }
        // It leads and may not speak: nobody says when it may.
        let looks = matches!(now_is, Standing::Leader { .. }) && turn.next.is_none();
        let next = turn.next.unwrap_or(office.now() + if looks { LOOK } else { IDLE });
        let next = lease_ends.map_or(next, |ends| next.min(ends));
        tokio::select! {
            biased;
            () = office.stop.cancelled() => break,
            changed = standing.changed() => if changed.is_err() { break },
            decided = decision(&mut deciding) => {
                deciding = None;
                handle_decided(&office, decided);
            }
            () = office.bell.notified() => {}
            () = office.applied.bell().notified() => {}
            () = sleep_until(next.into()) => {}
        }
    }
    office.set_desk(None);
}

async fn decision(deciding: &mut Option<Deciding>) -> Result<Bytes, ProposeError> {
    match deciding {
        Some(deciding) => deciding.await,
        None => std::future::pending().await,
    }
}

/// Says until when what it told holds, if that is known.
fn tell_standing(office: &Office, now_is: &Standing) -> Option<Instant> {
    let lease = office.log.lease(office.now());
    office.standing.send_if_modified(|seen| {
        let now_is = ServerStanding::of(now_is, lease.map(|lease| lease.term));
        let is_news = *seen != now_is;
        if is_news {
            match &now_is {
                ServerStanding::Stopped { why } => tracing::error!("this server has stopped: {why}"),
                other => tracing::info!("this server {other}"),
            }
            *seen = now_is;
        }
        is_news
    });
    lease.map(|lease| lease.until)
}

/// Makes the desk of a term that this server leads, as soon as it may speak, and clears that of a term that is over. Gives whom the
/// one before has spoken to.
fn follow(office: &Office, now_is: &Standing) -> Option<Vec<MemberId>> {
    let leads = match now_is {
        Standing::Leader { term } => Some(*term),
        Standing::Founding { .. }
        | Standing::Follower { .. }
        | Standing::NotMember
        | Standing::Stopped { .. } => None,
    };
    let has = office.desk_term();
    if has == leads {
        return None;
    }
    let now = office.now();
    let lease = office.log.lease(now).filter(|lease| Some(lease.term) == leads);
    let desk = lease.map(|lease| {
        let state = office.applied.read();
        let seed = office.seed.wrapping_add(lease.term);
        Desk::new(office.config, lease.term, office.cluster(), seed, now, lease.until, &state)
    });
    if has.is_none() && desk.is_none() {
        return None;
    }
    Some(office.set_desk(desk))
}

/// Those who were spoken to are told who leads now, so that they need not find it out by silence.
fn part(office: &Office, now_is: &Standing, audience: &mut Vec<MemberId>) {
    let Standing::Follower { term, leader: Some((_, leader)) } = now_is else {
        if matches!(now_is, Standing::Leader { .. }) {
            audience.clear();
        }
        return;
    };
    if audience.is_empty() {
        return;
    }
    let what = ToNode::NotLeader { term: office.reign(*term), leader: Some(leader.clone()) };
    // Who has no room finds out by silence.
    if let Err(why) = office.messenger.send(&what, audience.drain(..)) {
        tracing::debug!("who leads now was not told: {why}");
    }
}

/// Those who asked for a leader when there was none are told as soon as there is one.
fn call(office: &Office, now_is: &Standing) {
    let now = office.now();
    let (who, what) = match now_is {
        Standing::Follower { term, leader: Some((_, leader)) } => {
            let who = office.askers.lock().take_for(now, leader);
            (who, ToNode::NotLeader { term: office.reign(*term), leader: Some(leader.clone()) })
        }
        // It listens: they are to say hello again.
        Standing::Leader { term } if office.desk_term() == Some(*term) => {
            let who = office.askers.lock().take(now);
            (who, ToNode::Later { term: office.reign(*term), after: Duration::ZERO })
        }
        Standing::Founding { .. }
        | Standing::Follower { leader: None, .. }
        | Standing::Leader { .. }
        | Standing::NotMember
        | Standing::Stopped { .. } => return,
    };
    if who.is_empty() {
        return;
    }
    // Who has no room asks again.
    if let Err(why) = office.messenger.send(&what, who) {
        tracing::debug!("who leads was not told: {why}");
    }
}

/// Lets the desk do all that is due, and says it.
fn turn(office: &Arc<Office>) -> Turn {
    let done = office.at_desk(|desk, state, now| {
        desk.handle_applied(now, state);
        desk.handle_timeout(now, state);
        let command = desk.poll_proposal(now);
        if let Some((ping, to)) = desk.poll_ping(now) {
            ping_all(office, ping, to);
        }
        // Each time the lease is looked at anew: what takes long may outlast it.
        loop {
            let now = office.renew(desk);
            let Some(saying) = desk.poll_send(now, state) else { break };
            say(office, desk, saying);
        }
        while let Some((number, how)) = desk.poll_answer() {
            office.answer(number, how);
        }
        if let Some(higher) = desk.poll_higher() {
            tracing::warn!(term = desk.term(), higher, "a node has heard of a newer leader of this cluster");
        }
        let next = desk.poll_timeout().filter(|_| desk.speaks(now));
        Turn { command, next }
    });
    office.room.notify_waiters();
    done.unwrap_or_default()
}

fn ping_all(office: &Office, ping: Ping, to: Vec<MemberId>) {
    // An old ping is of no use to anybody.
    let alive = office.config.judge.ping();
    if let Err(why) = office.messenger.class(Class::Urgent).datagram(&ping, to, alive) {
        tracing::debug!("no ping: {why}");
    }
}

fn say(office: &Arc<Office>, desk: &mut Desk, Saying { to, what }: Saying) {
    match office.messenger.send(&what, to.iter().copied()) {
        Ok(report) => {
            report.absent.into_iter().for_each(|id| desk.handle_gone(id));
            for id in report.full {
                desk.handle_blocked(id);
                let waiting = wait_for_room(Arc::clone(office), desk.term(), id, what.clone());
                office.messenger.spawn(waiting);
            }
        }
        // It is closing, or the message cannot be sent to anybody: it is of no use to go on with them.
        Err(why) => {
            tracing::error!("nothing could be said: {why}");
            to.into_iter().for_each(|id| desk.handle_gone(id));
        }
    }
}

/// Says to one node what found no room, in the same term, while it may be said; the desk says nothing else to it meanwhile.
async fn wait_for_room(office: Arc<Office>, term: u64, id: MemberId, what: ToNode) {
    let gone = loop {
        if office.stop.is_cancelled() || office.desk_term() != Some(term) {
            return;
        }
        let now = office.now();
        let Some(lease) = office.log.lease(now).filter(|lease| lease.term == term) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let time = lease.until.saturating_duration_since(now);
        match office.messenger.send_wait(&what, [id], time).await {
            Ok(report) if report.queued > 0 => break false,
            Ok(report) if report.full.is_empty() => break true,
            Ok(_) => {}
            Err(_) => return,
        }
    };
    office.at_desk(|desk, _, _| {
        if desk.term() == term {
            if gone { desk.handle_gone(id) } else { desk.handle_room(id) }
        }
    });
    office.bell.notify_one();
}

fn handle_decided(office: &Office, decided: Result<Bytes, ProposeError>) {
    let outcomes = decided.map_err(|why| why.to_string()).and_then(|told| decode_outcomes(&told));
    if let Err(why) = &outcomes {
        tracing::warn!("what was proposed may be decided or not: {why}");
    }
    office.at_desk(|desk, state, now| desk.handle_decided(now, state, outcomes.ok()));
    office.room.notify_waiters();
}
