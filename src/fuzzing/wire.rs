//! The wire: whatever decodes is stable when it is encoded again, however its bytes arrived.

use std::time::Instant;

use bytes::Bytes;

use super::Source;
use super::session::{MESSAGE_BYTES_MAX, NORMAL};
use crate::limits::{CREDIT_BYTES_MIN, HELLO_BYTES_MAX};
use crate::link::FrameReader;
use crate::session::{Content, Delivery, Handled, Reservation, Session, SessionEvent};
use crate::wire::frame::{Batch, FrameHeader, FrameKind, encode_control};
use crate::wire::record::{self, HEADER_BYTES};
use crate::wire::{DecodeError, Frame, Seq, crc, first};

/// What is encoded again states the fields that were left out; so much more it may be.
const STATED_BYTES: usize = 256;

/// The first bytes of a connection: as they are, and with magic, length and checksum put right.
pub fn hello(bytes: &[u8]) {
    opening(bytes);
    if bytes.len() <= HELLO_BYTES_MAX - STATED_BYTES {
        opening(&repaired_opening(bytes));
    }
}

/// The same with magic, length and checksum put right; too few bytes as they are.
pub(super) fn repaired_opening(bytes: &[u8]) -> Vec<u8> {
    let mut repaired = bytes.to_vec();
    if bytes.len() < 8 + 4 {
        return repaired;
    }
    let content_bytes = bytes.len() - 4;
    repaired[..4].copy_from_slice(&first::MAGIC);
    repaired[4..8].copy_from_slice(&(bytes.len() as u32 - 8).to_le_bytes());
    let checksum = crc(&repaired[..content_bytes]);
    repaired[content_bytes..].copy_from_slice(&checksum.to_le_bytes());
    repaired
}

fn opening(bytes: &[u8]) {
    let Ok(Some(length)) = first::length(bytes) else { return };
    let Some(bytes) = bytes.get(..length).filter(|bytes| bytes.len() <= HELLO_BYTES_MAX - STATED_BYTES)
    else {
        return;
    };
    for end in 0..length.min(16) {
        assert!(!matches!(first::length(&bytes[..end]), Ok(Some(other)) if other != length));
    }
    let Ok(found) = first::decode(bytes) else { return };
    let again = first::encode(&found);
    assert_eq!(first::length(&again), Ok(Some(again.len())));
    assert_eq!(first::decode(&again), Ok(found));
}

/// Frames, raw or with their checksums put right, in one piece and in pieces.
pub fn frames(bytes: &[u8]) {
    let mut source = Source(bytes);
    let stream = if source.u8() & 1 == 0 { source.0.to_vec() } else { repaired_frames(&mut source) };
    let step = usize::from(bytes.first().copied().unwrap_or(0) >> 1) + 1;
    let whole = read(&stream, stream.len().max(1));
    assert_eq!(whole, read(&stream, step), "in steps of {step}");
    for frame in whole.0 {
        let again = read(&encode_control(&frame), usize::MAX);
        assert_eq!(again, (vec![frame], None));
    }
}

/// kind · flags · stream · first · count · body length, as the fuzzer chooses; checksums as they must be.
fn repaired_frames(source: &mut Source<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    while !source.is_empty() {
        out.extend_from_slice(&repaired_frame(source));
    }
    out
}

/// One frame of the fuzzer's choice that passes its checksums.
pub(super) fn repaired_frame(source: &mut Source<'_>) -> Vec<u8> {
    use FrameKind::{Ack, Batch, Close, Datagram, Goodbye, Joined, Ping, Pong, Types};
    let kinds = [Batch, Datagram, Ack, Ping, Pong, Types, Joined, Goodbye, Close];
    let kind = kinds.get(usize::from(source.u8() % 10)).copied();
    let flags = source.u8();
    let (stream, first, count) = (source.u16(), source.number(), source.number() as u32);
    let length = usize::from(source.u8());
    let body = source.bytes(length);
    let header = FrameHeader { length: body.len() as u32, kind, flags, stream, first: Seq(first), count };
    let mut out = header.encode().to_vec();
    if !body.is_empty() {
        out.extend_from_slice(body);
        out.extend_from_slice(&crc(body).to_le_bytes());
    }
    out
}

fn read(stream: &[u8], step: usize) -> (Vec<Frame>, Option<DecodeError>) {
    let mut reader = FrameReader::default();
    let mut found = Vec::new();
    for piece in stream.chunks(step) {
        reader.buffer().extend_from_slice(piece);
        reader.note_read();
        loop {
            match reader.next() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        reader.note_idle();
    }
    (found, None)
}

/// Batches of any records into one stream: what is delivered decodes, and is counted as it came.
pub fn records(bytes: &[u8]) {
    let mut source = Source(bytes);
    let now = Instant::now();
    let mut session = super::session::session(CREDIT_BYTES_MIN);
    let grants = source.u8() & 1 == 0;
    while !source.is_empty() {
        let before = expected(&session);
        let batch = batch(&mut source, before);
        if session.handle_batch(now, &batch).is_err() {
            assert_eq!(expected(&session), before, "what is refused changes nothing");
            continue;
        }
        assert!(expected(&session) >= before);
        while let Some(event) = session.poll_event() {
            match event {
                SessionEvent::Deliver { epoch, delivery } => {
                    check(&delivery);
                    let Delivery { stream, records, bytes, .. } = delivery;
                    session.handle_handled(now, Handled { epoch, stream, records, bytes });
                }
                SessionEvent::Reserve { epoch, stream, .. } if grants => {
                    session.handle_reserved(now, epoch, stream, Reservation::new(()));
                }
                SessionEvent::Reserve { .. } => {}
            }
        }
        assert!(session.unhandled_bytes() <= CREDIT_BYTES_MIN || grants);
    }
}

fn expected(session: &Session) -> u64 {
    session.resume_points().first().map_or(1, |point| point.next_expected.0)
}

fn check(delivery: &Delivery) {
    match &delivery.content {
        Content::Records(records) => {
            assert_eq!(records.len() as u64, delivery.bytes);
            let mut records = records.clone();
            for _ in 0..delivery.records {
                assert!(record::take(&mut records).is_ok(), "what is delivered decodes");
            }
            assert!(records.is_empty());
        }
        Content::Large { body, .. } => assert!(body.len() <= MESSAGE_BYTES_MAX),
    }
}

/// Where it begins is near what is expected; its records are raw, or have lengths that fit.
fn batch(source: &mut Source<'_>, next: u64) -> Batch {
    let how = source.u8();
    let first = Seq((next + u64::from(how & 3)).saturating_sub(1).max(1));
    let count = u32::from(how >> 2 & 7) + 1;
    let mut records = Vec::new();
    if how & 0x80 == 0 {
        for _ in 0..count {
            let flags = if source.u8() & 7 == 0 { source.u16() } else { source.u16() & 0x0007 };
            let most = usize::from(source.u8());
            let body = source.bytes(most);
            let header = record::RecordHeader { length: body.len() as u32, flags, version: 1, hash: 7 };
            records.extend_from_slice(&header.encode());
            records.extend_from_slice(body);
        }
    } else {
        let most = usize::from(source.u8()) + HEADER_BYTES;
        records.extend_from_slice(source.bytes(most));
    }
    Batch { stream: NORMAL, first, count, records: Bytes::from(records) }
}
