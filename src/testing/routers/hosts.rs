//! A router of one process: its hosts, and what their handlers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::book::{Message, Told};
use super::{ANSWER, LIMITS, LOCAL, LOOP, Load, OTHER, STEPS, Step, key, partition};
use crate::router::{Context, Failed, Host, HostBuilder, Hub, Node, Preference, Replies, StaticList};
use crate::testing::net::ProcessId;
use crate::testing::process::{Handlers, Note, Notes, Process};

/// What a handler was declared as.
#[derive(Clone, Copy, Debug)]
pub(in crate::testing) struct Declared {
    pub(in crate::testing) process: ProcessId,
    pub(in crate::testing) kind: u8,
    pub(in crate::testing) partition: u8,
    pub(in crate::testing) local: bool,
    pub(in crate::testing) concurrency: usize,
}

/// What handlers of one host share.
#[derive(Debug)]
struct Side {
    notes: Arc<Notes>,
    manner: Arc<Handlers>,
    running: AtomicUsize,
}

struct Running<'a>(&'a Side);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module's text.
#[derive(Debug)]
pub(in crate::testing) struct Router {
    pub(in crate::testing) node: Node,
    pub(in crate::testing) hubs: Vec<Hub>,
    pub(in crate::testing) hosts: Vec<(Host, Vec<Declared>)>,
}

impl Router {
    /// Starts a node over this process's messenger; `list`: of whom there are, where there are no views.
    pub(in crate::testing) fn start(
        process: &Process,
        list: Option<StaticList>,
        chance: &mut fastrand::Rng,
        notes: &Arc<Notes>,
    ) -> Result<Self, String> {
        let preference = if chance.bool() { Preference::Fair } else { Preference::LocalFirst };
        let mut node = Node::builder().preference(preference).limits(LIMITS.0, LIMITS.1);
        if let Some(list) = list {
            node = node.without_views().source(list);
        }
        let node = node.start(&process.messenger).map_err(|error| error.to_string())?;
        let hubs = (0..2).map(|_| node.hub()).collect();
        let mut router = Self { node, hubs, hosts: Vec::new() };
        for _ in 0..chance.u8(1..=3) {
            router.add_host(process, chance, notes)?;
        }
        Ok(router)
    }

    /// One more host, of some keys.
    pub(in crate::testing) fn add_host(
        &mut self,
        process: &Process,
        chance: &mut fastrand::Rng,
        notes: &Arc<Notes>,
    ) -> Result<(), String> {
        let concurrency = if chance.u8(..5) < 3 { 1 } else { chance.usize(2..=8) };
        let side = Side {
            notes: Arc::clone(notes),
            manner: Arc::clone(&process.handlers),
            running: AtomicUsize::new(0),
        };
        let side = Arc::new(side);
        let mut host = self.node.host().concurrency(concurrency);
        let mut all: Vec<Declared> = Vec::new();
        for _ in 0..chance.u8(1..=4) {
            let kind = match chance.u8(..10) {
                0 => LOOP,
                1 => LOCAL,
                2 => ANSWER,
                _ => chance.u8(..STEPS),
            };
            let partition = if chance.u8(..4) == 0 { chance.u8(1..=2) } else { 0 };
            if all.iter().any(|other| (other.kind, other.partition) == (kind, partition)) {
                continue;
            }
            let local = kind == LOCAL || chance.u8(..8) == 0;
            all.push(Declared { process: process.id, kind, partition, local, concurrency });
        }
        // What is local comes last: it is said once for all that follow.
        all.sort_by_key(|declared| declared.local);
        for declared in &all {
            if declared.local {
                host = host.local();
            }
            host = on(host.partition(partition(declared.partition)), *declared, &side);
        }
        let host = host.start().map_err(|error| error.to_string())?;
        self.hosts.push((host, all));
        Ok(())
    }

    /// A host ends, or takes one of its keys no more.
    pub(in crate::testing) fn take_from(&mut self, chance: &mut fastrand::Rng) {
        if self.hosts.is_empty() {
            return;
        }
        let at = chance.usize(..self.hosts.len());
        if chance.bool() {
            let (host, _) = self.hosts.swap_remove(at);
            return host.stop();
        }
        let Some((host, all)) = self.hosts.get_mut(at) else { return };
        if let Some(declared) = all.pop() {
            host.unassign(&[key(declared.kind, declared.partition)]);
        }
    }
}

fn on(host: HostBuilder, declared: Declared, side: &Arc<Side>) -> HostBuilder {
    match declared.kind {
        0 => with::<0>(host, declared, side),
        1 => with::<1>(host, declared, side),
        2 => with::<2>(host, declared, side),
        3 => with::<3>(host, declared, side),
        LOOP => with::<LOOP>(host, declared, side),
        LOCAL => with::<LOCAL>(host, declared, side),
        _ => with::<ANSWER>(host, declared, side),
    }
}

