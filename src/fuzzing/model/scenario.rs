//! Scenarios: what is there at the beginning, and what may happen at most.

/// A member of a view: side, incarnation, and the number of the view in which it joined.
pub type Member = (usize, u8, u64);

/// See the module's text. Everything happens at any time, in any order, as often as it says.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How it is called.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Which side holds a contact to the other from the beginning, and each later process there as soon as it finds it.
    pub contacts: [bool; 2],
    /// Messages of each side, in order: whether each is open to anyone.
    pub sends: [&'static [bool]; 2],
    /// Connections that break.
    pub breaks: u8,
    /// Leases that end, of sessions that nothing else holds.
    pub leases: u8,
    /// Quarantines that end for want of a view.
    pub quarantines: u8,
    /// Processes of each side that end, and another begins there.
    pub restarts: [u8; 2],
    /// Which side may leave.
    pub leaves: [bool; 2],
    /// Which side may drop its contact.
    pub drops: [bool; 2],
    /// Views that are decided, from number 1: each side installs them in order, when it likes.
    pub views: &'static [&'static [Member]],
    /// How many of them each side has installed at the beginning.
    pub installed: [usize; 2],
    /// What is on its way arrives frame by frame, not all at once.
    pub by_frame: bool,
    /// Writing is an action of its own, so other things happen between a send and its write.
    pub lazy: bool,
    /// Small enough for every run of the checks.
    pub quick: bool,
    /// What must have been seen in the end, or the scenario shows nothing.
    pub shows: &'static [super::Seen],
}

impl Scenario {
    /// Links of a pair that have a reason: the first, and one more for whatever may end one. One that is dialled on both
    /// sides is one generation.
    pub(super) fn generations_max(&self) -> u64 {
        let restarts = self.restarts[0] + self.restarts[1];
        2 + u64::from(self.breaks + self.quarantines + self.leases + restarts)
    }
}

const OPEN: bool = true;
const MEMBERS: bool = false;

const NOTHING: Scenario = Scenario {
    name: "",
    about: "",
    contacts: [false; 2],
    sends: [&[], &[]],
    breaks: 0,
    leases: 0,
    quarantines: 0,
    restarts: [0; 2],
    leaves: [false; 2],
    drops: [false; 2],
    views: &[],
    installed: [0; 2],
    by_frame: false,
    lazy: false,
    quick: false,
    shows: &[],
};

/// All there are.
#[must_use]
pub fn scenarios() -> &'static [Scenario] {
    SCENARIOS
}

