//! Datagrams between the two: each comes at most once, and as it was sent.

use std::collections::HashSet;
use std::time::Duration;

use super::{Run, Source};
use crate::limits::{DATAGRAM_QUEUE_MAX, KIB};
use crate::peer::Outbound;
use crate::wire::BodyCheck;
use crate::wire::frame::{Datagram, encode_datagram};
use crate::wire::{Class, Protocol, StreamId, record};

/// What was sent and what came. A datagram is known by its tag, which travels as its type's hash.
#[derive(Default)]
pub(super) struct Datagrams {
    sent: u32,
    came: HashSet<u32>,
}

impl Datagrams {
    /// Side `at` got this.
    pub(super) fn got(&mut self, at: usize, datagram: &Datagram, honest: bool) {
        let record = record::take(&mut datagram.record.clone());
        let Ok(record) = record else { panic!("what is handed on decodes: {record:?}") };
        assert!(record.header.is(record::WHOLE), "and is whole");
        if honest {
            let tag = record.header.hash;
            assert!(tag < self.sent && tag % 2 == 1 - at as u32, "{tag} was not sent to {at}");
            assert!(record.body.iter().all(|byte| *byte == tag as u8), "{tag} is not what was sent");
            assert!(self.came.insert(tag), "{tag} came twice");
        }
    }
}

impl Run {
    /// A datagram from side `at`. Tags of side 0 are even.
    pub(super) fn send_datagram(&mut self, at: usize, source: &mut Source<'_>) {
        let (size, millis) = (usize::from(source.u8()), source.u8());
        let Some(peer) = &self.nodes[at].peer else { return };
        let tag = self.datagrams.sent + (self.datagrams.sent + at as u32) % 2;
        self.datagrams.sent = tag + 1;
        let body = vec![tag as u8; if size < 128 { size } else { (size - 128) * KIB / 4 }];
        let stream = StreamId::new(Protocol::APPLICATION, Class::Normal, true);
        let frame = encode_datagram(stream, tag, 1, &body, BodyCheck::Crc);
        let expires = Some(self.now + Duration::from_millis(millis.into()));
        let datagram = Outbound { frame, stream, hash: tag, version: 1, body_bytes: body.len(), expires };
        let before = peer.datagrams().stats();
        // Whatever becomes of it: it is counted, or the peer has ended.
        let _taken = peer.datagrams().push(self.now, datagram);
        let after = peer.datagrams().stats();
        assert!(after.given() <= before.given() + 1);
        assert!(after.waiting <= DATAGRAM_QUEUE_MAX as u64);
    }
}