fn with<const N: u8>(host: HostBuilder, declared: Declared, side: &Arc<Side>) -> HostBuilder {
    let side = Arc::clone(side);
    host.on(move |Step::<N>(load), context| handle(Arc::clone(&side), declared, load, context))
}

async fn handle(side: Arc<Side>, by: Declared, load: Load, context: Context) -> Result<Replies, Failed> {
    let running = side.running.fetch_add(1, Ordering::Relaxed) + 1;
    let _running = Running(&side);
    let (here, hops) = (context.here(), context.hops());
    let Load { flow, tag, depth, .. } = load;
    side.notes.add(Note::Flow(Told::Handling { by, here, tag, flow, hops, depth, running }));
    let mut chance = fastrand::Rng::with_seed(load.chance);
    if by.kind != LOOP {
        take_time(&side, &mut chance).await;
    }
    let told = |made, failure| side.notes.add(Note::Flow(Told::Handled { flow, tag, made, failure }));
    match chance.u8(..100) {
        0..5 if by.kind != LOOP => {
            let text = format!("planned in {flow}");
            told(Vec::new(), Some(text.clone()));
            Err(Failed::new(text))
        }
        5..8 if by.kind != LOOP => {
            let text = format!("planned in {flow}, by a panic");
            told(Vec::new(), Some(text.clone()));
            // Without the hook, which takes panics for faults.
            std::panic::resume_unwind(Box::new(text))
        }
        8..13 if by.kind != LOOP => {
            told(Vec::new(), None);
            Ok(Replies::new())
        }
        _ => {
            let (replies, made) = go_on(&side, by, &load, &mut chance);
            told(made, None);
            Ok(replies)
        }
    }
}

async fn take_time(side: &Side, chance: &mut fastrand::Rng) {
    let millis = match chance.u8(..100) {
        0..60 => return,
        60..85 => chance.u64(1..30),
        85..95 => chance.u64(100..600),
        95..97 => chance.u64(500..3_000),
        _ => return side.manner.handle().await,
    };
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// What comes of a message.
fn go_on(
    side: &Side,
    by: Declared,
    load: &Load,
    chance: &mut fastrand::Rng,
) -> (Replies, Vec<(u64, Message)>) {
    let (mut replies, mut made) = (Replies::new(), Vec::new());
    let count = if by.kind != LOOP && chance.u8(..5) == 0 { chance.u8(2..=3) } else { 1 };
    for _ in 0..count {
        let tag = side.notes.number();
        let (kind, part) = match chance.u8(..100) {
            _ if by.kind == LOOP => (LOOP, by.partition),
            _ if load.steps == 0 => (ANSWER, 0),
            0..20 => (ANSWER, 0),
            20..30 => (OTHER, 0),
            30..33 => (LOCAL, 0),
            33..43 => (chance.u8(..STEPS), 1),
            _ => (chance.u8(..STEPS), 0),
        };
        let broadcast = by.kind != LOOP && part == 0 && chance.u8(..12) == 0;
        let next = Load {
            tag,
            chance: chance.u64(..),
            steps: load.steps.saturating_sub(1),
            depth: load.depth + 1,
            ..load.clone()
        };
        replies = reply(replies, kind, part, broadcast, next);
        let message = Message {
            flow: load.flow,
            kind,
            partition: part,
            by: by.process,
            idempotent: false,
            broadcast,
            node: None,
            actor: None,
            handled: Vec::new(),
            ended: 0,
        };
        made.push((tag, message));
    }
    (replies, made)
}

fn reply(replies: Replies, kind: u8, part: u8, broadcast: bool, load: Load) -> Replies {
    fn and<const N: u8>(replies: Replies, part: u8, broadcast: bool, load: Load) -> Replies {
        match (broadcast, part) {
            (true, _) => replies.and_broadcast(Step::<N>(load)),
            (false, 0) => replies.and(Step::<N>(load)),
            (false, _) => replies.and_in(partition(part), Step::<N>(load)),
        }
    }
    match kind {
        0 => and::<0>(replies, part, broadcast, load),
        1 => and::<1>(replies, part, broadcast, load),
        2 => and::<2>(replies, part, broadcast, load),
        3 => and::<3>(replies, part, broadcast, load),
        LOOP => and::<LOOP>(replies, part, broadcast, load),
        LOCAL => and::<LOCAL>(replies, part, broadcast, load),
        ANSWER => and::<ANSWER>(replies, part, broadcast, load),
        _ => and::<OTHER>(replies, part, broadcast, load),
    }
}
