//! Golden bytes: what version 1 looks like on the wire, written down in `tests/golden/*.hex`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use bytes::Bytes;

use super::first::{self, Code, FirstBytes, Hello, Reject, StreamResume};
use super::frame::{Batch, BodyCheck, Datagram, FrameHeader, HEADER_BYTES, encode, encode_control};
use super::record::{self, Record, RecordHeader};
use super::{Class, Epoch, Frame, Protocol, Seq, StreamAck, StreamId, TypeEntry, Versions};
use crate::member::{Member, MemberId, ViewId};

/// What the bytes of a file stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    First(FirstBytes),
    Frame(Frame),
    /// As it is under TLS: no checksum behind the body.
    Bare(Frame),
    Records {
        stream: StreamId,
        first: Seq,
        records: Vec<Record>,
    },
}

impl Value {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::First(first) => first::encode(first),
            Self::Frame(frame) => encode_control(frame).to_vec(),
            Self::Bare(frame) => encode(frame, BodyCheck::Absent).to_vec(),
            Self::Records { stream, first, records } => {
                let count = records.len() as u32;
                let records = records.iter().flat_map(encode_record).collect();
                let batch = Batch { stream: *stream, first: *first, count, records };
                encode_control(&Frame::Batch(batch)).to_vec()
            }
        }
    }

    /// A value of the same sort as this one.
    fn decode(&self, bytes: &[u8]) -> Self {
        if let Self::First(_) = self {
            assert_eq!(first::length(bytes), Ok(Some(bytes.len())));
            return Self::First(first::decode(bytes).unwrap());
        }
        let header = FrameHeader::decode(bytes.first_chunk().unwrap()).unwrap();
        let bare = matches!(self, Self::Bare(_));
        let check = if bare { BodyCheck::Absent } else { BodyCheck::Crc };
        assert_eq!(bytes.len(), HEADER_BYTES + header.rest_bytes(check));
        match Frame::decode(&header, Bytes::copy_from_slice(&bytes[HEADER_BYTES..]), check).unwrap() {
            frame if bare => Self::Bare(frame),
            Frame::Batch(Batch { stream, first, count, records: mut rest }) => {
                let records = (0..count).map(|_| record::take(&mut rest).unwrap()).collect();
                assert!(rest.is_empty());
                Self::Records { stream, first, records }
            }
            frame => Self::Frame(frame),
        }
    }
}

fn encode_record(record: &Record) -> Vec<u8> {
    let extension = record.total.map_or(Vec::new(), |total| record::total_extension(total).to_vec());
    [&record.header.encode()[..], &extension, &record.body].concat()
}

fn record(flags: u16, total: Option<u64>, body: &[u8]) -> Record {
    let extension = if total.is_some() { record::TOTAL_EXTENSION_BYTES } else { 0 };
    let flags = if total.is_some() { flags | record::EXTENDED } else { flags };
    let length = (extension + body.len()) as u32;
    let header = RecordHeader { length, flags, version: 2, hash: 0x0bad_cafe };
    Record { header, total, body: Bytes::copy_from_slice(body) }
}

const STREAM: StreamId = StreamId::new(Protocol(64), Class::Bulk, true);
const NORMAL: StreamId = StreamId::new(Protocol::APPLICATION, Class::Normal, false);
const ID: MemberId = MemberId::from_parts(0x0123_4567_89ab, 0x1111_2222_3333_4444_5555);
const OTHER: MemberId = MemberId::from_parts(0x0123_4567_89ac, 0x6666_7777_8888_9999_aaaa);
const VIEW: ViewId = ViewId { generation: 3, number: 0x1234 };
const VERSION_1: Versions = Versions { lowest: 1, highest: 1 };

fn hello() -> Hello {
    let labels =
        BTreeMap::from([("rack".to_owned(), "b7".to_owned()), ("zone".to_owned(), "süd".to_owned())]);
    let endpoints = ["10.0.0.5:7400", "[2001:db8::1]:7400", "node-1.example:7400"];
    Hello {
        versions: VERSION_1,
        environment: "production".to_owned(),
        network: Some("blue".to_owned()),
        from: Member {
            id: ID,
            endpoints: endpoints.map(|endpoint| endpoint.parse().unwrap()).to_vec(),
            name: "node-1".to_owned(),
            labels,
            joined: Some(VIEW),
        },
        role: 0,
        to: Some(OTHER),
        epoch: Epoch(5),
        your_epoch: Epoch(7),
        generation: 11,
        attempt: 2,
        view: Some(ViewId { generation: 3, number: 0x1235 }),
        streams: vec![
            StreamResume { stream: NORMAL, next_expected: Seq(0x0102_0304_0506_0708), credit: 1 << 40 },
            StreamResume { stream: STREAM, next_expected: Seq(1), credit: 1 << 20 },
        ],
        features: 0,
        credit: 1 << 20,
        message_bytes: 1 << 26,
    }
}

