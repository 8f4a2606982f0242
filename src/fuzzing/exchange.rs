//! The exchange of hellos: what a stranger says first meets the real judge and the peer behind it; a search and a dial
//! meet whatever answers them. None of them believes what it must not, and each goes on until somebody honest comes.

mod accept;
mod ask;
mod dial;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Source;
use super::peer::{endpoint, member, member_id, surroundings};
use super::wire::repaired_opening;
use crate::limits::HELLO_BYTES_MAX;
use crate::member::{MemberId, ViewId};
use crate::peer::{Introduction, Surroundings};
use crate::wire::first::{self, Code, FEATURE_KEEP};
use crate::wire::{
    DecodeError, Epoch, FirstBytes, Hello, Reject, Seq, StreamId, StreamResume, VERSIONS, Versions,
};

/// Operations of one run.
const OPERATIONS_MAX: usize = 200;
/// Members that are met have the numbers below this.
const OTHERS: u64 = 5;
/// The process that is tried.
const ME: u64 = 9;

/// The first bytes of connections, from an asker or from whoever is asked.
pub fn exchange(bytes: &[u8]) {
    let mut source = Source(bytes);
    match source.u8() % 3 {
        0 => accept::run(&mut source),
        1 => ask::run(&mut source),
        _ => dial::run(&mut source),
    }
}

/// A process of the network in which everything here happens.
fn process(number: u64) -> Surroundings {
    let with = surroundings(member_id(number));
    let introduction = Introduction {
        environment: "test".to_owned(),
        network: "exchange".to_owned(),
        ..Introduction::clone(&with.me)
    };
    Surroundings { me: Arc::new(introduction), ..with }
}

/// What came in pieces, as the driver reads it.
fn read(bytes: &[u8]) -> Result<Option<FirstBytes>, DecodeError> {
    let length = first::length(bytes)?.filter(|length| *length <= bytes.len());
    length.map(|length| first::decode(&bytes[..length])).transpose()
}

/// Its bytes, which must be an opening that says the same.
fn written(said: FirstBytes) -> Vec<u8> {
    let bytes = first::encode(&said);
    assert!(bytes.len() <= HELLO_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(read(&bytes), Ok(Some(said)));
    bytes
}

/// What somebody says first: any bytes, any content under a right checksum, or an opening of the fuzzer's choice.
fn opening(source: &mut Source<'_>, like: &Hello) -> Vec<u8> {
    let how = source.u8();
    if how & 0x0e == 0 {
        let length = usize::from(source.u16());
        let bytes = source.bytes(length);
        return if how & 1 == 0 { bytes.to_vec() } else { repaired_opening(bytes) };
    }
    first::encode(&match how & 0x0e {
        2 | 4 => FirstBytes::Reject(Box::new(reject(source))),
        6 | 8 => FirstBytes::Answer(Box::new(hello(source, like))),
        _ => FirstBytes::Hello(Box::new(hello(source, like))),
    })
}

fn reject(source: &mut Source<'_>) -> Reject {
    let what = source.u8();
    Reject {
        versions: VERSIONS,
        code: Code::from_wire(u16::from(source.u8() % 16)),
        text: String::from_utf8_lossy(source.bytes(usize::from(what & 7))).into_owned(),
        from: (what & 8 == 0).then(|| member_id(u64::from(source.u8()) % (ME + 1))),
        your_versions: (what & 16 != 0).then_some(VERSIONS),
        environment: (what & 32 != 0).then(|| "test".to_owned()),
        network: (what & 64 != 0).then(|| "another".to_owned()),
    }
}

/// As the one it is like, in what the fuzzer's flags leave as it is.
fn hello(source: &mut Source<'_>, like: &Hello) -> Hello {
    let [whom, what, more] = [source.u8(), source.u8(), source.u8()];
    let mut hello = like.clone();
    if whom & 0x0f != 0 {
        hello.from.id = member_id(u64::from(whom & 0x0f) % (ME + 1));
    }
    match whom >> 4 {
        0..=11 => {}
        12 => hello.to = None,
        other => hello.to = Some(member_id(u64::from(other))),
    }
    if what & 1 != 0 {
        hello.epoch = Epoch(source.number());
    }
    if what & 2 != 0 {
        hello.your_epoch = Epoch(source.number());
    }
    if what & 4 != 0 {
        (hello.generation, hello.attempt) = (source.number(), source.number());
    }
    if what & 8 != 0 {
        hello.streams = (0..source.u8() & 3).filter_map(|_| resume(source)).collect();
    }
    if what & 16 != 0 {
        (hello.credit, hello.message_bytes) = (source.number(), source.number());
    }
    if what & 32 != 0 {
        hello.from.joined = Some(ViewId { generation: 1, number: u64::from(source.u8() & 15) });
    }
    if what & 64 != 0 {
        hello.from.name = String::from_utf8_lossy(source.bytes(1)).into_owned();
    }
    if what & 128 != 0 {
        hello.features = FEATURE_KEEP;
    }
    match more & 0x3f {
        1 => hello.environment = "another".to_owned(),
        2 => hello.network = Some("another".to_owned()),
        3 => hello.network = None,
        4 => hello.versions = Versions { lowest: source.u16(), highest: source.u16() },
        5 => hello.role = source.u8(),
        6 => hello.from.endpoints = vec![endpoint()],
        7 => hello.view = Some(ViewId { generation: 1, number: source.number() }),
        _ => {}
    }
    hello
}

fn resume(source: &mut Source<'_>) -> Option<StreamResume> {
    let stream = StreamId::from_wire(source.u16() & 0x1b).ok()?;
    Some(StreamResume { stream, next_expected: Seq(source.number()), credit: source.number() })
}

/// Milliseconds, or seconds now and then.
fn pause(source: &mut Source<'_>) -> Duration {
    let much = source.u8();
    let unit = if much & 1 == 0 { 1 } else { 250 };
    Duration::from_millis(u64::from(much >> 1) * unit)
}

/// An honest hello of `from` to `to`, whom it has never met.
fn first_hello(from: &Introduction, to: MemberId) -> Hello {
    Hello {
        to: Some(to),
        epoch: Epoch(1),
        generation: 1,
        attempt: 1,
        credit: 1 << 20,
        message_bytes: 1 << 20,
        ..from.question()
    }
}

/// When a door's time begins.
fn now() -> Instant {
    Instant::now()
}
