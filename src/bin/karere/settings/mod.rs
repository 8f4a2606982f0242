//! Configuration: one file, environment variables, flags, in that order: what comes later outranks what comes before.
//!
//! What does not hold together is refused with the line it is on, or the flag it came by.

mod blame;
mod file;
mod text;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use karere::rendezvous::{JoinBuilder, OnFrozen, Server, ServerBuilder, ServerTimes};
use karere::router::Node;
use karere::{Builder, Messenger, Tls};

use crate::node::Network;
use crate::output::Failure;
pub(crate) use file::File;
use text::Text;
pub(crate) use value::{List, Time};

/// A ping that is lost is no silence.
const PINGS_MIN: u32 = 2;

/// Where settings come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// Settings in a file (TOML); flags and environment variables outrank it. `karere config example` writes one.
    #[arg(long, value_name = "FILE", env = "KARERE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: Network,
}

/// All settings, and where each came from.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) file: File,
    text: Option<Text>,
    /// Keys that a flag or variable said, and which.
    flags: BTreeMap<&'static str, &'static str>,
}

impl Settings {
    /// # Errors
    /// The file cannot be read, or says what is not known.
    pub(crate) fn load(path: &Path) -> Result<Settings, Failure> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| {
            let failure = Failure::new(format!("cannot read {}: {error}", path.display()));
            failure.tries("`karere config example` for a file to begin with")
        })?;
        let (text, file) = Text::read(path, text)?;
        Ok(Settings { file, text: Some(text), flags: BTreeMap::new() })
    }

    /// # Errors
    /// As [`Settings::load`].
    pub(crate) fn of(source: &Source) -> Result<Settings, Failure> {
        let mut this = source.config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::load)?;
        let Network { environment, network, tls_ca, tls_cert, tls_key, name } = source.network.clone();
        this.over("environment", "--environment", environment, |file| &mut file.environment);
        this.over("network", "--network", network, |file| &mut file.network);
        this.over("name", "--name", name, |file| &mut file.name);
        this.over("tls.ca", "--tls-ca", tls_ca, |file| &mut file.tls.ca);
        this.over("tls.cert", "--tls-cert", tls_cert, |file| &mut file.tls.cert);
        this.over("tls.key", "--tls-key", tls_key, |file| &mut file.tls.key);
        Ok(this)
    }

    /// What a flag or variable said, if anything, over what the file says.
    pub(crate) fn over<T>(
        &mut self,
        key: &'static str,
        flag: &'static str,
        said: Option<T>,
        slot: fn(&mut File) -> &mut Option<T>,
    ) {
        if said.is_some() {
            *slot(&mut self.file) = said;
            self.flags.insert(key, flag);
        }
    }

    /// Environment, and the network's name: of whoever must say one.
    pub(crate) fn names(&self) -> (String, String) {
        (self.environment(), self.file.network.clone().unwrap_or_else(|| "default".to_owned()))
    }

    fn environment(&self) -> String {
        self.file.environment.clone().unwrap_or_else(|| "development".to_owned())
    }

    /// The servers of the network.
    ///
    /// # Errors
    /// Nobody says where they are.
    pub(crate) fn servers(&self) -> Result<List, Failure> {
        let list = self.file.node.rendezvous.clone().unwrap_or_default();
        if list.0.is_empty() {
            let failure = Failure::new("where are the rendezvous servers?");
            return Err(failure.tries("--rendezvous rdv1:7500,rdv2:7500,rdv3:7500, or KARERE_RENDEZVOUS"));
        }
        Ok(list)
    }

    /// A messenger that says nothing of addresses and network yet: name, certificates, times and bounds.
    fn messenger(&self, otherwise: karere::Timeouts) -> Result<Builder, Failure> {
        let tls = self.tls()?;
        let mut builder = Messenger::builder()
            .timeouts(self.file.timeouts.over(otherwise))
            .limits(self.file.limits.limits());
        let mut name = self.file.name.clone();
        if let Some(tls) = tls {
            name = name.or_else(|| tls.names().into_iter().next());
            builder = builder.tls(tls);
        }
        Ok(builder.name(name.unwrap_or_default()))
    }

    fn tls(&self) -> Result<Option<Tls>, Failure> {
        let files = &self.file.tls;
        match (&files.ca, &files.cert, &files.key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(cert), Some(key)) => {
                Tls::from_files(ca, cert, key).map(Some).map_err(|error| self.blame_tls(&error))
            }
            _ => Err(self.blame(
                "TLS needs three files",
                &["tls.ca", "tls.cert", "tls.key"],
                "ca, cert and key, all of them or none; `karere certs` makes some for development",
            )),
        }
    }

    /// A messenger for a tool: it only dials, and takes part in whatever network the servers are of, unless one is named.
    ///
    /// # Errors
    /// Something does not hold together.
    pub(crate) fn tool(&self) -> Result<Builder, Failure> {
        let builder = self.messenger(karere::Timeouts::default())?;
        let builder = match &self.file.network {
            Some(network) => builder.network(self.environment(), network),
            None => builder.any_network(self.environment()),
        };
        builder.check().map_err(|error| self.blame_messenger(&error))?;
        Ok(builder)
    }

    /// A rendezvous server.
    ///
    /// # Errors
    /// Something does not hold together.
    pub(crate) fn server(&self) -> Result<ServerBuilder, Failure> {
        let (environment, network) = self.names();
        let said = &self.file.rendezvous;
        let mut builder = Server::builder()
            .messenger(self.messenger(ServerTimes::messenger())?)
            .network(environment, network)
            .times(self.server_times())
            .timeouts(self.file.timeouts.over(ServerTimes::messenger()));
        if let Some(bind) = &said.bind {
            builder = builder.bind(bind);
        }
        if let Some(advertise) = &said.advertise {
            builder = builder.advertise(advertise);
        }
        if let Some(data) = &said.data {
            builder = builder.data(data);
        }
        let peers = said.peers.clone().unwrap_or_default();
        builder = builder.peers(peers.0).join(said.join.unwrap_or_default());
        if let Some(admins) = &said.admins {
            builder = builder.admins(admins.0.iter());
        }
        builder.check().map_err(|error| self.blame_server(&error))?;
        Ok(builder)
    }

    fn server_times(&self) -> ServerTimes {
        let (said, default) = (&self.file.rendezvous, ServerTimes::default());
        let over = |time: Option<Time>, otherwise: Duration| time.map_or(otherwise, |time| time.0);
        ServerTimes {
            ping: over(said.ping, default.ping),
            eviction: over(said.eviction, default.eviction),
            probe: over(said.probe, default.probe),
            settle: over(said.settle, default.settle),
            gather: over(said.gather, default.gather),
            heartbeat: over(said.heartbeat, default.heartbeat),
            election_min: over(said.election_min, default.election_min),
            election_max: over(said.election_max, default.election_max),
        }
    }

    /// A node.
    ///
    /// # Errors
    /// Something does not hold together, or the servers are not known.
    pub(crate) fn node(&self) -> Result<JoinBuilder, Failure> {
        let said = &self.file.node;
        let mut messenger = self.messenger(karere::Timeouts::default())?;
        for (key, value) in &said.labels {
            messenger = messenger.label(key, value);
        }
        let mut builder = Node::joining(self.servers()?.0).environment(self.environment());
        if let Some(network) = &self.file.network {
            builder = builder.network(network);
        }
        // Only to be looked at: the node's builder says of addresses what counts.
        let mut shown = messenger.clone();
        if let Some(bind) = &said.bind {
            (builder, shown) = (builder.bind(bind), shown.bind(bind));
        }
        if let Some(advertise) = &said.advertise {
            (builder, shown) = (builder.advertise(advertise), shown.advertise(advertise));
        }
        let (environment, network) = self.names();
        shown.network(environment, network).check().map_err(|error| self.blame_messenger(&error))?;
        let mut following = karere::rendezvous::Rendezvous::builder(self.servers()?.0);
        if let Some(silence) = said.silence {
            (builder, following) = (builder.silence(silence.0), following.silence(silence.0));
        }
        if let Some(after) = said.frozen_after {
            (builder, following) = (builder.frozen_after(after.0), following.frozen_after(after.0));
        }
        if let Some(after) = said.stop_after {
            let policy = OnFrozen::Stop(after.0);
            (builder, following) = (builder.on_frozen(policy), following.on_frozen(policy));
        }
        following.build().map_err(|error| self.blame_setup(&error))?;
        Ok(builder.messenger(messenger))
    }

    /// Everything that the file says anything of.
    ///
    /// # Errors
    /// The first thing that does not hold together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let _tool = self.tool()?;
        let _server = self.server()?;
        if self.file.node.rendezvous.is_some() {
            let _node = self.node()?;
        }
        let silence = self.file.node.silence.map_or(Duration::from_secs(3), |time| time.0);
        let ServerTimes { ping, eviction, settle, .. } = self.server_times();
        if silence > eviction + settle {
            let why = format!(
                "a node looks for another leader after {} of silence, and a new leader judges after eviction and settle, {}: whoever \
                 did not notice the change would be evicted",
                Time(silence),
                Time(eviction + settle)
            );
            let keys = ["node.silence", "rendezvous.eviction", "rendezvous.settle"];
            return Err(self.blame(&why, &keys, "a silence of three pings"));
        }
        if silence < ping * PINGS_MIN {
            let why = format!(
                "a node that hears nothing for {} looks for another server, and the leader pings it every {} only",
                Time(silence),
                Time(ping)
            );
            let mend = "a silence of three pings";
            return Err(self.blame(&why, &["node.silence", "rendezvous.ping"], mend));
        }
        Ok(())
    }
}

