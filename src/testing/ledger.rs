//! Every message of a world: who sent it to whom, what its receipt says, where it arrived.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::net::ProcessId;
use crate::member::MemberId;
use crate::session::Receipt;
use crate::wire::Class;

/// Names a message in its whole world; its body begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(pub(super) u64);

/// Bytes of a tag and of the length behind it: the least that a message has.
pub(super) const BODY_BYTES_MIN: usize = 12;

/// How a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// With a receipt, in order.
    Ordered,
    /// With a receipt, and it may expire or be superseded.
    Perishable,
    /// Waited for room: when it took its place in the order is not known.
    Waited,
    Datagram,
}

/// The end of a message, as its receipt tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Acked,
    NotSent,
    Indeterminate,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) by: ProcessId,
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    pub(super) class: Class,
    pub(super) open: bool,
    pub(super) way: Way,
    pub(super) bytes: usize,
    pub(super) at: Instant,
    /// `None`: it has none, or its sender is no more.
    pub(super) receipt: Option<Receipt>,
    pub(super) ending: Option<Ending>,
    /// How often it arrived.
    pub(super) times: u32,
}

/// A stream of one pair of members.
type StreamKey = (MemberId, MemberId, u8, bool);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sent: Vec<Sent>,
    /// Those whose receipts have not ended.
    pending: Vec<Tag>,
    /// The last one that arrived.
    last: BTreeMap<StreamKey, Tag>,
}

impl Ledger {
    pub(super) fn next(&self) -> Tag {
        Tag(self.sent.len() as u64)
    }

    pub(super) const fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn add(&mut self, sent: Sent) {
        if sent.receipt.is_some() {
            self.pending.push(self.next());
        }
        self.sent.push(sent);
    }

    pub(super) fn get(&self, tag: Tag) -> Option<&Sent> {
        self.sent.get(usize::try_from(tag.0).ok()?)
    }

    pub(super) fn get_mut(&mut self, tag: Tag) -> Option<&mut Sent> {
        self.sent.get_mut(usize::try_from(tag.0).ok()?)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Tag, &Sent)> {
        self.sent.iter().enumerate().map(|(at, sent)| (Tag(at as u64), sent))
    }

    pub(super) fn pending(&self) -> &[Tag] {
        &self.pending
    }

    /// A message arrived; the one before it on its stream comes back.
    pub(super) fn arrived(&mut self, tag: Tag) -> Option<Tag> {
        let sent = self.get_mut(tag)?;
        sent.times += 1;
        if sent.way == Way::Datagram || sent.way == Way::Waited {
            return None;
        }
        let key = (sent.from, sent.to, sent.class as u8, sent.open);
        self.last.insert(key, tag)
    }

    /// Receipts that have ended since the last look.
    pub(super) fn look(&mut self) -> Vec<(Tag, Ending)> {
        let mut ended = Vec::new();
        let sent = &mut self.sent;
        self.pending.retain(|tag| {
            let Some(one) = sent.get_mut(tag.0 as usize) else { return false };
            let Some(now) = one.receipt.as_ref().map(Receipt::now) else { return false };
            let ending = match now {
                None => return true,
                Some(Ok(())) => Ending::Acked,
                Some(Err(crate::Lost::NotSent(_))) => Ending::NotSent,
                Some(Err(crate::Lost::Indeterminate(_))) => Ending::Indeterminate,
            };
            one.ending = Some(ending);
            ended.push((*tag, ending));
            false
        });
        ended
    }

    /// Nobody is left to whom these receipts could tell anything.
    pub(super) fn forget_receipts_of(&mut self, process: ProcessId) {
        let sent = &mut self.sent;
        sent.iter_mut().filter(|one| one.by == process).for_each(|one| one.receipt = None);
        self.pending.retain(|tag| sent.get(tag.0 as usize).is_some_and(|one| one.receipt.is_some()));
    }
}

/// The body of a message: its tag, its length, and bytes that follow from both.
pub(super) fn body(tag: Tag, bytes: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(bytes.max(BODY_BYTES_MIN));
    body.put_u64_le(tag.0);
    body.put_u32_le(bytes as u32);
    let pattern = pattern(tag);
    while body.len() < bytes {
        let left = (bytes - body.len()).min(pattern.len());
        body.put_slice(pattern.get(..left).unwrap_or_default());
    }
    body.freeze()
}

/// The tag, if this is what was sent under it.
pub(super) fn read(body: &[u8]) -> Option<Tag> {
    let (tag, rest) = body.split_first_chunk::<8>()?;
    let (bytes, rest) = rest.split_first_chunk::<4>()?;
    let tag = Tag(u64::from_le_bytes(*tag));
    let fits = u32::from_le_bytes(*bytes) as usize == body.len();
    let pattern = pattern(tag);
    let is_intact = rest.chunks(pattern.len()).all(|chunk| pattern.starts_with(chunk));
    (fits && is_intact).then_some(tag)
}

fn pattern(tag: Tag) -> [u8; 64] {
    let mut next = tag.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        next = next.rotate_left(7).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (next >> 56) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_as_it_was_made_and_a_bent_bit_anywhere_shows() {
        for bytes in [12, 13, 76, 500] {
            let made = body(Tag(7), bytes);
            assert_eq!((made.len(), read(&made)), (bytes, Some(Tag(7))));
            for at in 0..bytes * 8 {
                let mut bent = made.to_vec();
                bent[at / 8] ^= 1 << (at % 8);
                assert_ne!(read(&bent), Some(Tag(7)), "{at}");
            }
        }
    }
}
