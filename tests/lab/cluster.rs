//! Workers that make a cluster: the test is their membership system, and keeps the books of all of them.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::labs::books::uneven;
use crate::labs::form::Form;
use crate::labs::network::{Network, Tried};
use crate::labs::process;
use crate::process::Worker;
use crate::report::Row;
use crate::worker::{Job, unix_millis};

const PORT: u16 = 7400;
/// For each wait: far beyond every promise.
const DEADLINE: Duration = Duration::from_secs(45);
/// Other members must not notice a fault: what a busy machine may hold them up.
const UNNOTICED_MS: u64 = 1000;

pub(crate) struct Cluster {
    // Before the network, so that they are ended first.
    pub(crate) workers: Vec<Worker>,
    /// In which view each joined.
    joined: Vec<u64>,
    network: Option<Network>,
    view: u64,
    job: Job,
}

impl Cluster {
    /// Members that reach each other by loopback: what needs no root.
    pub(crate) fn on_loopback(members: usize, form: Form) -> Self {
        let mut this = Self::new(None, form);
        (0..members).for_each(|_| {
            this.add("127.0.0.1:0", None);
        });
        this.meet(members);
        this
    }

    /// Members each on a host of its own, and as many hosts more.
    pub(crate) fn on_hosts(members: usize, more_hosts: usize, form: Form) -> Tried<Self> {
        Self::on_hosts_with(members, more_hosts, form, |_| ())
    }

    /// The same with another job.
    pub(crate) fn on_hosts_with(
        members: usize,
        more_hosts: usize,
        form: Form,
        change: impl FnOnce(&mut Job),
    ) -> Tried<Self> {
        let network = Network::new(members + more_hosts)?;
        let mut this = Self::new(Some(network), form);
        change(&mut this.job);
        (0..members).for_each(|at| {
            this.add_at(at, at);
        });
        this.meet(members);
        Ok(this)
    }

    fn new(network: Option<Network>, form: Form) -> Self {
        let job = Job { bind: String::new(), liveness_ms: form.pick(1500, 5000), rates: [50, 50, 20] };
        Self { workers: Vec::new(), joined: Vec::new(), network, view: 0, job }
    }