static SCENARIOS: &[Scenario] = {
    use super::Seen::*;
    &[
        Scenario {
            name: "links-quick",
            about: "both dial, one break, frame by frame",
            contacts: [true, true],
            sends: [&[OPEN, OPEN], &[OPEN]],
            breaks: 1,
            by_frame: true,
            quick: true,
            shows: &[Again, Duplicate, Superseded],
            ..NOTHING
        },
        Scenario {
            name: "lease-quick",
            about: "one side only accepts, and forgets the session when its lease is over; two breaks",
            contacts: [true, false],
            sends: [&[OPEN, OPEN], &[OPEN]],
            breaks: 2,
            leases: 1,
            quick: true,
            shows: &[Again, Forgot, Indeterminate, Renumbered],
            ..NOTHING
        },
        Scenario {
            name: "restart-quick",
            about: "one side holds a contact, one break, the other ends and another begins in its place",
            contacts: [true, false],
            sends: [&[OPEN, OPEN], &[OPEN]],
            breaks: 1,
            restarts: [0, 1],
            quick: true,
            shows: &[WrongMember, Indeterminate, NotSent],
            ..NOTHING
        },
        Scenario {
            name: "views-quick",
            about: "a view of both is installed at different times: quarantine and its end; one break",
            sends: [&[MEMBERS, OPEN], &[MEMBERS]],
            breaks: 1,
            quarantines: 1,
            views: &[&[(0, 0, 1), (1, 0, 1)]],
            quick: true,
            shows: &[Held, LetIn, NotInView],
            ..NOTHING
        },
        Scenario {
            name: "removal-quick",
            about: "both in a view, then side 1 is not; one break",
            sends: [&[MEMBERS, MEMBERS], &[MEMBERS]],
            breaks: 1,
            views: &[&[(0, 0, 1), (1, 0, 1)], &[(0, 0, 1)]],
            installed: [1, 1],
            quick: true,
            shows: &[Removed, Indeterminate, NotSent],
            ..NOTHING
        },
        Scenario {
            name: "replaced-quick",
            about: "both in a view, side 1 restarts, and the next view holds its new process",
            sends: [&[MEMBERS, MEMBERS], &[MEMBERS]],
            breaks: 0,
            restarts: [0, 1],
            views: &[&[(0, 0, 1), (1, 0, 1)], &[(0, 0, 1), (1, 1, 2)]],
            installed: [1, 1],
            quick: true,
            shows: &[WrongMember, Indeterminate, NotSent, Held],
            ..NOTHING
        },
        Scenario {
            name: "leave-quick",
            about: "both sides hold contacts and may leave; one break",
            contacts: [true, true],
            sends: [&[OPEN], &[OPEN]],
            breaks: 1,
            leaves: [true, true],
            quick: true,
            shows: &[Goodbye],
            ..NOTHING
        },
        Scenario {
            name: "links",
            about: "both dial, two messages each way, three breaks",
            contacts: [true, true],
            sends: [&[OPEN, OPEN], &[OPEN, OPEN]],
            breaks: 3,
            shows: &[Again, Duplicate, Superseded],
            ..NOTHING
        },
        Scenario {
            name: "links-by-frame",
            about: "both dial, two messages each way, two breaks, frame by frame",
            contacts: [true, true],
            sends: [&[OPEN, OPEN], &[OPEN, OPEN]],
            breaks: 2,
            by_frame: true,
            shows: &[Again, Duplicate, Superseded],
            ..NOTHING
        },
        Scenario {
            name: "links-lazy",
            about: "both dial, writing waits for its turn, two breaks",
            contacts: [true, true],
            sends: [&[OPEN, OPEN], &[OPEN]],
            breaks: 2,
            lazy: true,
            shows: &[Again, Duplicate, Superseded],
            ..NOTHING
        },
        Scenario {
            name: "lease",
            about: "one side only accepts and forgets, twice; two messages each way, three breaks",
            contacts: [true, false],
            sends: [&[OPEN, OPEN], &[OPEN, OPEN]],
            breaks: 3,
            leases: 2,
            shows: &[Again, Forgot, Indeterminate, Renumbered],
            ..NOTHING
        },
        Scenario {
            name: "drop",
            about: "contacts of both, each may be dropped, a lease may end; two breaks",
            contacts: [true, true],
            sends: [&[OPEN, OPEN], &[OPEN]],
            breaks: 2,
            leases: 1,
            drops: [true, true],
            shows: &[Again, Forgot, Indeterminate],
            ..NOTHING
        },
        Scenario {
            name: "restart",
            about: "contacts of both, two breaks, one process ends and another begins in its place",
            contacts: [true, true],
            sends: [&[OPEN, OPEN], &[OPEN, OPEN]],
            breaks: 2,
            restarts: [0, 1],
            shows: &[WrongMember, Indeterminate, NotSent],
            ..NOTHING
        },
        Scenario {
            name: "restart-one-sided",
            about: "the acceptor, or the one who dials, restarts; leases; two breaks",
            contacts: [true, false],
            sends: [&[OPEN, OPEN], &[OPEN]],
            breaks: 2,
            leases: 1,
            restarts: [1, 1],
            shows: &[WrongMember, Forgot, Indeterminate, NotSent],
            ..NOTHING
        },
        Scenario {
            name: "views",
            about: "a view of both at different times, quarantines, two breaks",
            sends: [&[MEMBERS, OPEN], &[MEMBERS, MEMBERS]],
            breaks: 2,
            quarantines: 2,
            views: &[&[(0, 0, 1), (1, 0, 1)]],
            shows: &[Held, LetIn, NotInView],
            ..NOTHING
        },
        Scenario {
            name: "joining",
            about: "a member and a contact that joins later; then it is removed; one break",
            contacts: [false, true],
            sends: [&[MEMBERS, OPEN], &[MEMBERS, OPEN]],
            breaks: 1,
            quarantines: 1,
            leases: 1,
            views: &[&[(0, 0, 1)], &[(0, 0, 1), (1, 0, 2)], &[(0, 0, 1)]],
            installed: [1, 0],
            shows: &[Held, LetIn, Removed],
            ..NOTHING
        },
        Scenario {
            name: "removal",
            about: "both in a view, then side 1 is not; contacts as well; two breaks",
            contacts: [true, true],
            sends: [&[MEMBERS, MEMBERS], &[MEMBERS, OPEN]],
            breaks: 2,
            views: &[&[(0, 0, 1), (1, 0, 1)], &[(0, 0, 1)]],
            installed: [1, 1],
            shows: &[Removed, Indeterminate, NotSent],
            ..NOTHING
        },
        Scenario {
            name: "replaced",
            about: "both in a view, side 1 restarts, the next view holds its new process; two breaks",
            sends: [&[MEMBERS, MEMBERS], &[MEMBERS, MEMBERS]],
            breaks: 2,
            quarantines: 1,
            restarts: [0, 1],
            views: &[&[(0, 0, 1), (1, 0, 1)], &[(0, 0, 1), (1, 1, 2)]],
            installed: [1, 1],
            shows: &[WrongMember, Indeterminate, NotSent, Held],
            ..NOTHING
        },
        Scenario {
            name: "leave",
            about: "both hold contacts and may leave; two messages each way, two breaks",
            contacts: [true, true],
            sends: [&[OPEN, OPEN], &[OPEN, OPEN]],
            breaks: 2,
            leaves: [true, true],
            shows: &[Goodbye],
            ..NOTHING
        },
        Scenario {
            name: "leave-one-sided",
            about: "one side only accepts, both may leave, a lease may end; two breaks",
            contacts: [true, false],
            sends: [&[OPEN, OPEN], &[OPEN]],
            breaks: 2,
            leases: 1,
            leaves: [true, true],
            shows: &[Goodbye],
            ..NOTHING
        },
        Scenario {
            name: "full",
            about: "members of a view, two messages each way, three breaks, one restart, one view change",
            sends: [&[MEMBERS, MEMBERS], &[MEMBERS, MEMBERS]],
            breaks: 3,
            restarts: [0, 1],
            views: &[&[(0, 0, 1), (1, 0, 1)], &[(0, 0, 1), (1, 1, 2)]],
            installed: [1, 1],
            shows: &[WrongMember, Again, Indeterminate, NotSent, Held],
            ..NOTHING
        },
    ]
};
