//! A network of our own: namespaces around a router, made of what the kernel has, gone when dropped.
//!
//! Each host has one interface, `eth0`, and a /32 address; the router has a port and a host route for each, as clusters
//! of containers do it. So a route can turn black, come back, or lead to another host, and no frame leaves the lab.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Why something cannot be tried here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip(pub(crate) String);

/// A fault needs what not every machine has.
pub(crate) type Tried<T> = Result<T, Skip>;

static NAMES: AtomicU32 = AtomicU32::new(0);
const ROUTER: &str = "169.254.1.1";

fn run(command: &mut Command) -> Result<String, String> {
    let tell = |output: Output| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(if said.is_empty() { output.status.to_string() } else { said }),
        }
    };
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    tell(output).map_err(|why| format!("{command:?}: {why}"))
}

/// Whether a program is there and runs.
pub(crate) fn has(program: &str) -> Tried<()> {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    match found.is_ok_and(|output| output.status.success()) {
        true => Ok(()),
        false => Err(Skip(format!("no `{program}`"))),
    }
}

/// Whether this is root, as only root may make namespaces.
pub(crate) fn is_root() -> Tried<()> {
    let id = Command::new("id").arg("-u").output().ok().map(|output| output.stdout);
    match id.as_deref() {
        Some(b"0\n") => Ok(()),
        _ => Err(Skip("not root".to_owned())),
    }
}

/// What a network namespace needs, tried out once a process.
fn can_make_namespaces() -> Tried<()> {
    static CAN: OnceLock<Tried<()>> = OnceLock::new();
    let probe = || {
        is_root()?;
        has("ip")?;
        let failed = |what: &str| Skip(format!("this kernel makes no network namespace with veth: {what}"));
        let probe = Namespace::new("probe").map_err(|why| failed(&why))?;
        probe.ip("link add veth0 type veth peer name veth1").map_err(|why| failed(&why)).map(drop)
    };
    CAN.get_or_init(probe).clone()
}

/// One network namespace. Removed when dropped; what runs in it is ended before.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new(what: &str) -> Result<Self, String> {
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let this = Self { name: format!("karere-{}-{number}-{what}", std::process::id()) };
        run(Command::new("ip").args(["netns", "add", &this.name]))?;
        this.ip("link set lo up")?;
        Ok(this)
    }

    /// `ip` inside.
    fn ip(&self, arguments: &str) -> Result<String, String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// What `ip` knows it by.
    #[allow(dead_code, reason = "one of the labs uses it")]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What makes a command run inside.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }

    fn inside(&self, line: &str) -> Result<String, String> {
        run(self.enter().args(line.split_whitespace()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            let _gone = writeln!(std::io::stderr(), "lab: a namespace stays: {why}");
        }
    }
}

/// Hosts around a router.
#[derive(Debug)]
pub(crate) struct Network {
    router: Namespace,
    hosts: Vec<Namespace>,
}

impl Network {
    /// A network of so many hosts, all of which reach each other.
    pub(crate) fn new(hosts: usize) -> Tried<Self> {
        can_make_namespaces()?;
        let make = || {
            let mut this = Self { router: Namespace::new("router")?, hosts: Vec::new() };
            this.router.inside("sysctl -qw net.ipv4.ip_forward=1").or_else(|_no_sysctl| {
                let order = "echo 1 > /proc/sys/net/ipv4/ip_forward";
                run(this.router.enter().args(["sh", "-c", order]))
            })?;
            // One address for all of its ports, by which the hosts know it.
            this.router.ip(&format!("addr add {ROUTER}/32 dev lo"))?;
            for at in 0..hosts {
                this.add(at)?;
            }
            Ok(this)
        };
        make().map_err(|why: String| Skip(format!("the network cannot be made: {why}")))
    }

    fn add(&mut self, at: usize) -> Result<(), String> {
        let host = Namespace::new(&format!("host{at}"))?;
        self.router.ip(&format!("link add p{at} type veth peer name eth0 netns {}", host.name))?;
        self.router.ip(&format!("link set p{at} up"))?;
        host.ip(&format!("addr add {}/32 dev eth0", Self::address(at)))?;
        self.hosts.push(host);
        self.link_up(at);
        self.route(at, at);
        Ok(())
    }

    /// The address of a host.
    pub(crate) fn address(at: usize) -> String {
        format!("10.77.0.{}", at + 1)
    }

    pub(crate) fn host(&self, at: usize) -> &Namespace {
        &self.hosts[at]
    }

    #[track_caller]
    fn must(&self, outcome: Result<String, String>) {
        outcome.unwrap_or_else(|why| panic!("the lab itself: {why}"));
    }

