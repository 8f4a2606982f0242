//! Some servers, what is done to them, and what must never be seen: two leaders of a term, two leases at one moment, a leader that does
//! not know what one before it knew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::{Book, Platter};
use crate::rendezvous::raft::types::ServerId;
use crate::rendezvous::raft::{Log, LogConfig, Names, ProposeError, Standing, Store};
use crate::testing::lab::{Lab, Run};
use crate::{Messenger, Timeouts, Views};

pub(super) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// One server's process.
pub(super) struct Server {
    pub(super) messenger: Messenger,
    pub(super) run: Run,
    pub(super) log: Arc<Log>,
    pub(super) book: Book,
}

/// Where a server runs, process after process.
struct Place {
    address: SocketAddr,
    disk: Platter,
    config: LogConfig,
    server: Option<Server>,
    id: Option<ServerId>,
    /// Of a cluster of its own: it leads beside the others.
    is_foreign: bool,
}

/// See the module's text.
pub(super) struct World {
    pub(super) lab: Lab,
    places: Vec<Place>,
    seed: u64,
    seen: Arc<Seen>,
}

/// What is looked at all the time.
#[derive(Default)]
struct Seen {
    logs: Mutex<Vec<(Weak<Log>, Book)>>,
    leaders: Mutex<BTreeMap<u64, ServerId>>,
    /// How many commands some leader has been told.
    decided: Mutex<usize>,
    wrong: Mutex<Option<String>>,
}

impl Seen {
    fn look(&self) {
        let now = now();
        let mut lease: Option<(ServerId, u64)> = None;
        self.logs.lock().retain(|(log, _)| log.strong_count() > 0);
        let there = |(log, book): &(Weak<Log>, Book)| Some((log.upgrade()?, book.clone()));
        let logs: Vec<(Arc<Log>, Book)> = self.logs.lock().iter().filter_map(there).collect();
        for (log, book) in logs {
            let id = log.id();
            let leads = match *log.standing().borrow() {
                Standing::Leader { term } => Some(term),
                _ => None,
            };
            if let Some(term) = leads {
                let leader = *self.leaders.lock().entry(term).or_insert(id);
                if leader != id {
                    self.say(format!("{leader} and {id} lead in term {term}"));
                }
            }
            // One that was left behind may hold that it leads, and has no lease.
            let is_newest = leads.is_some() && self.leaders.lock().keys().next_back().copied() == leads;
            if is_newest || log.lease(now).is_some() {
                let (mut decided, knows) = (self.decided.lock(), book.0.lock().len());
                if knows < *decided {
                    self.say(format!("{id} leads and was told {knows} commands, a leader before {decided}"));
                }
                *decided = knows.max(*decided);
            }
            if let Some(held) = log.lease(now)
                && let Some((other, term)) = lease.replace((id, held.term))
                && other != id
            {
                self.say(format!("{other} and {id} have leases, of terms {term} and {}", held.term));
            }
        }
    }

    fn say(&self, wrong: String) {
        self.wrong.lock().get_or_insert(wrong);
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        fastrand::seed(seed);
        #[cfg(feature = "cli")]
        if let Ok(filter) = std::env::var("RAFT_LOG") {
            let filter = tracing_subscriber::EnvFilter::new(filter);
            let _set_already =
                tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        }
        let seen = Arc::<Seen>::default();
        let looking = Arc::downgrade(&seen);
        tokio::spawn(async move {
            while let Some(seen) = looking.upgrade() {
                seen.look();
                drop(seen);
                tokio::time::sleep(millis(1)).await;
            }
        });
        Self { lab: Lab::new(seed), places: Vec::new(), seed, seen }
    }

