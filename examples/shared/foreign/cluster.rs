//! The parent: starts the nodes, decides the views, removes one node and kills another, and compares what the rest say.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use karere::{Member, View, ViewId};
use tokio::sync::mpsc;

use crate::links::Links;
use crate::report::Report;
use crate::words::{News, Order, Totals};
use crate::{Failure, Options};

/// Nothing is heard of any node for so long: far beyond what a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(20);

/// A node's index, and what it said; nothing when its output has ended.
type Said = (usize, Option<News>);

/// One node's process. Killed when dropped.
struct Process {
    child: Child,
    input: ChildStdin,
    member: Option<Member>,
    progress: u64,
    is_done: bool,
    /// It counts: it was neither removed nor killed.
    is_in: bool,
    expelled: bool,
    alone: bool,
    totals: Option<Totals>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(index: usize, options: &Options, news: mpsc::Sender<Said>) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        for (flag, number) in
            [("--node", index as u64), ("--nodes", options.nodes), ("--orders", options.orders)]
        {
            command.args([flag, &number.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let said = serde_json::from_str(&line).map_err(|error| eprintln!("{error}: {line}")).ok();
                if news.blocking_send((index, said)).is_err() {
                    return;
                }
            }
            // The parent may be gone.
            let _ = news.blocking_send((index, None));
        });
        let (member, totals) = (None, None);
        Ok(Self {
            child,
            input,
            member,
            progress: 0,
            is_done: false,
            is_in: true,
            expelled: false,
            alone: false,
            totals,
        })
    }

    fn order(&mut self, order: &Order) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        Ok(self.input.write_all(&line)?)
    }
}

struct Cluster {
    processes: Vec<Process>,
    news: mpsc::Receiver<Said>,
    views: u64,
}

/// Runs all of it. Whether nothing was lost, doubled or out of order between those who are left.
pub(crate) async fn run(options: &Options) -> Result<bool, Failure> {
    let begin = Instant::now();
    let mut links = Links::new(options)?;
    let (said, news) = mpsc::channel(256);
    let mut all = Cluster { processes: Vec::new(), news, views: 0 };
    for index in 0..options.nodes as usize {
        all.processes.push(Process::start(index, options, said.clone())?);
    }
    all.wait("all nodes", |all| all.iter().all(|process| process.member.is_some())).await?;
    for process in &mut all.processes {
        if let Some(member) = &mut process.member {
            let own = member.endpoints.first().ok_or("a node without an address")?;
            member.endpoints = vec![links.to(own)?];
        }
    }
    all.install(None)?;

    // A third of the way: one is removed, and lives to see it.
    let third = options.orders / 3;
    all.wait("a third of the answers", |all| all.iter().all(|one| one.progress >= third)).await?;
    let removed = options.nodes as usize - 1;
    all.processes[removed].is_in = false;
    all.install(Some(removed))?;
    all.wait("the removed node to see that it is alone", |all| all[removed].expelled && all[removed].alone)
        .await?;
    if !all.wait_end(removed).await?.success() {
        return Err("the removed node failed".into());
    }

    // Two thirds: another one is killed.
    let living =
        |all: &[Process], most: u64| all.iter().filter(|one| one.is_in).all(|one| one.progress >= most);
    all.wait("two thirds of the answers", |all| living(all, 2 * third)).await?;
    // No neighbour of the first: each partition has two nodes side by side.
    let killed = options.nodes as usize - 3;
    all.processes[killed].is_in = false;
    all.processes[killed].child.kill()?;
    all.install(None)?;

    let are_done = |all: &[Process]| all.iter().filter(|one| one.is_in).all(|one| one.is_done);
    // If they do not come, the totals say what is missing.
    if let Err(late) = all.wait("all answers", are_done).await {
        eprintln!("{late}");
    }
    let totals = all.settle().await?;
    let seconds = begin.elapsed().as_secs_f64();
    for index in 0..all.processes.len() {
        if all.processes[index].is_in {
            all.processes[index].order(&Order::Quit)?;
            if !all.wait_end(index).await?.success() {
                return Err(format!("node {index} failed").into());
            }
        }
    }
    let report = Report::new(options, &totals, links.counts(), seconds);
    report.print(options.json);
    Ok(report.is_good())
}

impl Cluster {
    /// A view of those who count, for them and for `also`.
    fn install(&mut self, also: Option<usize>) -> Result<(), Failure> {
        self.views += 1;
        let id = ViewId { generation: 1, number: self.views };
        let members = self.processes.iter().filter(|one| one.is_in).filter_map(|one| one.member.clone());
        let order = Order::View(View::new(id, members));
        for (index, process) in self.processes.iter_mut().enumerate() {
            if process.is_in || Some(index) == also {
                process.order(&order)?;
            }
        }
        Ok(())
    }

    async fn wait(&mut self, what: &str, holds: impl Fn(&[Process]) -> bool) -> Result<(), Failure> {
        while !holds(&self.processes) {
            let next = tokio::time::timeout(DEADLINE, self.news.recv()).await;
            let (index, said) = next.ok().flatten().ok_or_else(|| format!("waited in vain for {what}"))?;
            let process = &mut self.processes[index];
            match said {
                Some(News::Started(member)) => process.member = Some(member),
                Some(News::Progress(answered)) => process.progress = answered,
                Some(News::Done) => (process.is_done, process.progress) = (true, u64::MAX),
                Some(News::Expelled) => process.expelled = true,
                Some(News::Alone) => process.alone = true,
                Some(News::Totals(totals)) => process.totals = Some(totals),
                None if process.is_in => return Err(format!("node {index} ended, waited for {what}").into()),
                None => {}
            }
        }
        Ok(())
    }

    async fn wait_end(&mut self, index: usize) -> Result<ExitStatus, Failure> {
        let late = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.processes[index].child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > late {
                return Err(format!("node {index} does not end").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks until all have received what was sent to them, or for too long.
    async fn settle(&mut self) -> Result<Vec<(usize, Totals)>, Failure> {
        let late = Instant::now() + DEADLINE / 2;
        loop {
            for process in self.processes.iter_mut().filter(|one| one.is_in) {
                process.totals = None;
                process.order(&Order::Totals)?;
            }
            let told = |all: &[Process]| all.iter().filter(|one| one.is_in).all(|one| one.totals.is_some());
            self.wait("totals", told).await?;
            let all = self.processes.iter().enumerate().filter(|(_, one)| one.is_in);
            let totals: Vec<_> = all.filter_map(|(index, one)| Some((index, one.totals.clone()?))).collect();
            if crate::report::is_settled(&totals) || Instant::now() > late {
                return Ok(totals);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
