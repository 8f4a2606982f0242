//! Takes connections in: reads their hello under bounds and deadlines, answers questions, refuses strangers, hands the
//! rest to their peer. Nothing a stranger does here reaches anybody else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::net::{BoxConn, Listener};
use super::opening::{self, OpeningError};
use super::{Driver, Incoming, clock};
use crate::limits::{HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX};
use crate::peer::{Lobby, LobbyTicket};
use crate::wire::first::Code;
use crate::wire::{DecodeError, FirstBytes, Reject};

/// First pause when accepting fails, for want of descriptors say; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The lobby and what ends each one in it.
struct Door {
    lobby: Lobby,
    inside: HashMap<LobbyTicket, CancellationToken>,
}

/// Accepts until the driver stops.
pub(super) async fn run(driver: Arc<Driver>, listener: Arc<dyn Listener>) {
    let lobby = Lobby::new(HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX);
    let door = Arc::new(Mutex::new(Door { lobby, inside: HashMap::new() }));
    let mut pause = PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = driver.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((conn, from)) => {
                pause = PAUSE_MIN;
                enter(&driver, &door, conn, from);
            }
            Err(error) => {
                // Existing peers do not notice; what waits in the backlog is taken when this is over.
                tracing::warn!(%error, "cannot accept; trying again in {pause:?}");
                driver.count_accept_error();
                tokio::select! {
                    biased;
                    () = driver.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn enter(driver: &Arc<Driver>, door: &Arc<Mutex<Door>>, conn: BoxConn, from: SocketAddr) {
    let out = driver.stop.child_token();
    let ticket = {
        let mut door = door.lock();
        let (ticket, pushed_out) = door.lobby.enter(from.ip());
        door.inside.insert(ticket, out.clone());
        if let Some(token) = pushed_out.and_then(|pushed_out| door.inside.remove(&pushed_out)) {
            token.cancel();
        }
        ticket
    };
    let (held, door) = (Arc::clone(driver), Arc::clone(door));
    driver.spawn(async move {
        tokio::select! {
            biased;
            () = out.cancelled() => held.count_refusal(&format_args!("{from}: pushed out by newer connections")),
            () = greet(&held, conn, from) => {}
        }
        let mut door = door.lock();
        door.lobby.leave(ticket);
        door.inside.remove(&ticket);
    });
}

async fn greet(driver: &Arc<Driver>, conn: BoxConn, from: SocketAddr) {
    let deadline = driver.config().hello;
    let until = tokio::time::Instant::from_std(clock::now()) + deadline;
    let mut conn = match tokio::time::timeout_at(until, driver.secure(conn)).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(turned)) => {
            driver.count_refusal(&format_args!("{from}: {}", turned.why));
            tracing::warn!(%from, "refused: {}", turned.why);
            return turned.part().await;
        }
        Err(_) => return driver.count_refusal(&format_args!("{from}: no TLS within {deadline:?}")),
    };
    let opening = match tokio::time::timeout_at(until, opening::read(&mut conn)).await {
        Ok(Ok(opening)) => opening,
        Ok(Err(OpeningError::Decode(error @ DecodeError::Version { found }))) => {
            driver.count_refusal(&format_args!("{from}: {error}"));
            let reject = driver.me().reject_version(found);
            return opening::refuse(conn, reject).await;
        }
        Ok(Err(OpeningError::Decode(error))) if is_ours(&error) => {
            driver.count_refusal(&format_args!("{from}: {error}"));
            let reject = driver.me().reject(Code::Malformed, error.to_string());
            return opening::refuse(conn, Box::new(reject)).await;
        }
        Ok(Err(error @ OpeningError::WantsTls)) => {
            driver.count_refusal(&format_args!("{from}: {error}"));
            tracing::warn!(%from, "refused: {error}");
            // This is no TLS, and by that its dialler knows.
            let reject = driver.me().reject(Code::Identity, "this process speaks without TLS");
            return opening::refuse(conn, Box::new(reject)).await;
        }
        Ok(Err(OpeningError::Decode(error))) => {
            // Not ours: a foreign protocol gets no answer it could misunderstand.
            driver.count_refusal(&format_args!("{from}: {error}"));
            return;
        }
        Ok(Err(error)) => {
            return driver.count_refusal(&format_args!("{from}: {error}"));
        }
        Err(_) => return driver.count_refusal(&format_args!("{from}: no hello within {deadline:?}")),
    };
    let (FirstBytes::Hello(hello), rest) = opening else {
        return driver.count_refusal(&format_args!("{from}: an answer where a hello was expected"));
    };
    if let Err(reject) = driver.judge_identity(&hello, &*conn) {
        driver.count_refusal(&format_args!("{from}: {}", reject.text));
        tracing::warn!(%from, "refused: {}", reject.text);
        return opening::refuse(conn, reject).await;
    }
    let introduction = driver.me();
    if let Err(reject) = introduction.judge(&hello) {
        if hello.to.is_some() || reject.code != Code::WrongMember {
            driver.count_refusal(&format_args!("{from}: {:?}: {}", reject.code, reject.text));
        }
        if matches!(reject.code, Code::EnvironmentMismatch | Code::NetworkMismatch) {
            // Somebody's configuration is wrong, and both sides say so.
            tracing::warn!(%from, "refused: {}", reject.text);
        }
        return opening::refuse(conn, reject).await;
    }
    if hello.from.id == introduction.member.id {
        return driver.count_refusal(&format_args!("{from}: says it is this very process"));
    }
    if let Err((conn, reject)) = driver.incoming(Incoming { conn, hello: *hello, rest }) {
        driver.count_refusal(&format_args!("{from}: {}", reject.text));
        opening::refuse(conn, reject).await;
    }
}

/// Whether an opening with this fault is karere's all the same: its checksum fitted before anything else was looked at.
const fn is_ours(error: &DecodeError) -> bool {
    match error {
        DecodeError::Critical { .. }
        | DecodeError::Value { .. }
        | DecodeError::Missing { .. }
        | DecodeError::Text { .. }
        | DecodeError::Stream { .. }
        | DecodeError::Version { .. } => true,
        DecodeError::Magic { .. }
        | DecodeError::TooLong { .. }
        | DecodeError::Short { .. }
        | DecodeError::Crc { .. } => false,
    }
}

/// The refusal of one too many.
pub(super) fn busy(driver: &Driver) -> Box<Reject> {
    Box::new(driver.me().reject(Code::Busy, "too many sessions or connections; try again later"))
}