    fn meet(&mut self, members: usize) {
        let all: Vec<_> = (0..members).collect();
        self.install(&all, &all);
        self.flow_ms(&all, 0);
        self.mark();
    }

    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().unwrap()
    }

    /// The longest time after which a silent link must have been replaced.
    pub(crate) fn silence_ms(&self) -> u64 {
        self.job.liveness_ms + 1000
    }

    pub(crate) fn ping_ms(&self) -> u64 {
        self.job.timeouts().ping.as_millis() as u64
    }

    /// The longest time after which a member that can be reached again is met: a dial that just failed, and the longest
    /// wait after it.
    pub(crate) fn redial_ms(&self) -> u64 {
        let times = self.job.timeouts();
        (times.connect + times.redial_max).as_millis() as u64
    }

    pub(crate) fn liveness(&self) -> Duration {
        Duration::from_millis(self.job.liveness_ms)
    }

    /// One more process: where it listens, on which host. It is in no view yet.
    pub(crate) fn add(&mut self, bind: &str, host: Option<usize>) -> usize {
        let job = Job { bind: bind.to_owned(), ..self.job.clone() };
        let within = host.map(|host| self.network().host(host));
        let worker = Worker::start(within, &job);
        self.workers.push(worker);
        self.joined.push(self.view + 1);
        self.workers.len() - 1
    }

    /// The same on a host, under the address of one.
    pub(crate) fn add_at(&mut self, host: usize, address_of: usize) -> usize {
        self.add(&format!("{}:{PORT}", Network::address(address_of)), Some(host))
    }

    /// The next view, of these members, at those of them that can be told.
    pub(crate) fn install(&mut self, members: &[usize], at: &[usize]) {
        self.view += 1;
        members.iter().for_each(|who| self.joined[*who] = self.joined[*who].min(self.view));
        let list: Vec<_> = members
            .iter()
            .map(|who| format!("[{},{}]", self.joined[*who], self.workers[*who].member))
            .collect();
        let order = format!("view [{},[{}]]", self.view, list.join(","));
        at.iter().for_each(|who| self.workers[*who].order(&order));
        for who in at {
            self.workers[*who].wait("the view", |worker| {
                worker.all("installed").iter().find(|line| line["number"] == self.view).cloned()
            });
        }
    }

    /// From now on only what is said later counts as seen.
    pub(crate) fn mark(&mut self) {
        self.workers.iter_mut().for_each(Worker::mark);
    }

    pub(crate) fn id(&self, who: usize) -> String {
        self.workers[who].id.clone()
    }

    #[track_caller]
    pub(crate) fn wait<T>(&mut self, what: &str, found: impl FnMut(&mut Self) -> Option<T>) -> T {
        process::until(what, DEADLINE, self, found, Self::story)
    }

    /// Waits until each of these was heard by each other after a moment; how long after it the last was.
    #[track_caller]
    pub(crate) fn flow_ms(&mut self, between: &[usize], moment: u64) -> u64 {
        let mut last = moment;
        for by in between {
            for of in between.iter().filter(|of| *of != by) {
                let from = self.id(*of);
                let heard =
                    self.wait("messages to flow", |this| this.workers[*by].heard_after(&from, moment));
                last = last.max(heard);
            }
        }
        last - moment
    }

    /// Waits until a member was told this of another; when.
    #[track_caller]
    pub(crate) fn told(&mut self, who: usize, of: usize, what: &str) -> u64 {
        let id = self.id(of);
        self.wait(what, |this| {
            let lines = this.workers[who].all("peer");
            let told = |line: &&Value| line["who"] == *id && line["what"].as_str().unwrap().starts_with(what);
            lines.iter().find(told).and_then(|line| line["at_ms"].as_u64())
        })
    }

    /// What a member saw of another, in a few words.
    pub(crate) fn saw(&self, who: usize, of: usize) -> String {
        let mut words: Vec<(String, usize)> = Vec::new();
        for told in self.workers[who].told(&self.workers[of].id) {
            match words.last_mut() {
                Some((last, times)) if *last == told => *times += 1,
                Some(_) | None => words.push((told, 1)),
            }
        }
        let word = |(word, times): &(String, usize)| match times {
            1 => word.clone(),
            times => format!("{word} x{times}"),
        };
        match words.is_empty() {
            true => "nothing".to_owned(),
            false => words.iter().map(word).collect::<Vec<_>>().join(", "),
        }
    }

    /// Between these nothing stood still meanwhile: a fault of others is not theirs.
    #[track_caller]
    pub(crate) fn unnoticed(&self, between: &[usize]) {
        for (by, of) in between.iter().flat_map(|by| between.iter().map(move |of| (*by, *of))) {
            let id = &self.workers[of].id;
            for gap in self.workers[by].all("gap").iter().filter(|gap| gap["from"] == **id) {
                let long = gap["at_ms"].as_u64().unwrap() - gap["since_ms"].as_u64().unwrap();
                assert!(
                    long < UNNOTICED_MS,
                    "{long} ms without a message from {of} at {by}: {}",
                    self.story()
                );
            }
            let told = self.workers[by].told(id);
            assert!(told.is_empty(), "{by} of {of}: {told:?}");
        }
    }

    /// Stops the messages and waits until each of these has all that the others sent it, acknowledged; then checks that
    /// nothing was lost, doubled, out of order, bent, or meant for another, and that the books balance. What went to
    /// others has ended in one of three ways. Returns the row, to be completed.
    #[track_caller]
    pub(crate) fn settle(&mut self, between: &[usize]) -> Row {
        between.iter().for_each(|who| self.workers[*who].order("pause"));
        let totals = self.wait("all to be received and acknowledged", |this| {
            let totals: Vec<_> = between.iter().map(|who| this.workers[*who].ask("totals")).collect();
            let is_settled = totals.iter().all(|one| one["settled"] == true);
            (is_settled && this.unequal(between, &totals).is_none()).then_some(totals)
        });
        let mut row = Row::default();
        for one in &totals {
            assert_eq!(one["balance"], true, "{one}");
            assert_eq!((&one["bent"], &one["misdirected"]), (&0.into(), &0.into()), "{one}");
            for class in one["classes"].as_array().unwrap() {
                row.lost += class["lost"].as_u64().unwrap();
                row.twice += class["twice"].as_u64().unwrap();
                row.out_of_order += class["out_of_order"].as_u64().unwrap();
                for lane in class["sent"].as_object().unwrap().values() {
                    row.acked += lane["acked"].as_u64().unwrap();
                    row.not_sent += lane["not_sent"].as_u64().unwrap();
                    row.indeterminate += lane["indeterminate"].as_u64().unwrap();
                }
            }
        }
        assert_eq!((row.lost, row.twice, row.out_of_order), (0, 0, 0), "{totals:#?}");
        row
    }

    /// Where what was queued, acknowledged and received differs between two.
    fn unequal(&self, between: &[usize], totals: &[Value]) -> Option<String> {
        for (from, ours) in between.iter().zip(totals) {
            for (to, theirs) in between.iter().zip(totals).filter(|(to, _)| *to != from) {
                for class in 0..3 {
                    let sent = &ours["classes"][class]["sent"][&self.workers[*to].id];
                    let received = &theirs["classes"][class]["from"][&self.workers[*from].id];
                    let uneven = uneven(&format!("{from} to {to}, class {class}"), sent, received);
                    if uneven.is_some() {
                        return uneven;
                    }
                }
            }
        }
        None
    }

    pub(crate) fn story(&self) -> String {
        let workers: Vec<_> = self.workers.iter().map(Worker::story).collect();
        let network = self.network.as_ref().map(Network::story).unwrap_or_default();
        format!("\nnow: {}{network}\n{}", unix_millis(), workers.join("\n"))
    }
}

/// Lets a fault last.
pub(crate) fn last(time: Duration) {
    thread::sleep(time);
}
