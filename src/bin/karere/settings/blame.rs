//! What the library says of a value, as what is said of a line.

use karere::rendezvous::{ServerError, SetupError};
use karere::{ConfigError, EndpointError, StartError, TlsError};

use super::Settings;
use crate::output::Failure;

/// Sections in which a setting may stand that an error of the messenger names.
const OF_MESSENGER: [&str; 2] = ["timeouts", "limits"];
/// The same for a server's.
const OF_SERVER: [&str; 2] = ["rendezvous", "timeouts"];
const OF_NODE: [&str; 1] = ["node"];

impl Settings {
    /// Where a key was said: a flag, a line; `None`: nowhere, it has its default.
    fn place(&self, key: &str) -> Option<String> {
        let flag = self.flags.get(key).map(|flag| (*flag).to_owned());
        flag.or_else(|| self.text.as_ref()?.place(key))
    }

    /// What was said, with its place.
    fn said(&self, key: &str) -> String {
        let name = key.rsplit('.').next().unwrap_or(key);
        if let Some(flag) = self.flags.get(key) {
            return (*flag).to_owned();
        }
        match self.text.as_ref().and_then(|text| Some((text.written(key)?, text.place(key)?))) {
            Some((written, place)) => format!("{written} ({place})"),
            None => format!("{name} (not said, so by default)"),
        }
    }

    /// A failure at the first of these keys that was said, with all of them shown.
    pub(super) fn blame(&self, why: &str, keys: &[&str], mend: &str) -> Failure {
        let places = keys.iter().find_map(|key| self.place(key));
        let what = match places {
            Some(place) => format!("{place}: {why}"),
            None => why.to_owned(),
        };
        let failure = Failure::new(what).tries(mend);
        let said: Vec<String> = keys.iter().map(|key| self.said(key)).collect();
        if said.is_empty() { failure } else { failure.by(said.join("; ")) }
    }

