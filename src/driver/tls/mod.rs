//! Mutual TLS 1.3 (RFC 8446): handshakes, both ways, with the settings that hold when they begin.

mod carrier;
mod conn;
mod explain;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use carrier::Carrier;
use conn::TlsConn;

use super::guard::{Accepted, DialError, Failure, Guard};
use super::net::{BoxConn, BoxFuture};
use crate::config::tls::Tls;
use crate::peer::Place;
use crate::wire::first::MAGIC;

/// See the module's text. Settings may be changed at any time: each handshake takes those of its beginning.
pub(crate) struct TlsGuard {
    settings: ArcSwap<Tls>,
}

impl TlsGuard {
    pub(crate) fn new(settings: Tls) -> Self {
        Self { settings: ArcSwap::from_pointee(settings) }
    }
}

impl Guard for TlsGuard {
    fn dial(&self, conn: BoxConn, place: &Place) -> BoxFuture<Result<BoxConn, Failure>> {
        let client = Arc::clone(&self.settings.load().inner.client);
        let (name, place) = (expected(place), place.endpoint.to_string());
        Box::pin(async move {
            let name = name.map_err(|why| Failure { why: DialError::ForGood(why), conn: None })?;
            let connect = TlsConnector::from(client).connect(name, Carrier::new(conn));
            match connect.into_fallible().await {
                Ok(stream) => {
                    let Some(conn) = TlsConn::new(stream.into()) else { return Err(anonymous()) };
                    if conn.is_karere() {
                        return Ok(Box::new(conn) as BoxConn);
                    }
                    let why = format!("{place} speaks TLS, but does not speak karere (ALPN `karere/1`)");
                    Err(Failure { why: DialError::ForGood(why), conn: Some(Box::new(conn)) })
                }
                Err((error, carrier)) => {
                    Err(Failure { why: explain::dial(&error, &place), conn: Some(Box::new(carrier)) })
                }
            }
        })
    }

    fn accept(&self, conn: BoxConn) -> BoxFuture<Result<Accepted, Failure>> {
        let server = Arc::clone(&self.settings.load().inner.server);
        Box::pin(async move {
            let failure = |why, conn| Failure { why: DialError::Passing(why), conn };
            let mut carrier = Carrier::new(conn);
            match carrier.begins_with(&MAGIC).await {
                Ok(true) => return Ok(Accepted::Plain(Box::new(carrier))),
                Ok(false) => {}
                Err(error) => return Err(failure(explain::accept(&error), None)),
            }
            match TlsAcceptor::from(server).accept(carrier).into_fallible().await {
                Ok(stream) => {
                    let Some(conn) = TlsConn::new(stream.into()) else { return Err(anonymous()) };
                    if conn.is_karere() {
                        return Ok(Accepted::Secured(Box::new(conn)));
                    }
                    let why = "a TLS client that offers no ALPN, and `karere/1` is required".to_owned();
                    Err(failure(why, Some(Box::new(conn))))
                }
                Err((error, carrier)) => Err(failure(explain::accept(&error), Some(Box::new(carrier)))),
            }
        })
    }

    fn explain(&self, error: &io::Error) -> Option<String> {
        explain::late(error)
    }

    fn rotate(&self, settings: Tls) {
        self.settings.store(Arc::new(settings));
    }
}

fn anonymous() -> Failure {
    Failure { why: DialError::Passing("no certificate was shown".to_owned()), conn: None }
}

/// Whose certificate it must be: the name that was given with the place, else its host as written.
fn expected(place: &Place) -> Result<ServerName<'static>, String> {
    let address = place.endpoint.address().map(|address| ServerName::from(address.ip()));
    let name = match (&place.name, address) {
        (Some(name), _) => &**name,
        (None, Some(address)) => return Ok(address),
        (None, None) => place.endpoint.name().unwrap_or_default(),
    };
    let wrong = |_| format!("`{name}` cannot be the name in a certificate: it is no DNS name and no address");
    ServerName::try_from(name.to_owned()).map_err(wrong)
}
