//! What went wrong in a handshake, for people: what, for whom, what to do. And whether waiting mends it.
//!
//! In TLS 1.3 certificates, and alerts about them, travel encrypted: no bit that flips on the way looks like one. What comes
//! before is not protected, so of that only what is unlikely to be chance counts for good.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::config::tls::{plain_name, span};
use crate::driver::guard::DialError;

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The dialling side's view; `place` as it was dialled.
pub(super) fn dial(error: &io::Error, place: &str) -> DialError {
    match cause(error) {
        Some(Error::InvalidCertificate(error)) => {
            DialError::ForGood(certificate(error, &format!("the certificate at {place}")))
        }
        Some(Error::AlertReceived(alert)) => match verdict(*alert) {
            Some(verdict) => DialError::ForGood(format!("{place} refuses: {verdict}")),
            None => DialError::Passing(format!("{place} broke the TLS handshake off: {alert:?}")),
        },
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => DialError::ForGood(format!(
            "what answers at {place} does not speak TLS: a karere without certificates, or something else"
        )),
        Some(error) => DialError::Passing(format!("the TLS handshake with {place} failed: {error}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            DialError::Passing(format!("{place} ended the TLS handshake"))
        }
        None => DialError::Passing(error.to_string()),
    }
}

/// The accepting side's view.
pub(super) fn accept(error: &io::Error) -> String {
    match cause(error) {
        Some(Error::NoCertificatesPresented) => {
            "the client shows no certificate, and one by a trusted authority is required".to_owned()
        }
        Some(Error::InvalidCertificate(error)) => certificate(error, "the client's certificate"),
        Some(Error::NoApplicationProtocol) => {
            "a TLS client that does not speak karere (ALPN `karere/1`)".to_owned()
        }
        Some(Error::AlertReceived(alert)) => match verdict(*alert) {
            Some(verdict) => format!("the client refuses: {verdict}"),
            None => format!("the client broke the TLS handshake off: {alert:?}"),
        },
        Some(error) => format!("the TLS handshake failed: {error}"),
        None => format!("the TLS handshake failed: {error}"),
    }
}

/// A verdict that came behind the handshake: in TLS 1.3 the accepting side judges last.
pub(super) fn late(error: &io::Error) -> Option<String> {
    match cause(error) {
        Some(Error::AlertReceived(alert)) => {
            verdict(*alert).map(|verdict| format!("the other side refuses: {verdict}"))
        }
        Some(_) | None => None,
    }
}

fn certificate(error: &CertificateError, whose: &str) -> String {
    match error {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            let (names, expected) = (names.join("`, `"), expected.to_str());
            format!(
                "{whose} is for `{names}`, not for `{expected}`: dial one of these names, or name whom to expect"
            )
        }
        CertificateError::UnknownIssuer => {
            format!(
                "{whose} is by an authority that is not trusted here: both sides need the other's authority"
            )
        }
        CertificateError::BadSignature => format!(
            "{whose} is not signed by the authority that is trusted here: by another one of the same name?"
        ),
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = span(time.as_secs().saturating_sub(not_after.as_secs()));
            format!("{whose} expired {ago} ago: it must be renewed")
        }
        CertificateError::Expired => format!("{whose} has expired: it must be renewed"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{whose} is not valid yet: one of the two clocks is wrong")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{whose} is not for this use: its extended key usage must allow both, server and client")
        }
        error => format!("{whose} is not valid: {error}"),
    }
}

/// What an alert says of us, if waiting does not change it.
fn verdict(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::UnknownCA => Some("it does not trust the authority of our certificate"),
        AlertDescription::DecryptError => {
            Some("our certificate is not signed by the authority it trusts: by another one of the same name?")
        }
        AlertDescription::CertificateRequired => Some("it requires a certificate, and none was shown"),
        AlertDescription::CertificateExpired => Some("our certificate has expired, or is not valid yet"),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            Some("our certificate is not valid there, or not for the name that was dialled")
        }
        AlertDescription::CertificateRevoked => Some("our certificate was revoked"),
        AlertDescription::UnsupportedCertificate => Some("our certificate is not for this use"),
        AlertDescription::AccessDenied => Some("our certificate gives no access"),
        AlertDescription::NoApplicationProtocol => {
            Some("it speaks TLS, but does not speak karere (ALPN `karere/1`)")
        }
        AlertDescription::ProtocolVersion => Some("it does not speak TLS 1.3"),
        _ => None,
    }
}
