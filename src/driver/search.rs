//! Runs a [`Search`]: who is at an address?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::guard::DialError;
use super::{Driver, clock, opening};
use crate::member::MemberId;
use crate::peer::{Backoff, Finding, Place, Search};

/// How long somebody is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// One attempt.
    Once,
    /// For so long.
    For(Duration),
    /// Until somebody answers.
    Endless,
}

/// Asks until somebody answers or, if it is to give up, the time is over; and from which address of this side. Dropping the
/// future ends the search.
pub(super) async fn run(
    driver: &Arc<Driver>,
    place: Place,
    patience: Patience,
) -> (Finding, Option<SocketAddr>) {
    let surroundings = driver.surroundings();
    let give_up = match patience {
        Patience::For(time) => Some(time),
        Patience::Once | Patience::Endless => None,
    };
    let mut search = Search::new(surroundings, place, clock::now(), give_up, clock::seed());
    let mut local = None;
    loop {
        if let Some(request) = search.poll_dial(clock::now()) {
            let link = request.link;
            let deadline = search.poll_timeout().unwrap_or_else(clock::now);
            let asking = ask(driver, &mut search, request, &mut local);
            match tokio::time::timeout_at(deadline.into(), asking).await {
                Ok(Ok(Some(finding))) => return (finding, local),
                Ok(Ok(None)) => {}
                Ok(Err(DialError::Passing(why))) => search.handle_failed(clock::now(), link, why),
                Ok(Err(DialError::ForGood(why))) => {
                    tracing::warn!("refused: {why}");
                    return (Finding::Refused(why), local);
                }
                Err(_) => {}
            }
            if matches!(patience, Patience::Once) {
                return (search.give_up(), local);
            }
        }
        if let Some(finding) = search.handle_timeout(clock::now()) {
            return (finding, local);
        }
        if let Some(next) = search.poll_timeout() {
            tokio::time::sleep_until(next.into()).await;
        }
    }
}

/// Asks until another member than the one that departed is there; for ever, because somebody was met there.
pub(super) async fn another(driver: &Arc<Driver>, place: Place, departed: MemberId) -> MemberId {
    let mut backoff = Backoff::new(driver.config().backoff, clock::seed());
    loop {
        match run(driver, place.clone(), Patience::Endless).await.0 {
            Finding::Found(id) if id != departed => return id,
            Finding::Found(_) | Finding::Refused(_) | Finding::GaveUp(_) => {
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

async fn ask(
    driver: &Arc<Driver>,
    search: &mut Search,
    request: crate::peer::DialRequest,
    local: &mut Option<SocketAddr>,
) -> Result<Option<Finding>, DialError> {
    let conn = driver.connect(request.place).await?;
    *local = conn.local_address();
    let Some(hello) = search.handle_connected(clock::now(), request.link) else { return Ok(None) };
    let deadline = driver.config().hello;
    let exchange = tokio::time::timeout(deadline, opening::exchange(conn, hello)).await;
    let exchange = exchange.map_err(|_| DialError::Passing("no answer to the hello".to_owned()))?;
    let (_conn, reply, _rest) = exchange.map_err(|error| driver.blame(error))?;
    Ok(search.handle_reply(clock::now(), request.link, reply))
}
