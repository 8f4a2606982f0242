//! Simulated connections: two byte pipes with a delay, and the ways in which they break.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::link::{FrameReader, LinkId};
use crate::member::MemberId;

/// Who learns that a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Both,
    Only(usize),
    Nobody,
}

/// What becomes of a connection when so many bytes, both directions together, were delivered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Break {
        bytes: usize,
        told: Told,
    },
    /// A bit of the next byte changes.
    Flip {
        bytes: usize,
    },
}

/// What happens when somebody dials this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// Connections are refused at once.
    Shut,
    /// Nothing comes back, ever.
    Nowhere,
    /// Connects, and then nothing passes, ever.
    Mute,
}

#[derive(Debug)]
pub(super) enum Packet {
    Connected,
    Refused,
    Bytes(Vec<u8>),
    End,
}

/// How far one end of a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The dialler waits for the connection.
    Connecting,
    /// The dialler said hello and waits for the answer.
    Greeting,
    /// The acceptor waits for a hello.
    Asked,
    Live,
    Closed,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) stage: Stage,
    /// Whose link this is here, and which.
    pub(super) link: Option<(MemberId, LinkId)>,
    inbound: VecDeque<(Instant, Packet)>,
    /// First bytes, not complete yet.
    pub(super) first: Vec<u8>,
    pub(super) reader: FrameReader,
}

impl End {
    fn new(stage: Stage) -> Self {
        Self {
            stage,
            link: None,
            inbound: VecDeque::new(),
            first: Vec::new(),
            reader: FrameReader::default(),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) ends: [End; 2],
    fate: Option<Fate>,
    /// Nothing passes any more.
    pub(super) broken: bool,
    /// What these sides write vanishes.
    mute: [bool; 2],
    /// Bytes delivered, both directions together.
    pub(super) carried: usize,
}

impl Conn {
    pub(super) fn dialled(by: usize, door: Door, arrives: Instant, fate: Option<Fate>) -> Self {
        let mut ends = [End::new(Stage::Asked), End::new(Stage::Asked)];
        ends[by].stage = Stage::Connecting;
        let mut conn = Self { ends, fate, broken: false, mute: [false; 2], carried: 0 };
        match door {
            Door::Open => conn.ends[by].inbound.push_back((arrives, Packet::Connected)),
            Door::Shut => conn.ends[by].inbound.push_back((arrives, Packet::Refused)),
            Door::Nowhere => conn.broken = true,
            Door::Mute => {
                conn.ends[by].inbound.push_back((arrives, Packet::Connected));
                conn.broken = true;
            }
        }
        conn
    }

    /// It will break.
    pub(super) fn set_fate(&mut self, fate: Fate) {
        self.fate = Some(fate);
    }

    /// It will not break any more.
    pub(super) fn forgive(&mut self) {
        self.fate = None;
    }

    /// Bytes a side writes; they vanish when nothing passes.
    pub(super) fn write(&mut self, from: usize, bytes: Vec<u8>, arrives: Instant) {
        let to = &mut self.ends[1 - from];
        if !self.broken && !self.mute[from] && to.stage != Stage::Closed {
            to.inbound.push_back((arrives, Packet::Bytes(bytes)));
        }
    }

    /// A side closes its end.
    pub(super) fn close(&mut self, side: usize, arrives: Instant) {
        let end = &mut self.ends[side];
        if end.stage == Stage::Closed {
            return;
        }
        end.stage = Stage::Closed;
        end.inbound.clear();
        let to = &mut self.ends[1 - side];
        if !self.broken && !self.mute[side] && to.stage != Stage::Closed {
            to.inbound.push_back((arrives, Packet::End));
        }
    }

    /// What this side writes from now on vanishes, also its end.
    pub(super) fn mute(&mut self, side: usize) {
        self.mute[side] = true;
    }

    /// Breaks now; what is under way is lost.
    pub(super) fn break_now(&mut self, told: Told, now: Instant) {
        self.broken = true;
        for (side, end) in self.ends.iter_mut().enumerate() {
            end.inbound.clear();
            let learns = match told {
                Told::Both => true,
                Told::Only(only) => only == side,
                Told::Nobody => false,
            };
            if learns && end.stage != Stage::Closed {
                end.inbound.push_back((now, Packet::End));
            }
        }
    }

    /// When something arrives next, and where.
    pub(super) fn next(&self) -> Option<(Instant, usize)> {
        let first = |side: usize| self.ends[side].inbound.front().map(|(at, _)| (*at, side));
        [first(0), first(1)].into_iter().flatten().min()
    }

    /// What arrives at this side by now. A connection may break in the middle of it.
    pub(super) fn take(&mut self, side: usize, now: Instant) -> Option<Packet> {
        let (_, packet) = self.ends[side].inbound.pop_front_if(|(at, _)| *at <= now)?;
        let Packet::Bytes(mut bytes) = packet else { return Some(packet) };
        let from = self.carried;
        match self.fate {
            Some(Fate::Break { bytes: most, told }) if from + bytes.len() >= most => {
                bytes.truncate(most.saturating_sub(from));
                self.break_now(told, now);
            }
            Some(Fate::Flip { bytes: at }) if (from..from + bytes.len()).contains(&at) => {
                bytes[at - from] ^= 1 << (at % 8);
            }
            Some(Fate::Break { .. } | Fate::Flip { .. }) | None => {}
        }
        self.carried += bytes.len();
        Some(Packet::Bytes(bytes))
    }

    /// Both ends are closed, or know of nothing that could come.
    pub(super) fn is_done(&self) -> bool {
        self.ends.iter().all(|end| end.stage == Stage::Closed)
    }
}

/// What connections that are dialled from now on are like.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) doors: [Door; 2],
    /// From each side to the other.
    pub(super) delays: [Duration; 2],
    /// Of the next connections, one each; beyond them none breaks.
    pub(super) fates: VecDeque<Option<Fate>>,
}
