//! What nodes ask of the log, and what they are told of it.

use super::commit::{Concern, op_bytes};
use super::config::OP_BYTES_MAX;
use super::{Desk, Ordered};
use crate::MemberId;
use crate::rendezvous::state::{LeaseOp, Op, Outcome, Refused, State, Why};
use crate::rendezvous::words::{Refusal, ToNode};

impl Desk {
    pub(super) fn handle_leave(&mut self, state: &State, from: MemberId) {
        let term = self.reign();
        self.undecided.remove(&from);
        let node = self.nodes.entry(from).or_default();
        let joining = node.hello.take().is_some_and(|hello| hello.joining);
        if state.member(from).is_none() && !joining {
            self.dismiss(from);
            return self.tell(from, ToNode::Farewell { term });
        }
        self.leaving.insert(from, Why::Left);
        self.ask(from, Op::Leave { member: from, why: Why::Left }, Concern::Leave(from));
    }

    pub(super) fn handle_routes(&mut self, from: MemberId, to: u64, op: Op) {
        let bytes = op_bytes(&op);
        if bytes > OP_BYTES_MAX {
            let why = format!("a change of routes of {bytes} bytes, at most {OP_BYTES_MAX}: say it in parts");
            let refused = Some(Refused::Unsound(why));
            return self.tell(from, ToNode::Registered { term: self.reign(), changes: to, refused });
        }
        self.ask(from, op, Concern::Routes(from, to));
    }

    pub(super) fn handle_lease_op(&mut self, from: MemberId, number: u64, op: LeaseOp) {
        let op = Op::Lease { member: from, op };
        if op_bytes(&op) > OP_BYTES_MAX {
            let refused = Some(Refused::Unsound("the name of a lease is too long".to_owned()));
            return self.tell(from, ToNode::Lease { term: self.reign(), number, refused });
        }
        self.ask(from, op, Concern::Lease(from, number));
    }

    fn ask(&mut self, from: MemberId, op: Op, concern: Concern) {
        self.nodes.entry(from).or_default().asked += 1;
        self.commit.push([(op, concern)]);
    }

    /// An operation was decided.
    pub(super) fn tell_outcome(&mut self, concern: Concern, outcome: Outcome) {
        let term = self.reign();
        let refused = match outcome {
            Outcome::Done | Outcome::Already => None,
            Outcome::Refused(refused) => Some(refused),
        };
        match concern {
            Concern::Nobody => {
                // Also if a recovery was decided before it: there is nothing to wait for any more.
                self.suspending = None;
                if let Some(refused) = refused {
                    tracing::error!("the log refuses: {refused}");
                }
            }
            Concern::Join(id) => self.tell_joined(id, refused),
            Concern::Leave(id) => {
                self.answered(id);
                // It came and went unseen, or was gone already: no view says so.
                if self.leaving.remove(&id).is_some() {
                    // Also if it has come again meanwhile: that is the last it hears.
                    self.dismiss(id);
                    self.tell(id, ToNode::Farewell { term });
                }
            }
            Concern::Out(id, tool) => {
                self.leaving.remove(&id);
                if let Some(tool) = tool {
                    self.answer(tool, refused.map_or(Ok(()), |refused| Err(refused.to_string())));
                }
            }
            Concern::Routes(id, to) => {
                self.answered(id);
                // What is decided is told by the state: all of it at once.
                if let Some(refused) = refused
                    && self.is_welcome(id)
                {
                    self.tell(id, ToNode::Registered { term, changes: to, refused: Some(refused) });
                }
            }
            Concern::Lease(id, number) => {
                self.answered(id);
                if self.is_welcome(id) {
                    self.tell(id, ToNode::Lease { term, number, refused });
                }
            }
            Concern::Recover(tool) => {
                self.answer(tool, refused.map_or(Ok(()), |refused| Err(refused.to_string())));
            }
        }
    }

    /// Nobody knows whether it was decided. Who is concerned is told to say hello again.
    pub(super) fn tell_unknown(&mut self, concern: Concern) {
        match concern {
            Concern::Nobody => self.suspending = None,
            Concern::Join(id) | Concern::Routes(id, _) | Concern::Lease(id, _) | Concern::Leave(id) => {
                self.leaving.remove(&id);
                self.let_go(id);
                self.later.insert(id, self.config.judge.ping());
            }
            Concern::Out(id, tool) => {
                self.leaving.remove(&id);
                if let Some(tool) = tool {
                    self.answer(tool, Err(UNKNOWN.to_owned()));
                }
            }
            Concern::Recover(tool) => self.answer(tool, Err(UNKNOWN.to_owned())),
        }
    }

    fn tell_joined(&mut self, id: MemberId, refused: Option<Refused>) {
        let term = self.reign();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        // Its hello was answered meanwhile: another leader's word had let it in, or out.
        let Some(hello) = node.hello.as_mut() else { return };
        hello.joining = false;
        let Some(refused) = refused else { return };
        self.dismiss(id);
        let word = match refused {
            Refused::Gone => ToNode::Evicted { term, why: None },
            why => ToNode::Refused { term, why: Refusal::Refused(why) },
        };
        self.tell(id, word);
    }

    fn answered(&mut self, id: MemberId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.asked = node.asked.saturating_sub(1);
        }
        self.line_up(id);
    }

    fn answer(&mut self, tool: u64, how: Ordered) {
        if self.tools.remove(&tool) {
            self.answers.push_back((tool, how));
        }
    }
}

const UNKNOWN: &str = "the leader lost its place before this was decided: nobody knows whether it will be; look, and say it again";
