//! The one setting: the list of the servers' addresses.

use std::net::{IpAddr, SocketAddr};

use super::setup::SetupError;
use crate::Endpoint;

/// The port of a server, where none is given.
pub const PORT: u16 = 7500;
/// Servers in a list.
const SERVERS_MAX: usize = 64;

/// Addresses of servers, as somebody wrote them: one text with commas or blanks between them, or a list of texts. `rdv1`,
/// `rdv1:7500`, `10.0.0.1`, `::1` and `[::1]:7500` are addresses; without a port it is [`PORT`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerList(Vec<String>);

impl ServerList {
    /// What was written, checked: each address once, in the order given.
    pub(in crate::rendezvous) fn parse(&self) -> Result<Vec<String>, SetupError> {
        let mut found: Vec<String> = Vec::new();
        let between = |c: char| c == ',' || c.is_whitespace();
        for text in self.0.iter().flat_map(|text| text.split(between)).filter(|text| !text.is_empty()) {
            let address = endpoint(text)?.to_string();
            if !found.contains(&address) {
                found.push(address);
            }
        }
        match found.len() {
            0 => Err(SetupError::NoServers),
            1..=SERVERS_MAX => Ok(found),
            given => Err(SetupError::TooManyServers { given, most: SERVERS_MAX }),
        }
    }
}

fn endpoint(text: &str) -> Result<Endpoint, SetupError> {
    let endpoint = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, PORT).into(),
        Err(_) if text.ends_with(']') || !text.contains(':') => format!("{text}:{PORT}").parse()?,
        Err(_) => text.parse::<Endpoint>()?,
    };
    if endpoint.is_unusable() {
        return Err(SetupError::NobodyThere { text: text.to_owned() });
    }
    Ok(endpoint)
}

impl From<&str> for ServerList {
    fn from(text: &str) -> Self {
        Self(vec![text.to_owned()])
    }
}

impl From<String> for ServerList {
    fn from(text: String) -> Self {
        Self(vec![text])
    }
}

impl From<&String> for ServerList {
    fn from(text: &String) -> Self {
        Self(vec![text.clone()])
    }
}

impl<S: Into<String>> From<Vec<S>> for ServerList {
    fn from(texts: Vec<S>) -> Self {
        texts.into_iter().collect()
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for ServerList {
    fn from(texts: [S; N]) -> Self {
        texts.into_iter().collect()
    }
}

impl<S: Into<String>> FromIterator<S> for ServerList {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        Self(texts.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_text_or_many_and_a_port_may_be_left_out() {
        let parse = |list: ServerList| list.parse().unwrap();
        assert_eq!(parse("rdv1:7500,rdv2, 10.0.0.1".into()), ["rdv1:7500", "rdv2:7500", "10.0.0.1:7500"]);
        assert_eq!(parse(["::1", "[::2]", "[::3]:7"].into()), ["[::1]:7500", "[::2]:7500", "[::3]:7"]);
        assert_eq!(parse(vec!["a:1,b:2".to_owned(), "a:1".to_owned()].into()), ["a:1", "b:2"], "each once");
    }

    #[test]
    fn a_bad_address_is_named_in_its_error() {
        let fails = |list: &str| ServerList::from(list).parse().unwrap_err().to_string();
        assert!(fails("good:7500,bad:port").contains("bad:port"));
        assert!(fails("good:7500,0.0.0.0:7500").contains("0.0.0.0:7500"));
        assert!(fails("good,1.2.3:9").contains("1.2.3:9"));
        assert!(fails(" , ").contains("no address"));
        let many = (0..65).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        assert!(fails(&many).contains("65"));
    }
}
