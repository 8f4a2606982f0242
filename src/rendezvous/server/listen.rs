//! What comes from nodes.

use std::sync::{Arc, Weak};

use super::office::Office;
use super::tools;
use crate::rendezvous::words::{Ask, Pong, ToNode, ToServer};
use crate::{HandlerError, MemberId};

/// Takes what nodes and tools say from now on. Handlers hold the office weakly: the messenger holds them.
pub(super) fn listen(office: &Arc<Office>) -> Result<(), HandlerError> {
    let weak = Arc::downgrade(office);
    office.messenger.add_handler(move |from, message: ToServer| take(weak.clone(), from, message))?;
    let weak = Arc::downgrade(office);
    office.messenger.add_handler(move |from, pong: Pong| {
        if let Some(office) = weak.upgrade() {
            office.at_desk(|desk, _, now| desk.handle_pong(now, from, pong));
        }
        std::future::ready(())
    })?;
    let weak = Arc::downgrade(office);
    office.messenger.add_request_handler(move |from, ask: Ask| {
        let office = weak.upgrade();
        async move {
            let office = office.ok_or_else(|| "the server is closing".to_owned())?;
            Ok(tools::answer(&office, from, ask).await)
        }
    })
}

/// Hands a message to the desk. While there is no room for what its node asks, it waits here, and withholds that node's credit.
async fn take(office: Weak<Office>, from: MemberId, message: ToServer) {
    let Some(office) = office.upgrade() else { return };
    let mut message = message;
    loop {
        let room = office.room.notified();
        let mut room = std::pin::pin!(room);
        // Room that comes between the look and the wait is not missed.
        room.as_mut().enable();
        match office.at_desk(|desk, state, now| desk.handle_message(now, state, from, message)) {
            Some(Ok(())) => return office.bell.notify_one(),
            Some(Err(back)) => message = *back,
            None => return send_on(&office, from),
        }
        room.await;
    }
}

/// Only the leader speaks: where it is.
fn send_on(office: &Office, from: MemberId) {
    let (term, leader) = office.leader();
    let term = office.reign(term);
    office.askers.lock().note(office.now(), from, leader.clone());
    if let Err(why) = office.messenger.send(&ToNode::NotLeader { term, leader }, [from]) {
        tracing::debug!(node = %from, "it was not told who leads: {why}");
    }
    // Another may lead since it was looked who does.
    office.bell.notify_one();
}
