//! What members of the membership examples tell each other, and what the deciding half asks of the rest.

use karere::{Endpoint, Kind, Member, MemberId, Message, View, ViewId};
use serde::{Deserialize, Serialize};

/// What members tell each other. Open to anyone: joiners are in no view, and a majority may be needed across views.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    Join {
        who: Member,
    },
    /// Ask there: the coordinator.
    Redirect {
        to: Vec<Endpoint>,
    },
    Suspect {
        who: MemberId,
    },
    Leave,
    Claim {
        generation: u64,
    },
    Promise {
        generation: u64,
        installed: Option<View>,
        accepted: Option<View>,
    },
    Prepare {
        view: View,
    },
    Ready {
        view: ViewId,
    },
    /// To a claim or a view that is too old, or of somebody who is not the oldest.
    Refused {
        promised: u64,
        installed: Option<View>,
    },
    Install {
        view: View,
    },
    /// Only its receipt counts; where there are no probes.
    Check,
}

impl Message for Note {
    const KIND: Kind = Kind::new("example.membership", 1).open();
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Send(MemberId, Note),
    /// Find out who is there and keep the contact; `handle_contact` answers.
    Contact(Endpoint),
    DropContacts,
    /// Does it answer? `handle_checked` answers.
    Check(MemberId),
    Install(View),
    /// `handle_reincarnated` answers.
    Reincarnate,
    /// Out of the view: leave the messenger.
    Leave,
    Say(Fact),
}

/// What people want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Joined,
    View,
    Suspect {
        who: MemberId,
        why: String,
    },
    /// It was checked.
    Checked {
        who: MemberId,
        alive: bool,
    },
    Claimed {
        generation: u64,
    },
    /// No majority within a time: nothing is decided here until there is one.
    Waiting {
        answered: usize,
        of: usize,
    },
    Expelled {
        by: String,
    },
}
