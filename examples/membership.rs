//! A small membership system over a messenger: join by contact, a coordinator that decides views with a majority,
//! suspicion from the messenger's events, take-over, graceful leave, and coming back after having been expelled.
//!
//! ```text
//! cargo run --example membership -- --bind 127.0.0.1:7400
//! cargo run --example membership -- --join 127.0.0.1:7400
//! ```
//!
//! Prints one line of JSON an event; orders on standard input: `totals`, `pause`, `leave`. What is decided, and why it
//! is safe, is in `shared/membership.rs`; this is the wiring. `membership_blocking.rs` is the same from threads.

#[path = "shared/membership.rs"]
mod membership;
#[path = "shared/notes.rs"]
mod notes;
#[path = "shared/options.rs"]
mod options;
#[path = "shared/traffic.rs"]
mod traffic;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use karere::{Class, Contact, Endpoint, MemberId, Messenger, Receipt};
use membership::Membership;
use notes::{Action, Note};
use options::{LEAVE, Options, Order, TICK, read_orders, say, say_fact};
use serde_json::json;
use tokio::sync::mpsc;
use traffic::{Heard, Numbered, Sent};

/// Notes and answers that wait for the one task that decides. When it is full, handlers wait, and so do senders.
const INPUTS_MAX: usize = 1024;

enum Input {
    Note(MemberId, Note),
    Checked(MemberId, bool),
    Contact(Contact),
    Order(Order),
}

struct Node {
    options: Options,
    messenger: Messenger,
    core: Membership,
    inputs: mpsc::Sender<Input>,
    contacts: HashMap<Endpoint, Contact>,
    sent: Sent<Receipt>,
    heard: Arc<Mutex<Heard>>,
    /// No more numbered messages.
    paused: bool,
    /// When a leave began, and whether the core knows.
    leaving: Option<(Instant, bool)>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let builder =
        Messenger::builder().bind(&options.bind).name(&options.name).network("example", "membership");
    let messenger = builder.timeouts(options.timeouts()).start().await?;
    let mut events = messenger.events();
    let (inputs, mut input) = mpsc::channel(INPUTS_MAX);
    let heard = Arc::<Mutex<Heard>>::default();
    let (notes, numbers, orders) = (inputs.clone(), Arc::clone(&heard), inputs.clone());
    messenger.add_handler(move |from, note: Note| {
        let notes = notes.clone();
        async move { drop(notes.send(Input::Note(from, note)).await) }
    })?;
    messenger.add_handler(move |from, number: Numbered| {
        numbers.lock().unwrap_or_else(PoisonError::into_inner).note(from, number);
        async {}
    })?;
    std::thread::spawn(move || read_orders(|order| drop(orders.blocking_send(Input::Order(order)))));

    let core = Membership::start(Instant::now(), messenger.member(), options.join.clone(), options.retry);
    let (contacts, sent) = (HashMap::new(), Sent::new());
    let mut node =
        Node { options, messenger, core, inputs, contacts, sent, heard, paused: false, leaving: None };
    let address = node.messenger.local_address().map(|address| address.to_string());
    say(&node.core, "started", json!({"address": address}));
    let mut ticks = tokio::time::interval(TICK);
    for tick in 0.. {
        // All that has come by the next tick, then what is due at it.
        loop {
            tokio::select! {
                Some(input) = input.recv() => node.handle(input),
                Some(event) = events.next() => node.core.handle_event(Instant::now(), &event),
                _ = ticks.tick() => break,
            }
            if node.act() {
                return node.end().await;
            }
        }
        if node.tick(tick) || node.act() {
            return node.end().await;
        }
    }
    Ok(())
}

impl Node {
    fn handle(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Note(from, note) => self.core.handle_note(now, from, note),
            Input::Checked(who, alive) => self.core.handle_checked(now, who, alive),
            Input::Contact(contact) => {
                self.core.handle_contact(contact.id());
                if self.core.view().is_none() {
                    self.contacts.insert(contact.endpoint().clone(), contact);
                }
            }
            Input::Order(Order::Totals) => self.say_totals("totals"),
            Input::Order(Order::Pause) => self.paused = true,
            Input::Order(Order::Leave) => {
                self.paused = true;
                self.leaving.get_or_insert((now, false));
            }
        }
    }

    /// Whether it is time to go.
    fn tick(&mut self, tick: u64) -> bool {
        let now = Instant::now();
        self.core.handle_timeout(now);
        self.sent.settle(Receipt::now);
        if let Some((since, told)) = &mut self.leaving {
            // What was sent arrives first.
            if !*told && (self.sent.is_settled() || now > *since + LEAVE / 2) {
                *told = true;
                self.core.handle_leave(now);
            }
            return now > *since + LEAVE;
        }
        let Some(view) = self.core.view().filter(|_| !self.paused) else { return false };
        let me = self.core.me();
        for to in view.others(me) {
            let send = |number: &Numbered| self.messenger.send_with_receipt(number, to).ok();
            self.sent.send(me, to, self.options.count(tick), send);
        }
        false
    }

    /// Does what the core asks for. Whether it is time to go.
    fn act(&mut self) -> bool {
        while let Some(action) = self.core.poll_action() {
            match action {
                // What is not taken now is asked for again.
                Action::Send(to, note) => drop(self.messenger.class(Class::Urgent).send(&note, [to])),
                Action::Contact(endpoint) => self.find(endpoint),
                Action::DropContacts => self.contacts.clear(),
                Action::Check(who) => self.check(who),
                Action::Install(view) => match self.messenger.install_view(view) {
                    // Links are there before they are needed, so that a death is noticed.
                    Ok(change) => self.messenger.preconnect(change.joined),
                    Err(error) => say(&self.core, "error", json!({"error": error.to_string()})),
                },
                Action::Reincarnate => match self.messenger.reincarnate() {
                    Ok(me) => self.core.handle_reincarnated(Instant::now(), me),
                    Err(_closed) => return true,
                },
                Action::Leave => return true,
                Action::Say(fact) => say_fact(&self.core, &fact),
            }
        }
        false
    }

    fn find(&mut self, endpoint: Endpoint) {
        if let Some(contact) = self.contacts.get(&endpoint) {
            return self.core.handle_contact(contact.id());
        }
        let (messenger, inputs) = (self.messenger.clone(), self.inputs.clone());
        tokio::spawn(async move {
            // Who is not found is looked for again, or somebody else is.
            if let Ok(contact) = messenger.contact(endpoint.to_string()).await {
                drop(inputs.send(Input::Contact(contact)).await);
            }
        });
    }

    /// Whether a member answers within the time.
    fn check(&self, who: MemberId) {
        let (messenger, inputs, within) = (self.messenger.clone(), self.inputs.clone(), self.options.check);
        tokio::spawn(async move {
            let alive = messenger.probe([who], within).await.has_answered(who);
            drop(inputs.send(Input::Checked(who, alive)).await);
        });
    }

    fn say_totals(&self, event: &str) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = heard.totals(self.core.me(), &self.sent);
        totals["books_balance"] = json!(self.messenger.stats().total().balance());
        say(&self.core, event, totals);
    }

    async fn end(mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.messenger.leave(LEAVE / 2).await;
        self.sent.settle(Receipt::now);
        self.say_totals("left");
        Ok(())
    }
}
