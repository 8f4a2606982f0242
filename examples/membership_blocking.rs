//! The membership system of `membership.rs` from threads: one decides, the others bring it what comes. The two take part
//! in the same cluster.
//!
//! ```text
//! cargo run --example membership_blocking -- --bind 127.0.0.1:7400
//! cargo run --example membership -- --join 127.0.0.1:7400
//! ```

#[path = "shared/membership.rs"]
mod membership;
#[path = "shared/notes.rs"]
mod notes;
#[path = "shared/options.rs"]
mod options;
#[path = "shared/traffic.rs"]
mod traffic;

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use karere::blocking::{Contact, Messenger, Receipt, Received};
use karere::{Class, Endpoint, MemberId, PeerEvent, SendError};
use membership::Membership;
use notes::{Action, Note};
use options::{LEAVE, Options, Order, TICK, read_orders, say, say_fact};
use serde_json::json;
use traffic::{Heard, Numbered, Sent};

/// Notes and answers that wait for the one thread that decides. When it is full, the threads that bring them wait, then
/// the channels behind them fill, and then senders wait.
const INPUTS_MAX: usize = 1024;

enum Input {
    Note(MemberId, Note),
    Event(PeerEvent),
    Checked(MemberId, bool),
    Contact(Contact),
    Order(Order),
}

struct Node {
    options: Options,
    messenger: Messenger,
    core: Membership,
    inputs: SyncSender<Input>,
    contacts: HashMap<Endpoint, Contact>,
    sent: Sent<Receipt>,
    heard: Arc<Mutex<Heard>>,
    /// No more numbered messages.
    paused: bool,
    /// When a leave began, and whether the core knows.
    leaving: Option<(Instant, bool)>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let builder =
        Messenger::builder().bind(&options.bind).name(&options.name).network("example", "membership");
    let messenger = builder.timeouts(options.timeouts()).start_blocking()?;
    let (inputs, input) = mpsc::sync_channel(INPUTS_MAX);
    let heard = Arc::<Mutex<Heard>>::default();
    bring(&inputs, messenger.events(), Input::Event);
    bring(&inputs, messenger.receiver(INPUTS_MAX)?, |Received { from, message, .. }| {
        Input::Note(from, message)
    });
    let numbers = Arc::clone(&heard);
    messenger.add_handler(move |from, number: Numbered| {
        numbers.lock().unwrap_or_else(PoisonError::into_inner).note(from, number);
    })?;
    let orders = inputs.clone();
    thread::spawn(move || read_orders(|order| drop(orders.send(Input::Order(order)))));

    let core = Membership::start(Instant::now(), messenger.member(), options.join.clone(), options.retry);
    let (contacts, sent) = (HashMap::new(), Sent::new());
    let mut node =
        Node { options, messenger, core, inputs, contacts, sent, heard, paused: false, leaving: None };
    let address = node.messenger.local_address().map(|address| address.to_string());
    say(&node.core, "started", json!({"address": address}));
    let mut next = Instant::now() + TICK;
    for tick in 0.. {
        // All that has come by the next tick, then what is due at it.
        loop {
            match input.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(input) => node.handle(input),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            if node.act() {
                return node.end();
            }
        }
        next = (next + TICK).max(Instant::now());
        if node.tick(tick) || node.act() {
            return node.end();
        }
    }
    Ok(())
}

/// Brings what comes out of a channel of the messenger, on a thread of its own, until the messenger has closed.
fn bring<T: Send + 'static>(
    inputs: &SyncSender<Input>,
    from: impl IntoIterator<Item = T> + Send + 'static,
    input: impl Fn(T) -> Input + Send + 'static,
) {
    let inputs = inputs.clone();
    thread::spawn(move || from.into_iter().map(input).try_for_each(|input| inputs.send(input)));
}

impl Node {
    fn handle(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Note(from, note) => self.core.handle_note(now, from, note),
            Input::Event(event) => self.core.handle_event(now, &event),
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
        thread::spawn(move || {
            // Who is not found is looked for again, or somebody else is.
            if let Ok(contact) = messenger.contact(endpoint.to_string()) {
                drop(inputs.send(Input::Contact(contact)));
            }
        });
    }

    /// Whether a member acknowledges a message within the time.
    fn check(&self, who: MemberId) {
        let (messenger, inputs, within) = (self.messenger.clone(), self.inputs.clone(), self.options.check);
        thread::spawn(move || {
            let until = Instant::now() + within;
            let left = || until.saturating_duration_since(Instant::now());
            let alive = loop {
                match messenger.class(Class::Urgent).send_with_receipt(&Note::Check, who) {
                    Ok(receipt) => break receipt.acked(left()).is_ok(),
                    Err(SendError::Full(_)) if !left().is_zero() => thread::sleep(TICK),
                    Err(_) => break false,
                }
            };
            drop(inputs.send(Input::Checked(who, alive)));
        });
    }

    fn say_totals(&self, event: &str) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = heard.totals(self.core.me(), &self.sent);
        totals["books_balance"] = json!(self.messenger.stats().total().balance());
        say(&self.core, event, totals);
    }

    fn end(mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.messenger.leave(LEAVE / 2);
        self.sent.settle(Receipt::now);
        self.say_totals("left");
        Ok(())
    }
}
