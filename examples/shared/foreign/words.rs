//! What the parent and its nodes say to each other, a line of JSON each.

use karere::{Member, MemberId, View};
use serde::{Deserialize, Serialize};

use crate::router::Lane;

/// From the parent, on standard input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    View(View),
    Totals,
    Quit,
}

/// From a node, on standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum News {
    Started(Member),
    /// So many orders have been answered. At each tenth.
    Progress(u64),
    /// All orders are answered, or known to be lost with the node that had them.
    Done,
    /// A view without this node came.
    Expelled,
    /// It knows that nobody is its peer any more, and ends.
    Alone,
    Totals(Totals),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) me: MemberId,
    /// Orders that were answered.
    pub(crate) answered: u64,
    /// Orders that were certainly not sent to a node that went, and went to another.
    pub(crate) again: u64,
    /// Orders that a node had, or may have had, when it went.
    pub(crate) departed: u64,
    /// Nothing waits for room.
    pub(crate) is_settled: bool,
    /// How many messages each of the redundant actors of this node had.
    pub(crate) actors: Vec<u64>,
    pub(crate) lanes: Vec<(MemberId, Lane)>,
    /// Frames that the plug dropped, because their sender was down.
    pub(crate) dropped: u64,
    pub(crate) books_balance: bool,
}
