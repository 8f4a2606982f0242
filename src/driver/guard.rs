//! What stands between a connection and its first bytes: TLS, or nothing.

use std::io;
use std::sync::Arc;

use super::net::{BoxConn, BoxFuture};
use super::opening::{self, OpeningError};
use super::{Driver, net::Conn};
#[cfg(feature = "tls")]
use crate::config::tls::{Tls, TlsError};
use crate::peer::Place;
use crate::wire::first::Code;
use crate::wire::{FirstBytes, Hello, Reject};

/// Secures connections, both ways. Without one they are plain.
pub(crate) trait Guard: Send + Sync + 'static {
    /// The dialling side: who is there must prove the name of the place, else its host.
    fn dial(&self, conn: BoxConn, place: &Place) -> BoxFuture<Result<BoxConn, Failure>>;

    /// The accepting side.
    fn accept(&self, conn: BoxConn) -> BoxFuture<Result<Accepted, Failure>>;

    /// What an error on a secured connection means, if it means that the other side refuses this one.
    fn explain(&self, error: &io::Error) -> Option<String>;

    /// Other settings for handshakes that begin from now on.
    #[cfg(feature = "tls")]
    fn rotate(&self, settings: Tls);
}

/// A connection that came in.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS there is no guard"))]
pub(crate) enum Accepted {
    Secured(BoxConn),
    /// It begins like karere without TLS; nothing of it is taken yet.
    Plain(BoxConn),
}

/// No secure connection came of it.
pub(crate) struct Failure {
    pub(crate) why: DialError,
    /// To be ended in order, because an alert is on its way.
    pub(crate) conn: Option<BoxConn>,
}

/// What a dial came to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The next one may do better.
    #[error("{0}")]
    Passing(String),
    /// Waiting does not mend it.
    #[error("{0}")]
    ForGood(String),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Passing(error.to_string())
    }
}

impl Driver {
    /// Changes certificates, authorities or both. Links that are up stay.
    #[cfg(feature = "tls")]
    pub(crate) fn rotate(&self, settings: Tls) -> Result<(), TlsError> {
        let guard = self.guard.as_ref().ok_or(TlsError::Plain)?;
        settings.check(&self.surroundings.me.member.name, super::clock::since_unix())?;
        guard.rotate(settings);
        Ok(())
    }

    /// Connects, and proves who is there.
    pub(super) fn connect(self: &Arc<Self>, place: Place) -> BoxFuture<Result<BoxConn, DialError>> {
        let connect = self.net.connect(place.endpoint.clone());
        let driver = Arc::clone(self);
        Box::pin(async move {
            let conn = connect.await?;
            let Some(guard) = &driver.guard else { return Ok(conn) };
            guard.dial(conn, &place).await.map_err(|failure| {
                if let DialError::ForGood(why) = &failure.why {
                    driver.count_refusal(&format_args!("{}: {why}", place.endpoint));
                }
                if let Some(conn) = failure.conn {
                    driver.part(opening::part(conn, Vec::new()));
                }
                failure.why
            })
        })
    }

    /// What it means that an opening did not come.
    pub(super) fn blame(&self, error: OpeningError) -> DialError {
        let refused = match (&self.guard, &error) {
            // The other side's verdict on a certificate comes behind the handshake, instead of an answer.
            (Some(guard), OpeningError::Io(error)) => guard.explain(error),
            (Some(_) | None, _) => None,
        };
        match refused {
            Some(why) => {
                self.count_refusal(&why);
                DialError::ForGood(why)
            }
            None => DialError::Passing(error.to_string()),
        }
    }

    /// Whether the name in a hello or an answer is one that the certificate covers.
    pub(super) fn judge_identity(&self, hello: &Hello, conn: &dyn Conn) -> Result<(), Box<Reject>> {
        self.surroundings.me.judge_identity(hello, conn.identity().as_deref())
    }

    /// Secures a connection that came in. `Err`: it was refused, and why; `None`: and told so.
    pub(super) async fn secure(&self, conn: BoxConn) -> Result<BoxConn, Turned> {
        let Some(guard) = &self.guard else { return Ok(conn) };
        match guard.accept(conn).await {
            Ok(Accepted::Secured(conn)) => Ok(conn),
            Ok(Accepted::Plain(mut conn)) => {
                // Read before it is refused, or what is unread would destroy the refusal.
                let who = match opening::read(&mut conn).await {
                    Ok((FirstBytes::Hello(hello), _)) => format!(" (`{}`)", hello.from.name),
                    Ok(_) | Err(_) => String::new(),
                };
                let why = format!("a plain connection{who}, and this process takes TLS only");
                let text = "this process takes TLS only: give yours a certificate by the same authority";
                let reject = Box::new(self.surroundings.me.reject(Code::Identity, text));
                Err(Turned { why, conn: Some(conn), reject: Some(reject) })
            }
            Err(Failure { why, conn }) => Err(Turned { why: why.to_string(), conn, reject: None }),
        }
    }
}

/// An incoming connection that was not secured.
pub(super) struct Turned {
    pub(super) why: String,
    pub(super) conn: Option<BoxConn>,
    pub(super) reject: Option<Box<Reject>>,
}

impl Turned {
    /// Says what is to be said, and ends it in order.
    pub(super) async fn part(self) {
        match (self.conn, self.reject) {
            (Some(conn), Some(reject)) => opening::refuse(conn, reject).await,
            (Some(conn), None) => opening::part(conn, Vec::new()).await,
            (None, _) => {}
        }
    }
}
