//! Who takes part: [`MemberId`], [`Endpoint`], [`Member`] and the [`View`]s that membership systems decide.

mod view;

pub use view::{View, Views};

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The identity of one run of one process: 128 bits, time-ordered, never used again.
///
/// The layout follows UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits. A process that
/// restarts on the same address is another member, because it has another id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberId(u128);

impl MemberId {
    /// An id from the time of its making, in milliseconds since the Unix epoch, and 80 random bits.
    ///
    /// `Messenger` makes its own; this is for tests and for tools that read captures.
    #[must_use]
    pub const fn from_parts(unix_millis: u64, random: u128) -> Self {
        const RANDOM_BITS: u32 = 80;
        const VERSION: u128 = 0x7 << 76;
        const VARIANT: u128 = 0b10 << 62;
        const KEEP: u128 = !((0xf << 76) | (0b11 << 62));
        let time = ((unix_millis as u128) & 0xffff_ffff_ffff) << RANDOM_BITS;
        let random = random & ((1 << RANDOM_BITS) - 1);
        Self(((time | random) & KEEP) | VERSION | VARIANT)
    }

    /// The 16 bytes as they stand on the wire (big-endian, so that they sort by time).
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id that [`MemberId::to_bytes`] gave.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// 32 hexadecimal digits; with `{:.8}` only the last eight, for logs.
impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.precision() {
            Some(digits) if digits < 32 => {
                let text = format!("{:032x}", self.0);
                f.write_str(text.get(32 - digits..).unwrap_or(&text))
            }
            _ => write!(f, "{:032x}", self.0),
        }
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberId({self:.8})")
    }
}

/// One member is a list of one: where several can be given, it can be given alone.
impl IntoIterator for MemberId {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

/// Why a text is no [`MemberId`]: it takes 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a member id is 32 hexadecimal digits")]
pub struct MemberIdError;

impl FromStr for MemberId {
    type Err = MemberIdError;

    fn from_str(text: &str) -> Result<Self, MemberIdError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(MemberIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| MemberIdError)
    }
}

/// Where a member can be reached: an IP address or a DNS name, and a port.
///
/// Addresses are canonical: an IPv4 address mapped into IPv6 is held as IPv4. A name is resolved again at each dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// The longest DNS name (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 253;

impl Endpoint {
    /// The address, if this endpoint is not a DNS name.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }

    /// The DNS name, if this endpoint is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Ip(_) => None,
            Host::Name(name) => Some(name),
        }
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// With this port, if it has none.
    pub(crate) fn or_port(&self, port: u16) -> Self {
        let port = if self.port == 0 { port } else { self.port };
        Self { port, ..self.clone() }
    }

    /// Whether nobody can be reached there: an unspecified address or port 0.
    #[must_use]
    pub fn is_unusable(&self) -> bool {
        self.port == 0 || matches!(self.host, Host::Ip(ip) if ip.is_unspecified())
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip().to_canonical()), port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {reason}; write HOST:PORT, 10.0.0.5:7400 or [::1]:7400")]
pub struct EndpointError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = |reason| EndpointError { text: text.to_owned(), reason };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| fail("the port is missing"))?;
        let port = port.parse().map_err(|_| fail("the port is not a number from 0 to 65535"))?;
        if host.is_empty() {
            return Err(fail("the host is missing"));
        }
        if host.contains(':') || host.contains('[') {
            return Err(fail("an IPv6 address stands in square brackets"));
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if host.len() > NAME_BYTES_MAX || !host.bytes().all(fits) {
            return Err(fail("the host is neither an IP address nor a DNS name"));
        }
        if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(fail("the host looks like an IPv4 address but is none"));
        }
        Ok(Self { host: Host::Name(host.to_ascii_lowercase()), port })
    }
}

/// A member and its attributes. Identity is the id alone; everything else only describes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The id of this run.
    pub id: MemberId,
    /// Where it can be reached, the best first; never an unspecified address.
    pub endpoints: Vec<Endpoint>,
    /// A name for people and certificates, up to 255 bytes; may be empty.
    pub name: String,
    /// Free attributes.
    pub labels: BTreeMap<String, String>,
    /// The view in which it joined, once a membership system has said so.
    pub joined: Option<ViewId>,
}

/// The number of a view: a generation (raised when history starts anew) and a counter within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ViewId {
    /// Raised when the membership system starts its history anew.
    pub generation: u64,
    /// Raised with each view of a generation.
    pub number: u64,
}

/// Generation and number with a dot between.
impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_survive_text_and_bytes() {
        let early = MemberId::from_parts(1_000, u128::MAX);
        let late = MemberId::from_parts(1_001, 0);
        assert!(early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(MemberId::from_bytes(late.to_bytes()), late);
        assert_eq!(format!("{late:.8}").len(), 8);
        assert_eq!(late.to_bytes()[6] >> 4, 7, "the version nibble of RFC 9562");
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped: Endpoint = "[::ffff:10.0.0.5]:7400".parse().unwrap();
        assert_eq!(mapped, "10.0.0.5:7400".parse().unwrap());
        assert_eq!(mapped.to_string(), "10.0.0.5:7400");
    }

    #[test]
    fn bad_endpoints_say_what_is_wrong() {
        for (text, part) in [
            ("host", "port is missing"),
            ("host:", "not a number"),
            ("host:99999", "not a number"),
            (":7400", "host is missing"),
            ("::1:7400", "square brackets"),
            ("ho st:1", "neither"),
            ("10.0.0.256:1", "looks like an IPv4"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.reason.contains(part), "{text}: {error}");
        }
    }
}