    /// Settings that contradict each other: `what` is one of them or several, `why` may name others.
    fn blame_contradiction(&self, sections: &[&str], what: &str, why: &str) -> Failure {
        let mut keys: Vec<String> = Vec::new();
        let between = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        for word in what.split(between).chain(why.split(between)).filter(|word| !word.is_empty()) {
            for section in sections {
                let key = format!("{section}.{word}");
                // One that was said, or one that has the section's name in the text: `ping` of two sections.
                if KEYS.contains(&key.as_str()) && !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        // A word that stands in both sections, and was said in one of them, is that one.
        let name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let said: Vec<String> = keys.iter().filter(|key| self.place(key).is_some()).cloned().collect();
        keys.retain(|key| said.contains(key) || !said.iter().any(|other| name(other) == name(key)));
        keys.sort_by_key(|key| !said.contains(key));
        let mut seen = Vec::new();
        keys.retain(|key| {
            let new = !seen.contains(&name(key)) || said.contains(key);
            seen.push(name(key));
            new
        });
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let names: Vec<String> = keys.iter().map(|key| name(key)).collect();
        let mend = match names.len() {
            0 => "`karere config example` for settings that hold together".to_owned(),
            1 => format!("another {}", names.join(" ")),
            _ => format!("another {}", names.join(", or another ")),
        };
        self.blame(&format!("{what}: {why}"), &keys, &mend)
    }

    fn blame_value(&self, value: &str, otherwise: &[&str], why: &str, mend: &str) -> Failure {
        let of_flag = otherwise.iter().find(|key| self.flags.contains_key(*key)).copied();
        let of_file = self.text.as_ref().and_then(|text| text.key_with(value));
        match of_flag.or(of_file) {
            Some(key) => self.blame(why, &[key], mend),
            None => self.blame(why, otherwise, mend),
        }
    }

    fn blame_endpoint(&self, error: &EndpointError, keys: &[&str]) -> Failure {
        self.blame_value(&error.text, keys, &error.to_string(), "an address as 10.0.0.5:7500 or rdv1:7500")
    }

    pub(super) fn blame_tls(&self, error: &TlsError) -> Failure {
        let why = error.to_string();
        let files = &self.file.tls;
        let named = [("tls.ca", &files.ca), ("tls.cert", &files.cert), ("tls.key", &files.key)];
        let in_text = |path: &Option<std::path::PathBuf>| {
            path.as_ref().is_some_and(|path| why.contains(&*path.to_string_lossy()))
        };
        let key = named.iter().find(|(_, path)| in_text(path)).map(|(key, _)| *key);
        let keys: &[&str] = match &key {
            Some(key) => std::slice::from_ref(key),
            None => &["tls.cert", "name"],
        };
        self.blame(&why, keys, "`karere certs --help`, for development")
    }

    pub(crate) fn blame_messenger(&self, error: &ConfigError) -> Failure {
        const ADDRESSES: [&str; 4] =
            ["node.bind", "node.advertise", "rendezvous.bind", "rendezvous.advertise"];
        let why = error.to_string();
        match error {
            ConfigError::Endpoint(error) => self.blame_endpoint(error, &ADDRESSES),
            ConfigError::Ports { text } => {
                self.blame_value(text, &ADDRESSES, &why, "one port, or a range as :7400-7410")
            }
            ConfigError::Unreachable { endpoint } => {
                self.blame_value(endpoint, &ADDRESSES, &why, "the address by which others reach this machine")
            }
            ConfigError::TooLong { what, .. } => {
                let key = match *what {
                    "environment's name" => "environment",
                    "network's name" => "network",
                    "name" => "name",
                    _ => "node.labels",
                };
                self.blame(&why, &[key], "a shorter one")
            }
            ConfigError::Tls(error) => self.blame_tls(error),
            ConfigError::Contradiction { what, why } => self.blame_contradiction(&OF_MESSENGER, what, why),
            _ => Failure::new(why),
        }
    }

    pub(crate) fn blame_server(&self, error: &ServerError) -> Failure {
        match error {
            ServerError::Start(StartError::Config(error)) => self.blame_messenger(error),
            ServerError::Times(error) => self.blame_contradiction(&OF_SERVER, error.what, &error.why),
            ServerError::Peer(error) => self.blame_endpoint(error, &["rendezvous.peers"]),
            ServerError::NoAddress { .. } => self.blame(
                &error.to_string(),
                &["rendezvous.advertise", "rendezvous.bind"],
                "--advertise HOST:PORT, the address by which the others reach this server",
            ),
            ServerError::NothingProves => self.blame(
                &error.to_string(),
                &["rendezvous.admins", "tls.ca"],
                "ca, cert and key under [tls], or no `admins`",
            ),
            ServerError::NoDirectory => self.blame(&error.to_string(), &["rendezvous.data"], "--data DIR"),
            other => Failure::new(other.to_string()),
        }
    }

    pub(crate) fn blame_setup(&self, error: &SetupError) -> Failure {
        let why = error.to_string();
        match error {
            SetupError::Address(error) => self.blame_endpoint(error, &["node.rendezvous"]),
            SetupError::Contradiction { what, why } => {
                // The file has a time where the library has a policy.
                let what = if *what == "on_frozen" { "stop_after" } else { what };
                self.blame_contradiction(&OF_NODE, what, why)
            }
            _ => self.blame(&why, &["node.rendezvous"], "--rendezvous rdv1:7500,rdv2:7500,rdv3:7500"),
        }
    }
}

/// Settings that may contradict each other.
const KEYS: [&str; 32] = [
    "timeouts.ping",
    "timeouts.liveness",
    "timeouts.hello",
    "timeouts.connect",
    "timeouts.ack_delay",
    "timeouts.redial_min",
    "timeouts.redial_max",
    "timeouts.contact_give_up",
    "timeouts.resume_lease",
    "timeouts.quarantine",
    "timeouts.slow",
    "timeouts.stuck",
    "timeouts.unreachable",
    "timeouts.idle",
    "limits.process_bytes",
    "limits.reserve_bytes",
    "limits.queue_bytes",
    "limits.credit_bytes",
    "limits.message_bytes",
    "limits.reassembly_bytes",
    "limits.links",
    "rendezvous.ping",
    "rendezvous.eviction",
    "rendezvous.probe",
    "rendezvous.settle",
    "rendezvous.gather",
    "rendezvous.heartbeat",
    "rendezvous.election_min",
    "rendezvous.election_max",
    "node.silence",
    "node.frozen_after",
    "node.stop_after",
];
