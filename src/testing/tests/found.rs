//! What the simulation found, each in a small world of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::ledger::{Tag, body};
use super::super::net::{Network, ProcessId, Told, Weather};
use super::super::plan::Plan;
use super::super::process::{MEMBERS, Manner, Note, Notes, OPEN, Process};
use super::super::world::address;
use crate::member::{Member, View, ViewId, Views};
use crate::{Class, Limits, MemberId, Raw, Receipt, Timeouts};

/// Processes with default times on a quick network.
struct Small {
    network: Arc<Network>,
    notes: Arc<Notes>,
    processes: Vec<Process>,
    number: u64,
}

impl Small {
    async fn new(count: usize, views: Views) -> Self {
        Self::with(count, views, Limits::default(), Timeouts::default()).await
    }

    async fn with(count: usize, views: Views, limits: Limits, timeouts: Timeouts) -> Self {
        let millis = Duration::from_millis;
        let weather = Weather {
            delay_max: millis(1),
            jitter_max: Duration::ZERO,
            bytes_per_second: 100_000_000,
            window_bytes: 256 * 1024,
        };
        let plan = Plan {
            members: count,
            views,
            weather,
            timeouts,
            limits,
            pause: millis(50),
            faults: 0,
            stagger: millis(0),
            routers: false,
        };
        let (network, notes) = (Network::new(1, weather), Arc::<Notes>::default());
        let mut processes = Vec::new();
        for at in 0..count {
            let started = Process::start(&plan, &network, ProcessId(at), address(at), 0, &notes).await;
            processes.push(started.unwrap());
        }
        Self { network, notes, processes, number: 0 }
    }

    fn id(&self, at: usize) -> MemberId {
        self.processes[at].me()
    }

    /// All of these are in the next view, and each of them hears of it.
    fn install(&mut self, members: &[usize]) {
        self.number += 1;
        let id = ViewId { generation: 1, number: self.number };
        let joined = Some(ViewId { generation: 1, number: 1 });
        let member = |at: &usize| Member { joined, ..self.processes[*at].messenger.member() };
        let view = View::new(id, members.iter().map(member));
        for at in members {
            drop(self.processes[*at].messenger.install_view(view.clone()).unwrap());
        }
    }

    fn send(&self, from: usize, to: usize, kind: crate::Kind, number: u64) -> Receipt {
        let raw = Raw::new(kind, body(Tag(number), 100));
        let messenger = &self.processes[from].messenger;
        messenger.class(Class::Normal).send_with_receipt(&raw, self.id(to)).unwrap()
    }

    /// Tags that a process was given, in their order.
    fn came(&self, to: usize) -> Vec<u64> {
        let tag = |note: Note| match note {
            Note::Delivered { process: ProcessId(at), body, .. } if at == to => {
                super::super::ledger::read(&body).map(|tag| tag.0)
            }
            _ => None,
        };
        self.notes.take().into_iter().filter_map(|(_, note)| tag(note)).collect()
    }

    /// Sockets that `at` has to `other`.
    fn sockets(&self, at: usize, other: usize) -> usize {
        let ends = [ProcessId(at), ProcessId(other)];
        let side = |seen: &super::super::net::Seen| match seen.ends {
            other if other == ends => Some(0),
            [one, two] if [two, one] == ends => Some(1),
            _ => None,
        };
        let held = |seen: super::super::net::Seen| side(&seen).and_then(|side| seen.held_since[side]);
        self.network.seen().into_iter().filter_map(held).count()
    }
}

/// Lets time pass.
async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_session_with_oneself_outlives_a_process_that_stood_still() {
    let mut small = Small::new(1, Views::Agreed).await;
    small.install(&[0]);
    small.send(0, 0, MEMBERS, 1).handled().await.unwrap();
    small.processes[0].host.gate_of().shut();
    pass(60.0).await;
    small.processes[0].host.gate_of().open();
    pass(1.0).await;
    let after = small.send(0, 0, MEMBERS, 2);
    pass(1.0).await;
    assert_eq!(after.now(), Some(Ok(())), "it is handled as before");
}

#[tokio::test(start_paused = true)]
async fn last_words_on_a_link_of_before_end_with_the_removal() {
    let mut small = Small::new(2, Views::Agreed).await;
    small.install(&[0, 1]);
    small.send(0, 1, MEMBERS, 1).acked().await.unwrap();
    // The other side has noticed and dials; this one holds the old link for its last words, which nobody reads.
    let conn = small.network.seen()[0].conn;
    small.network.break_conn(conn, Told::Only(1));
    drop(small.send(1, 0, MEMBERS, 2));
    pass(0.1).await;
    assert_eq!(small.sockets(0, 1), 2, "the new link, and the old one with its last words");
    small.install(&[0]);
    pass(0.1).await;
    assert_eq!(small.sockets(0, 1), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_handled_in_order_also_when_one_session_follows_another() {
    let small = Small::new(2, Views::None).await;
    let meet = |at: usize, to: SocketAddr| {
        let messenger = small.processes[at].messenger.clone();
        async move { messenger.contact(to.to_string()).await.unwrap() }
    };
    small.processes[1].handlers.set(Manner::Hung);
    let contact = meet(0, address(1)).await;
    for number in 1..=3 {
        small.send(0, 1, OPEN, number).acked().await.unwrap();
    }
    drop(contact);
    pass(0.5).await;
    let _contact = meet(0, address(1)).await;
    small.send(0, 1, OPEN, 4).acked().await.unwrap();
    pass(0.5).await;
    assert_eq!(small.came(1), [1], "the others wait for its handler, whatever session they came by");
    small.processes[1].handlers.set(Manner::Prompt);
    pass(0.5).await;
    assert_eq!(small.came(1), [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_removed_member_ends_though_a_handler_of_its_message_hangs() {
    let mut small = Small::new(2, Views::Agreed).await;
    small.install(&[0, 1]);
    small.processes[0].handlers.set(Manner::Hung);
    small.send(1, 0, MEMBERS, 1).acked().await.unwrap();
    small.processes[1].host.gate_of().shut();
    let (messenger, other) = (small.processes[0].messenger.clone(), small.id(1));
    let probing = tokio::spawn(async move { messenger.probe([other], Duration::from_secs(10)).await });
    pass(0.5).await;
    assert!(!probing.is_finished());
    small.install(&[0]);
    pass(0.1).await;
    assert!(probing.is_finished(), "nobody waits for one who was removed");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_its_peers_back_until_it_has_drained() {
    let small = Small::new(2, Views::None).await;
    let contact = small.processes[0].messenger.contact(address(1).to_string()).await.unwrap();
    small.send(0, 1, OPEN, 1).acked().await.unwrap();
    // The one who leaves cannot dial: the other one comes back to it.
    small.network.block(address(1), address(0));
    let last = small.send(1, 0, OPEN, 2);
    pass(0.05).await;
    let leaver = small.processes[1].messenger.clone();
    let leaving = tokio::spawn(async move { leaver.leave(Duration::from_secs(20)).await });
    pass(0.05).await;
    let conn = small.network.seen()[0].conn;
    small.network.break_conn(conn, Told::Both);
    pass(0.5).await;
    small.network.free_all();
    pass(5.0).await;
    assert_eq!(last.now(), Some(Ok(())), "it was drained over a link that the other side made");
    assert!(leaving.is_finished());
    drop(contact);
}
