//! The deciding half of the membership examples, alone, in virtual time: five members, a network of chance that delays and
//! splits, crashes, restarts and leaves; then quiet. Whatever happens they agree, and in the quiet they find together.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../examples/shared/membership.rs"]
mod membership;
#[path = "../examples/shared/notes.rs"]
mod notes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use karere::{Disconnect, Endpoint, Member, MemberId, PeerEvent, View, ViewId};
use membership::Membership;
use notes::{Action, Note};

const NODES: usize = 5;
const RETRY: u64 = 250;
const CHECK: u64 = 500;
const LIVENESS: u64 = 1000;

/// What comes to a process at a time.
#[derive(Debug)]
enum Coming {
    Note(MemberId, Note),
    Event(PeerEvent),
    Checked(MemberId),
    /// It was in a view for a while: is there a link by now?
    Linked(MemberId),
    Contact(Endpoint),
}

#[derive(Debug)]
struct Process {
    core: Membership,
    member: Member,
    /// A view here held them and does not any more.
    removed: BTreeSet<MemberId>,
    /// Reached outside of any view, in both directions.
    contacts: BTreeSet<MemberId>,
    view: Option<View>,
}

struct World {
    random: fastrand::Rng,
    begin: Instant,
    now: u64,
    /// By place; a place is an address.
    processes: Vec<Option<Process>>,
    /// Which side of a split each place is on.
    sides: Vec<u8>,
    coming: BTreeMap<(u64, u64), (usize, MemberId, Coming)>,
    /// When the last note of one to another comes: they keep their order.
    last: BTreeMap<(MemberId, MemberId), u64>,
    /// Notes that wait for a split to end: from, to, note.
    held: Vec<(MemberId, MemberId, Note)>,
    count: u64,
    decided: BTreeMap<ViewId, BTreeSet<MemberId>>,
    story: Vec<String>,
}

fn endpoint(place: usize) -> Endpoint {
    format!("10.0.0.{place}:7400").parse().unwrap()
}