    /// Servers whose lists name all of them, and that run.
    pub(super) async fn of(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed);
        world.plan(count);
        for at in 0..count {
            world.start(at).await;
        }
        world
    }

    /// Places of servers whose lists name all of them.
    pub(super) fn plan(&mut self, count: usize) {
        let list: Vec<String> = (0..count).map(|at| address(at).to_string()).collect();
        for at in 0..count {
            self.add_place(LogConfig::new(address(at).to_string(), &list));
        }
    }

    pub(super) fn add_place(&mut self, config: LogConfig) -> usize {
        let address = config.address.parse().unwrap();
        self.places.push(Place {
            address,
            disk: Platter::default(),
            config,
            server: None,
            id: None,
            is_foreign: false,
        });
        self.places.len() - 1
    }

    /// A place for one that founds a cluster of its own.
    pub(super) fn add_foreign(&mut self) -> usize {
        let place = address(self.places.len()).to_string();
        let at = self.add_place(LogConfig::new(place, Vec::<String>::new()));
        self.places[at].is_foreign = true;
        at
    }

    /// A place for one that waits to be added.
    pub(super) fn add_joiner(&mut self) -> usize {
        let place = address(self.places.len()).to_string();
        self.add_place(LogConfig { join: true, ..LogConfig::new(place, Vec::<String>::new()) })
    }

    pub(super) fn configure(&mut self, change: impl Fn(&mut LogConfig)) {
        self.places.iter_mut().for_each(|place| change(&mut place.config));
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    pub(super) fn address(&self, at: usize) -> String {
        self.places[at].address.to_string()
    }

    pub(super) fn place(&self, at: usize) -> SocketAddr {
        self.places[at].address
    }

    pub(super) fn disk(&mut self, at: usize) -> &mut Platter {
        &mut self.places[at].disk
    }

    /// Starts a process on the disk of its place.
    pub(super) async fn start(&mut self, at: usize) {
        let fresh = self.places[at].id.unwrap_or_else(|| fastrand::u64(1..));
        let store = Store::open(self.places[at].disk.open(), &names(), fresh).await.unwrap();
        self.start_on(at, store).await;
    }

    pub(super) async fn start_on(&mut self, at: usize, store: Store) {
        let (address, config) = (self.places[at].address, self.places[at].config.clone());
        let timeouts = Timeouts { redial_max: secs(1), ..Timeouts::default() };
        let builder = Messenger::builder().views(Views::None).timeouts(timeouts);
        let (messenger, run) = self.lab.start(address, builder).await.unwrap();
        let book = Book::default();
        let seed = self.seed ^ fastrand::u64(..);
        let log = Log::open(&messenger, store, book.clone(), config, seed).await.unwrap();
        let log = Arc::new(log);
        if !self.places[at].is_foreign {
            self.seen.logs.lock().push((Arc::downgrade(&log), book.clone()));
        }
        self.places[at].id = Some(log.id());
        self.places[at].server = Some(Server { messenger, run, log, book });
    }

    /// As `kill -9`; `silently`: as if its plug were pulled.
    pub(super) async fn kill(&mut self, at: usize, silently: bool) {
        if let Some(server) = self.places[at].server.take() {
            server.run.kill(silently);
            // What is left of it in this process goes.
            server.messenger.close().await;
        }
    }

    pub(super) fn is_up(&self, at: usize) -> bool {
        self.places[at].server.is_some()
    }

    pub(super) fn server(&self, at: usize) -> &Server {
        self.places[at].server.as_ref().unwrap()
    }

    pub(super) fn log(&self, at: usize) -> &Arc<Log> {
        &self.server(at).log
    }

    pub(super) fn standing(&self, at: usize) -> Standing {
        self.log(at).standing().borrow().clone()
    }

    pub(super) fn up(&self) -> Vec<usize> {
        (0..self.count()).filter(|at| self.is_up(*at)).collect()
    }

    /// Nothing gets from these to the others, nor back.
    pub(super) fn isolate(&self, some: &[usize]) {
        for one in some {
            for other in (0..self.count()).filter(|other| !some.contains(other)) {
                self.lab.part(self.place(*one), self.place(other));
            }
        }
    }

    // ---- what is waited for ----

    /// Waits until something holds.
    pub(super) async fn until(&self, time: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = now() + time;
        while !holds(self) {
            let standings: Vec<Standing> = self.up().into_iter().map(|at| self.standing(at)).collect();
            assert!(now() < deadline, "not within {time:?}: {what}; {standings:?}");
            self.check();
            tokio::time::sleep(millis(2)).await;
        }
        self.check();
    }

    /// Who may speak now.
    pub(super) fn speaker(&self) -> Option<usize> {
        let ours = |at: &usize| !self.places[*at].is_foreign;
        self.up().into_iter().filter(ours).find(|at| self.log(*at).lease(now()).is_some())
    }

    /// Waits until one of these may speak, and says who.
    pub(super) async fn leader_of(&self, some: &[usize]) -> usize {
        let speaks = |world: &Self| world.speaker().filter(|at| some.contains(at));
        self.until(secs(20), "one of them leads", |world| speaks(world).is_some()).await;
        speaks(self).unwrap()
    }

    pub(super) async fn leader(&self) -> usize {
        self.leader_of(&self.up()).await
    }

    /// Proposes to whoever leads until it is decided.
    pub(super) async fn decide(&self, command: &[u8]) {
        let deadline = now() + secs(20);
        loop {
            let leader = self.leader().await;
            match self.log(leader).propose(Bytes::copy_from_slice(command)).await {
                Ok(_) => {
                    // At once: it may be killed before anybody looks.
                    let (mut decided, knows) =
                        (self.seen.decided.lock(), self.server(leader).book.0.lock().len());
                    *decided = knows.max(*decided);
                    return;
                }
                Err(ProposeError::NotLeader { .. } | ProposeError::Lost) if now() < deadline => {
                    tokio::time::sleep(millis(5)).await;
                }
                Err(why) => panic!("{why}"),
            }
        }
    }

    /// Waits until these have all been told the same, with all of this in it.
    pub(super) async fn agree(&self, some: &[usize], acked: &[Vec<u8>]) {
        let deadline = now() + secs(20);
        loop {
            let books: Vec<_> = some.iter().map(|at| self.server(*at).book.commands()).collect();
            let lacks: Vec<_> = acked.iter().filter(|command| !books[0].contains(command)).collect();
            if books.iter().all(|book| *book == books[0]) && lacks.is_empty() {
                return self.check();
            }
            let lengths: Vec<_> = books.iter().map(Vec::len).collect();
            let metrics = |at| self.log(at).house.raft().map(|raft| raft.metrics().borrow().to_string());
            let servers: Vec<_> = self.up().into_iter().map(metrics).collect();
            let seed = self.seed;
            assert!(
                now() < deadline,
                "seed {seed}: of {} lacks {lacks:?}; {lengths:?}; {servers:#?}",
                acked.len()
            );
            self.check();
            tokio::time::sleep(millis(2)).await;
        }
    }

    /// Nothing was seen that must never be.
    pub(super) fn check(&self) {
        let wrong = self.seen.wrong.lock().clone();
        assert_eq!(wrong, None, "seed {}", self.seed);
        // What some have applied is the beginning of what others have.
        let ours = self.up().into_iter().filter(|at| !self.places[*at].is_foreign);
        let books: Vec<_> = ours.map(|at| self.server(at).book.commands()).collect();
        for (one, other) in books.iter().zip(books.iter().skip(1)) {
            assert!(one.iter().zip(other).all(|(a, b)| a == b), "seed {}: two histories", self.seed);
        }
    }

    /// Terms in which somebody led.
    pub(super) fn terms(&self) -> usize {
        self.seen.leaders.lock().len()
    }
}

pub(super) fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + u8::try_from(at).unwrap()], 7500))
}

pub(super) fn names() -> Names {
    Names { environment: "testing".to_owned(), network: "log".to_owned() }
}