/// A link that is to be kept however idle.
fn hello_keep() -> Hello {
    Hello { features: first::FEATURE_KEEP, ..hello() }
}

/// The least a hello can say: a question to whoever is there.
fn question() -> Hello {
    let from =
        Member { id: ID, endpoints: Vec::new(), name: String::new(), labels: BTreeMap::new(), joined: None };
    Hello {
        environment: String::new(),
        network: None,
        from,
        to: None,
        your_epoch: Epoch::UNKNOWN,
        view: None,
        streams: Vec::new(),
        ..hello()
    }
}

fn answer() -> Hello {
    let (from, to) = (Member { id: OTHER, joined: None, ..hello().from }, Some(ID));
    Hello { from, to, epoch: Epoch(7), your_epoch: Epoch(5), ..hello() }
}

fn reject(code: Code, text: &str) -> Reject {
    let text = text.to_owned();
    let (your_versions, environment, network) = (None, None, None);
    Reject { versions: VERSION_1, code, text, from: Some(OTHER), your_versions, environment, network }
}

fn types() -> Vec<TypeEntry> {
    let entry = |hash, version, open, any, name: &str| TypeEntry {
        protocol: Protocol::APPLICATION,
        hash,
        version,
        open,
        any,
        name: name.to_owned(),
    };
    vec![entry(0x0bad_cafe, 2, true, false, "shop.order"), entry(0, 0, false, true, "")]
}

fn datagram(stream: StreamId, record: Vec<u8>) -> Value {
    Value::Frame(Frame::Datagram(Datagram { stream, record: record.into() }))
}

/// Every file with what it holds.
pub(super) fn values() -> Vec<(&'static str, Value)> {
    let reject_version = Reject {
        versions: Versions { lowest: 2, highest: 4 },
        from: None,
        your_versions: Some(VERSION_1),
        ..reject(Code::VersionMismatch, "versions 1-1 and 2-4 have none in common")
    };
    let reject_network = Reject {
        environment: Some("production".to_owned()),
        network: Some("green".to_owned()),
        ..reject(Code::NetworkMismatch, "this is network `green`")
    };
    let acks = vec![
        StreamAck { stream: NORMAL, accepted: Seq(300), handled: Seq(299), credit: 1 << 33 },
        StreamAck { stream: STREAM, accepted: Seq(1), handled: Seq(0), credit: 1 << 20 },
    ];
    let last = vec![(NORMAL, Seq(300)), (STREAM, Seq(1))];
    let body: Vec<u8> = (0..4096u32).map(|at| (at * 7 + at / 256) as u8).collect();
    let bare = Batch {
        stream: NORMAL,
        first: Seq(41),
        count: 1,
        records: encode_record(&record(record::WHOLE, None, b"under TLS")).into(),
    };
    let records = |stream, first, records| Value::Records { stream, first: Seq(first), records };
    let small = vec![
        record(record::WHOLE, None, b"first"),
        record(record::WHOLE, None, b""),
        record(record::WHOLE, None, b"third"),
    ];
    vec![
        ("hello", Value::First(FirstBytes::Hello(Box::new(hello())))),
        ("hello_keep", Value::First(FirstBytes::Hello(Box::new(hello_keep())))),
        ("hello_question", Value::First(FirstBytes::Hello(Box::new(question())))),
        ("answer", Value::First(FirstBytes::Answer(Box::new(answer())))),
        ("reject_version", Value::First(FirstBytes::Reject(Box::new(reject_version)))),
        ("reject_network", Value::First(FirstBytes::Reject(Box::new(reject_network)))),
        ("reject_wrong_member", Value::First(FirstBytes::Reject(Box::new(reject(Code::WrongMember, ""))))),
        (
            "datagram",
            datagram(StreamId::new(Protocol::APPLICATION, Class::Urgent, false), b"datagram".to_vec()),
        ),
        ("datagram_record", datagram(NORMAL, encode_record(&record(record::WHOLE, None, b"vote")))),
        ("ack", Value::Frame(Frame::Ack(acks))),
        ("ping", Value::Frame(Frame::Ping { nonce: 0x0102_0304_0506_0708, heard_millis: 1500 })),
        ("pong", Value::Frame(Frame::Pong { nonce: 0x0102_0304_0506_0708, heard_millis: 2 })),
        ("types", Value::Frame(Frame::Types(types()))),
        ("types_none", Value::Frame(Frame::Types(Vec::new()))),
        ("joined", Value::Frame(Frame::Joined(VIEW))),
        ("goodbye", Value::Frame(Frame::Goodbye { last: last.clone(), confirmed: false })),
        ("goodbye_confirmed", Value::Frame(Frame::Goodbye { last, confirmed: true })),
        (
            "close",
            Value::Frame(Frame::Close { code: Code::Removed, text: "removed by view 3.4661".to_owned() }),
        ),
        ("close_idle", Value::Frame(Frame::Close { code: Code::Idle, text: String::new() })),
        ("batch_small", records(NORMAL, 41, small)),
        ("batch_large", records(STREAM, 1 << 32, vec![record(record::WHOLE, None, &body)])),
        ("chunk_first", records(NORMAL, 44, vec![record(record::FIRST, Some(1 << 33), b"head")])),
        ("chunk_middle", records(NORMAL, 45, vec![record(0, None, b"middle")])),
        ("chunk_last", records(NORMAL, 46, vec![record(record::LAST, None, b"tail")])),
        (
            "reject_identity",
            Value::First(FirstBytes::Reject(Box::new(reject(Code::Identity, "not `node-1`")))),
        ),
        ("tls_ping", Value::Bare(Frame::Ping { nonce: 0x0102_0304_0506_0708, heard_millis: 1500 })),
        ("tls_types_none", Value::Bare(Frame::Types(Vec::new()))),
        ("tls_batch", Value::Bare(Frame::Batch(bare))),
    ]
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden"].iter().collect()
}