    /// The host's own interface goes down: it has no way out, its neighbours get no answer.
    pub(crate) fn link_down(&self, at: usize) {
        self.must(self.hosts[at].ip("link set eth0 down"));
    }

    /// And comes back, with its route.
    pub(crate) fn link_up(&self, at: usize) {
        self.must(self.hosts[at].ip("link set eth0 up"));
        self.must(self.hosts[at].ip(&format!("route replace default via {ROUTER} dev eth0 onlink")));
    }

    /// What goes to a host's address disappears in the router without a word; what comes from it passes.
    pub(crate) fn blackhole(&self, at: usize) {
        self.must(self.router.ip(&format!("route replace blackhole {}/32", Self::address(at))));
    }

    /// A host's own table swallows what it sends to another; its calls fail at once.
    pub(crate) fn blackhole_at(&self, at: usize, to: usize) {
        self.must(self.hosts[at].ip(&format!("route replace blackhole {}/32", Self::address(to))));
    }

    /// And no longer.
    pub(crate) fn mend_at(&self, at: usize, to: usize) {
        self.must(self.hosts[at].ip(&format!("route del blackhole {}/32", Self::address(to))));
    }

    /// The address of host `of` is at host `at`: its own, or one that took it over.
    pub(crate) fn route(&self, of: usize, at: usize) {
        self.must(self.router.ip(&format!("route replace {}/32 dev p{at}", Self::address(of))));
    }

    /// A host takes another's address besides its own.
    pub(crate) fn take_over(&self, of: usize, by: usize) {
        self.must(self.hosts[by].ip(&format!("addr replace {}/32 dev eth0", Self::address(of))));
        self.route(of, by);
    }

    /// The largest packet on the way to and from a host, as the router has it.
    pub(crate) fn set_mtu(&self, at: usize, bytes: u32) {
        self.must(self.router.ip(&format!("link set p{at} mtu {bytes}")));
    }

    /// At most so much each way, by a token bucket that queues for at most `queue_ms` and then drops.
    pub(crate) fn set_rate(&self, at: usize, kilobits: u32, queue_ms: u32) -> Tried<()> {
        has("tc")?;
        let line = |interface: String| {
            format!(
                "tc qdisc replace dev {interface} root tbf rate {kilobits}kbit burst 16kb latency {queue_ms}ms"
            )
        };
        let unknown = |why: String| Skip(format!("no `tbf` in this kernel: {why}"));
        self.router.inside(&line(format!("p{at}"))).map_err(unknown)?;
        self.hosts[at].inside(&line("eth0".to_owned())).map_err(unknown).map(drop)
    }

    /// Packets that the token bucket of a host's port dropped so far.
    pub(crate) fn dropped(&self, at: usize) -> u64 {
        let text = self.router.inside(&format!("tc -s qdisc show dev p{at}")).unwrap_or_default();
        let number = |text: &str| text.split("dropped ").nth(1)?.split(',').next()?.trim().parse().ok();
        number(&text).unwrap_or_default()
    }

    /// The kernel ends all connections of a host with another, as if by an error: the other gets a reset. How many.
    pub(crate) fn kill_sockets(&self, at: usize, with: usize) -> Tried<usize> {
        has("ss")?;
        let line = format!("ss -K -H -t state established dst {}", Self::address(with));
        let said = self.hosts[at].inside(&line).map_err(|why| Skip(format!("no `ss -K`: {why}")))?;
        Ok(said.lines().count())
    }

    /// What there is, for who has to find out why.
    pub(crate) fn story(&self) -> String {
        let mut story = String::new();
        for namespace in self.hosts.iter().chain([&self.router]) {
            let routes = namespace.ip("route").unwrap_or_else(|why| why);
            let _infallible = write!(story, "\n{}: {}", namespace.name, routes.replace('\n', "; "));
        }
        story
    }
}

/// See [`Socket::state`].
pub(crate) const TIME_WAIT: u8 = 6;

/// A socket of TCP as the kernel lists it for a process's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// IPv4 address of the other side, as text.
    pub(crate) remote: String,
    /// As in `include/net/tcp_states.h`: 1 established, 2 SYN sent.
    pub(crate) state: u8,
}

/// The connections in the network namespace of a process, of all states. Listening sockets are left out.
pub(crate) fn sockets(pid: u32) -> Vec<Socket> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("net/tcp"));
    let parse = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let (remote, state) = (fields.next()?, fields.next()?);
        let remote = u32::from_str_radix(remote.split(':').next()?, 16).ok()?;
        let state = u8::from_str_radix(state, 16).ok()?;
        // Written as the machine has it in memory.
        let remote = std::net::Ipv4Addr::from(remote.to_ne_bytes()).to_string();
        (state != 10).then_some(Socket { remote, state })
    };
    text.unwrap_or_default().lines().skip(1).filter_map(parse).collect()
}