fn ids(view: &View) -> BTreeSet<MemberId> {
    view.members().iter().map(|member| member.id).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut this = Self {
            random: fastrand::Rng::with_seed(seed),
            begin: Instant::now(),
            now: 0,
            processes: (0..NODES).map(|_| None).collect(),
            sides: vec![0; NODES],
            coming: BTreeMap::new(),
            last: BTreeMap::new(),
            held: Vec::new(),
            count: 0,
            decided: BTreeMap::new(),
            story: Vec::new(),
        };
        (0..NODES).for_each(|place| this.start(place, place == 0));
        this
    }

    fn at(&self) -> Instant {
        self.begin + Duration::from_millis(self.now)
    }

    fn member(&mut self, place: usize) -> Member {
        self.count += 1;
        let id = MemberId::from_parts(self.now, u128::from(self.count));
        let endpoints = vec![endpoint(place)];
        Member { id, endpoints, name: String::new(), labels: BTreeMap::new(), joined: None }
    }

    fn start(&mut self, place: usize, founds: bool) {
        let member = self.member(place);
        let join =
            if founds { Vec::new() } else { (0..NODES).filter(|at| *at != place).map(endpoint).collect() };
        let core = Membership::start(self.at(), member.clone(), join, Duration::from_millis(RETRY));
        let (removed, contacts) = Default::default();
        self.processes[place] = Some(Process { core, member, removed, contacts, view: None });
        self.act(place);
    }

    fn place(&self, id: MemberId) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.as_ref().is_some_and(|process| process.member.id == id))
    }

    fn come(&mut self, after: u64, place: usize, coming: Coming) {
        let Some(process) = &self.processes[place] else { return };
        self.count += 1;
        let id = process.member.id;
        self.coming.insert((self.now + after, self.count), (place, id, coming));
    }

    /// Reliable and in order, for as long as both live; a split only holds it up.
    fn send(&mut self, from: MemberId, to: MemberId, note: Note) {
        let (Some(here), Some(there)) = (self.place(from), self.place(to)) else { return };
        if self.sides[here] != self.sides[there] {
            self.held.push((from, to, note));
            return;
        }
        let last = self.last.entry((from, to)).or_default();
        *last = (*last).max(self.now + self.random.u64(1..50));
        let after = *last - self.now;
        self.come(after, there, Coming::Note(from, note));
    }

    fn act(&mut self, place: usize) {
        loop {
            let Some(process) = &mut self.processes[place] else { return };
            let Some(action) = process.core.poll_action() else { return };
            let me = process.member.id;
            match action {
                Action::Send(to, note) => {
                    let knows = process.view.as_ref().is_some_and(|view| view.contains(to));
                    if (knows || process.contacts.contains(&to)) && !process.removed.contains(&to) {
                        self.send(me, to, note);
                    }
                }
                Action::Contact(endpoint) => self.come(20, place, Coming::Contact(endpoint)),
                Action::DropContacts | Action::Say(_) => {}
                Action::Check(who) => self.come(CHECK, place, Coming::Checked(who)),
                Action::Install(view) => self.install(place, view),
                Action::Reincarnate => {
                    let (member, now) = (self.member(place), self.at());
                    let process = self.processes[place].as_mut().unwrap();
                    (process.view, process.member) = (None, member.clone());
                    process.contacts.clear();
                    process.core.handle_reincarnated(now, member);
                    let reason = Disconnect::End;
                    self.tell(place, LIVENESS, |_| PeerEvent::Disconnected { peer: me, reason });
                }
                Action::Leave => self.end(place, Disconnect::End),
            }
        }
    }

    fn install(&mut self, place: usize, view: View) {
        self.story.push(format!("{:>6} place {place} installs {view:?}", self.now));
        let process = self.processes[place].as_mut().unwrap();
        if let Some(before) = &process.view {
            assert!(view.id() > before.id());
            process.removed.extend(ids(before).difference(&ids(&view)));
        }
        assert!(view.contains(process.member.id));
        let decided = self.decided.entry(view.id()).or_insert_with(|| ids(&view));
        assert_eq!(*decided, ids(&view), "two views of one number");
        // What a deposed coordinator finds decided late is what the one after it went on from.
        if let Some((_, next)) = self.decided.range(view.id()..).nth(1)
            && !self
                .story
                .iter()
                .rev()
                .skip(1)
                .any(|line| line.contains(&format!("installs View({} ", view.id())))
        {
            assert_eq!(*next, ids(&view), "two histories");
        }
        let others: Vec<_> = view.others(process.member.id).collect();
        process.view = Some(view);
        for other in others {
            self.come(LIVENESS, place, Coming::Linked(other));
        }
    }

    fn reaches(&self, place: usize, who: MemberId) -> bool {
        self.place(who).is_some_and(|there| self.sides[there] == self.sides[place])
    }

    /// A process ends; others notice.
    fn end(&mut self, place: usize, reason: Disconnect) {
        let Some(process) = self.processes[place].take() else { return };
        self.story.push(format!("{:>6} place {place} ends: {reason:?}", self.now));
        self.tell(place, LIVENESS, |_| PeerEvent::Disconnected { peer: process.member.id, reason });
    }

    /// Everybody else, sooner or later.
    fn tell(&mut self, of: usize, within: u64, event: impl Fn(usize) -> PeerEvent) {
        for place in (0..NODES).filter(|place| *place != of) {
            let after = self.random.u64(1..within);
            self.come(after, place, Coming::Event(event(place)));
        }
    }

    fn handle(&mut self, place: usize, id: MemberId, coming: Coming) {
        let now = self.at();
        // For who was there before.
        if self.processes[place].as_ref().is_none_or(|process| process.member.id != id) {
            return;
        }
        match coming {
            Coming::Note(from, note) => {
                let process = self.processes[place].as_mut().unwrap();
                if process.removed.contains(&from) {
                    if let Some(sender) = self.place(from) {
                        self.come(5, sender, Coming::Event(PeerEvent::Expelled { by: id }));
                    }
                    return;
                }
                process.core.handle_note(now, from, note);
            }
            Coming::Event(event) => self.processes[place].as_mut().unwrap().core.handle_event(now, &event),
            Coming::Linked(peer) => {
                if !self.reaches(place, peer) {
                    let event = PeerEvent::Unreachable { peer, since: Duration::from_millis(LIVENESS) };
                    self.processes[place].as_mut().unwrap().core.handle_event(now, &event);
                }
            }
            Coming::Checked(who) => {
                let answers = self.reaches(place, who);
                let shuns = |process: &Process| process.member.id == who && process.removed.contains(&id);
                if answers && self.processes.iter().flatten().any(shuns) {
                    self.come(1, place, Coming::Event(PeerEvent::Expelled { by: who }));
                }
                self.processes[place].as_mut().unwrap().core.handle_checked(now, who, answers);
            }
            Coming::Contact(endpoint) => {
                let there = (0..NODES).find(|at| self::endpoint(*at) == endpoint).unwrap();
                if there == place || self.sides[there] != self.sides[place] {
                    return;
                }
                let Some(found) = self.processes[there].as_mut() else { return };
                found.contacts.insert(id);
                let other = found.member.id;
                let process = self.processes[place].as_mut().unwrap();
                process.contacts.insert(other);
                process.core.handle_contact(other);
            }
        }
        self.act(place);
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += 1;
            while let Some(first) = self.coming.first_entry().filter(|first| first.key().0 <= self.now) {
                let (place, id, coming) = first.remove();
                self.handle(place, id, coming);
            }
            if self.now.is_multiple_of(10) {
                let now = self.at();
                for place in 0..NODES {
                    if let Some(process) = &mut self.processes[place] {
                        process.core.handle_timeout(now);
                    }
                    self.act(place);
                }
            }
        }
    }

    /// Whether the newest view keeps its majority without this place.
    fn can_do_without(&self, place: usize) -> bool {
        let newest = self.decided.last_key_value().unwrap().1;
        let others = self.processes.iter().enumerate().filter(|(at, _)| *at != place);
        let stay = others
            .filter_map(|(_, process)| process.as_ref())
            .filter(|process| newest.contains(&process.member.id));
        stay.count() * 2 > newest.len()
    }

    fn split(&mut self) {
        self.sides = (0..NODES).map(|_| self.random.u8(0..2)).collect();
        self.story.push(format!("{:>6} split {:?}", self.now, self.sides));
        let sides = self.sides.clone();
        let members: Vec<_> =
            self.processes.iter().map(|process| process.as_ref().map(|process| process.member.id)).collect();
        for (a, b) in (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b))) {
            if let (true, Some(peer)) = (sides[a] != sides[b], members[b]) {
                let after = LIVENESS + self.random.u64(0..300);
                self.come(
                    after,
                    a,
                    Coming::Event(PeerEvent::Disconnected { peer, reason: Disconnect::Silence }),
                );
            }
        }
    }

    fn heal(&mut self) {
        self.sides = vec![0; NODES];
        self.story.push(format!("{:>6} healed", self.now));
        for (from, to, note) in std::mem::take(&mut self.held) {
            self.send(from, to, note);
        }
        let members: Vec<_> =
            self.processes.iter().map(|process| process.as_ref().map(|process| process.member.id)).collect();
        for (place, peer) in members.iter().enumerate().filter_map(|(place, peer)| Some((place, (*peer)?))) {
            self.tell(place, 50, |_| PeerEvent::Connected { peer });
        }
    }

    fn mischief(&mut self) {
        let place = self.random.usize(..NODES);
        match self.random.u8(..6) {
            0 if self.can_do_without(place) => self.end(place, Disconnect::Reset),
            1 if self.can_do_without(place) && self.processes[place].is_some() => {
                self.story.push(format!("{:>6} place {place} wants to leave", self.now));
                let now = self.at();
                self.processes[place].as_mut().unwrap().core.handle_leave(now);
                self.act(place);
            }
            2 => self.split(),
            3 | 4 => self.heal(),
            _ if self.processes[place].is_none() => {
                self.story.push(format!("{:>6} place {place} starts", self.now));
                self.start(place, false);
            }
            _ => {}
        }
    }

    fn is_whole(&self) -> bool {
        let all: Option<Vec<_>> = self.processes.iter().map(Option::as_ref).collect();
        let Some(all) = all else { return false };
        let living: BTreeSet<_> = all.iter().map(|process| process.member.id).collect();
        let first = all[0].view.as_ref().map(View::id);
        all.iter().all(|process| {
            process.view.as_ref().is_some_and(|view| Some(view.id()) == first && ids(view) == living)
        })
    }
}

#[test]
fn whatever_happens_members_agree_and_in_quiet_they_find_together() {
    let (mut views, mut generations) = (0, 0);
    for seed in 0..200 {
        let run = || {
            let mut world = World::new(seed);
            world.run(2000);
            for _ in 0..30 {
                world.mischief();
                let pause = world.random.u64(1..1500);
                world.run(pause);
            }
            world.heal();
            for _ in 0..60 {
                world.run(1000);
                (0..NODES)
                    .filter(|place| world.processes[*place].is_none())
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|place| world.start(place, false));
            }
            world
        };
        let world = run();
        let all: Vec<_> = world.processes.iter().map(|process| format!("{process:?}")).collect();
        assert!(world.is_whole(), "seed {seed}\n{}\n{}", world.story.join("\n"), all.join("\n"));
        views += world.decided.len();
        generations += world.decided.last_key_value().unwrap().0.generation;
    }
    println!("200 histories: {views} views, {generations} generations");
    assert!(generations > 400, "the next oldest takes over now and then: {generations}");
}