/// 32 bytes a line; what follows `#` is for people.
fn to_hex(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("# {name}, protocol version 1, {} bytes. See src/wire/golden.rs.\n", bytes.len());
    for line in bytes.chunks(32) {
        for four in line.chunks(4) {
            four.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push(' ');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(hex, _)| hex));
    let digits: String = lines.flat_map(|line| line.chars().filter(|digit| !digit.is_whitespace())).collect();
    assert!(digits.len().is_multiple_of(2));
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Asked to write the files anew.
fn writing() -> bool {
    std::env::var("KARERE_GOLDEN").is_ok_and(|what| what == "write")
}

#[test]
fn the_wire_of_version_1_has_not_changed() {
    for (name, value) in values() {
        let path = folder().join(name).with_extension("hex");
        let encoded = value.encode();
        if writing() {
            std::fs::write(&path, to_hex(name, &encoded)).unwrap();
        }
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let golden = from_hex(&text);
        let at = golden.iter().zip(&encoded).position(|(was, is)| was != is);
        assert!(
            golden == encoded,
            "the wire changed: {name} is {} bytes, was {}, and differs first at byte {:?}.\n\
             Members of different builds could no longer talk. If that is meant, it is a new version: raise \
             wire::VERSIONS, keep these files and their values for the old one, and add files for the new one. \
             Only before the first release may the files be written again, with KARERE_GOLDEN=write.",
            encoded.len(),
            golden.len(),
            at.unwrap_or(golden.len().min(encoded.len())),
        );
        assert_eq!(value.decode(&golden), value, "{name} is read as something else than was written");
    }
}

#[test]
fn a_datagram_that_is_encoded_at_once_has_its_golden_bytes() {
    let (_, golden) = values().into_iter().find(|(name, _)| *name == "datagram_record").unwrap();
    assert_eq!(
        super::frame::encode_datagram(NORMAL, 0x0bad_cafe, 2, b"vote", BodyCheck::Crc),
        golden.encode()
    );
}

#[test]
fn every_golden_file_is_looked_at() {
    let known: BTreeSet<_> = values().into_iter().map(|(name, _)| format!("{name}.hex")).collect();
    let files =
        std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<_> = files.filter(|file| file.ends_with(".hex")).collect();
    assert!(found == known || writing(), "{found:?}, {known:?}");
}

#[test]
fn every_kind_of_frame_has_its_golden_bytes() {
    use super::frame::FrameKind::{self, Ack, Batch, Close, Goodbye, Joined, Ping, Pong, Types};
    let encoded = values().into_iter().filter(|(_, value)| !matches!(value, Value::First(_)));
    let kinds: Vec<_> = encoded
        .filter_map(|(_, value)| FrameHeader::decode(value.encode().first_chunk().unwrap()).unwrap().kind)
        .collect();
    for kind in [Batch, FrameKind::Datagram, Ack, Ping, Pong, Types, Joined, Goodbye, Close] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}