/// What `karere config example` writes: every key, with its default or something in its place.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, Failure> {
        let (text, file) = Text::read(Path::new("k.toml"), text.to_owned())?;
        Ok(Settings { file, text: Some(text), flags: BTreeMap::new() })
    }

    fn refused(text: &str) -> Failure {
        settings(text).and_then(|settings| settings.check()).unwrap_err()
    }

    #[test]
    fn the_example_is_right_as_it_stands_and_with_all_of_its_keys() {
        settings(EXAMPLE).unwrap().check().unwrap();
        // Certificates are files, which are not there; and nobody is an admin without them.
        let needs_files = |key: &str| key.ends_with(".pem\"") || key.starts_with("admins");
        let all = |line: &str| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") && !needs_files(key) => key.to_owned(),
            _ => line.to_owned(),
        };
        let text: Vec<String> = EXAMPLE.lines().map(all).collect();
        let all = settings(&text.join("\n")).unwrap();
        all.check().unwrap();
        assert_eq!(all.file.node.rendezvous.as_ref().unwrap().0.len(), 3);
        assert_eq!(all.server_times(), ServerTimes::default(), "the example shows the defaults");
        assert_eq!(all.file.timeouts.over(karere::Timeouts::default()), karere::Timeouts::default());
        assert_eq!(all.file.limits.limits(), karere::Limits::default());
    }

    #[test]
    fn impossible_combinations_are_refused_with_their_lines() {
        for (text, line, word) in [
            ("[timeouts]\nping = \"4s\"", 2, "liveness"),
            ("[timeouts]\n\nliveness = \"2s\"", 3, "ping"),
            ("[rendezvous]\nheartbeat = \"100ms\"", 2, "election_min"),
            ("[rendezvous]\nelection_min = \"400ms\"", 2, "election_max"),
            ("[rendezvous]\nelection_max = \"3s\"", 2, "eviction"),
            ("[rendezvous]\neviction = \"2s\"", 2, "ping"),
            (
                "[rendezvous]\nping = \"900ms\"\neviction = \"4s\"\n[timeouts]\nliveness = \"4500ms\"",
                3,
                "liveness",
            ),
            ("[rendezvous]\nbind = \"nowhere\"", 2, "nowhere"),
            ("[rendezvous]\npeers = [\n\"a:1\",\n\"b\"]", 2, "`b`"),
            ("[node]\nrendezvous = \"a:1,b:x\"", 2, "b:x"),
            ("[node]\nrendezvous = \"a:1\"\nfrozen_after = \"5s\"\nstop_after = \"4s\"", 3, "frozen"),
            ("[node]\nsilence = \"1s\"", 2, "pings"),
            ("[node]\nsilence = \"8s\"\nfrozen_after = \"8s\"", 2, "judges"),
            ("[node]\nrendezvous = \"a:1\"\nfrozen_after = \"1s\"", 3, "silence"),
            ("[rendezvous]\ngather = \"2s\"", 2, "2.5s"),
            ("[rendezvous]\nprobe = \"6s\"", 2, "eviction"),
            ("[rendezvous]\nheartbeat = \"9999999999s\"", 2, "too long"),
            ("[rendezvous]\nadmins = \"ops\"", 2, "TLS"),
            ("[limits]\nmessage_bytes = \"1GiB\"", 2, "reassembly_bytes"),
            ("[tls]\nca = \"ca.pem\"", 2, "key"),
            (
                "[tls]\nca = \"/nowhere/ca.pem\"\ncert = \"/nowhere/a.pem\"\nkey = \"/nowhere/a.key\"",
                2,
                "ca.pem",
            ),
        ] {
            let failure = refused(text).to_string();
            assert!(failure.contains(&format!("k.toml:{line}")), "{text}\n{failure}");
            assert!(failure.contains(word) && failure.contains("try:"), "{text}\n{failure}");
        }
    }

    #[test]
    fn a_flag_outranks_the_file_and_is_what_is_blamed() {
        let mut settings = settings("[rendezvous]\nbind = \":7600\"").unwrap();
        let bad = Some("nowhere".to_owned());
        settings.over("rendezvous.bind", "--bind", bad, |file| &mut file.rendezvous.bind);
        let failure = settings.check().unwrap_err().to_string();
        assert!(failure.contains("--bind: ") && !failure.contains("k.toml"), "{failure}");
        settings.over("rendezvous.bind", "--bind", None, |file| &mut file.rendezvous.bind);
        assert_eq!(settings.file.rendezvous.bind.as_deref(), Some("nowhere"), "nothing said changes nothing");
    }
}
