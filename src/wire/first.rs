//! The first bytes of a connection, in both directions: `Hello`, `Answer`, `Reject`. Frozen for ever.
//!
//! ```text
//! "KRRE" · length u32 of what follows · lowest u16 · highest u16 · kind u8 · fields · CRC32C u32 of all before
//! ```

use std::collections::BTreeMap;

pub(crate) use super::code::Code;
use super::field::{Reader, put_field};
use super::{DecodeError, Epoch, Seq, StreamId, VERSIONS, Versions, crc};
use crate::limits::{ENDPOINTS_MAX, HELLO_BYTES_MAX, LABELS_MAX, MEMBER_NAME_BYTES_MAX, STREAMS_MAX};
use crate::member::{Endpoint, Member, MemberId, ViewId};

pub(crate) const MAGIC: [u8; 4] = *b"KRRE";
/// Magic and length.
const PREFIX_BYTES: usize = 8;
/// Versions, kind and checksum: the least that follows the length.
const LEAST_BYTES: usize = 2 + 2 + 1 + 4;
const CRC_BYTES: usize = 4;
/// A field whose type has this bit must be understood.
const CRITICAL: u16 = 0x8000;

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const ANSWER: u8 = 2;
    pub(super) const REJECT: u8 = 3;
}

mod field {
    pub(super) const ENVIRONMENT: u16 = 1;
    pub(super) const NETWORK: u16 = 2;
    pub(super) const FROM: u16 = 3;
    pub(super) const ENDPOINT: u16 = 4;
    pub(super) const NAME: u16 = 5;
    pub(super) const LABEL: u16 = 6;
    pub(super) const JOINED: u16 = 7;
    pub(super) const ROLE: u16 = 8;
    pub(super) const TO: u16 = 9;
    pub(super) const EPOCH: u16 = 10;
    pub(super) const YOUR_EPOCH: u16 = 11;
    pub(super) const GENERATION: u16 = 12;
    pub(super) const ATTEMPT: u16 = 13;
    pub(super) const VIEW: u16 = 14;
    pub(super) const STREAM: u16 = 15;
    pub(super) const FEATURES: u16 = 16;
    pub(super) const CREDIT: u16 = 18;
    pub(super) const MESSAGE_BYTES: u16 = 19;
    pub(super) const CODE: u16 = 32;
    pub(super) const TEXT: u16 = 33;
    pub(super) const RANGES: u16 = 34;
}

/// Feature: this side wants the link kept however idle it is: a contact holds it, or this side could not dial it again.
pub(crate) const FEATURE_KEEP: u64 = 1;

/// What a side has received of one stream, and how far it lets the other go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamResume {
    pub(crate) stream: StreamId,
    pub(crate) next_expected: Seq,
    /// Absolute offset in record bytes.
    pub(crate) credit: u64,
}

/// What a side says first: who it is, whom it means, what it remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) versions: Versions,
    pub(crate) environment: String,
    /// `None`: the answer names it.
    pub(crate) network: Option<String>,
    pub(crate) from: Member,
    /// What this connection is for; 0 is "everything". The seam for a second link for urgent streams.
    pub(crate) role: u8,
    /// `None`: whoever is there (only a question).
    pub(crate) to: Option<MemberId>,
    pub(crate) epoch: Epoch,
    pub(crate) your_epoch: Epoch,
    pub(crate) generation: u64,
    pub(crate) attempt: u64,
    pub(crate) view: Option<ViewId>,
    pub(crate) streams: Vec<StreamResume>,
    pub(crate) features: u64,
    /// Record bytes granted on each stream that is not listed.
    pub(crate) credit: u64,
    /// The largest message that is taken; without the field any is.
    pub(crate) message_bytes: u64,
}

/// A refusal, with who refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) versions: Versions,
    pub(crate) code: Code,
    pub(crate) text: String,
    /// Absent when the refusal came before anybody looked who is asked.
    pub(crate) from: Option<MemberId>,
    /// For a version mismatch: the asker's range as it was read.
    pub(crate) your_versions: Option<Versions>,
    /// For a network mismatch: the answering side's.
    pub(crate) environment: Option<String>,
    pub(crate) network: Option<String>,
}

/// One decoded opening of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstBytes {
    Hello(Box<Hello>),
    Answer(Box<Hello>),
    Reject(Box<Reject>),
}

/// How many bytes the opening has in all, once enough is there to say so. Wrong magic is known at its first wrong
/// byte, so that a foreign protocol is never waited for.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let seen = bytes.len().min(MAGIC.len());
    if bytes.get(..seen) != MAGIC.get(..seen) {
        let mut found = [0; 4];
        for (to, from) in found.iter_mut().zip(bytes) {
            *to = *from;
        }
        return Err(DecodeError::Magic { found });
    }
    if bytes.len() < PREFIX_BYTES {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes, "hello");
    reader.bytes(MAGIC.len())?;
    let length = reader.u32()? as usize;
    if length > HELLO_BYTES_MAX {
        return Err(DecodeError::TooLong {
            what: "hello",
            bytes: length as u64,
            most: HELLO_BYTES_MAX as u64,
        });
    }
    if length < LEAST_BYTES {
        return Err(DecodeError::Short { what: "hello" });
    }
    Ok(Some(PREFIX_BYTES + length))
}

/// Decodes exactly the bytes that [`length`] counted.
pub(crate) fn decode(bytes: &[u8]) -> Result<FirstBytes, DecodeError> {
    let (content, checksum) =
        bytes.split_last_chunk::<CRC_BYTES>().ok_or(DecodeError::Short { what: "hello" })?;
    let (found, computed) = (u32::from_le_bytes(*checksum), crc(content));
    if found != computed {
        return Err(DecodeError::Crc { what: "hello", found, computed });
    }
    let mut reader = Reader::new(content, "hello");
    reader.bytes(PREFIX_BYTES)?;
    let versions = Versions { lowest: reader.u16()?, highest: reader.u16()? };
    if versions.lowest > versions.highest {
        return Err(DecodeError::Value { what: "lowest version", value: versions.lowest.into() });
    }
    let kind = reader.u8()?;
    if kind != kind::REJECT && VERSIONS.agree(versions).is_none() {
        // What follows may mean anything; only a refusal is read whatever its version.
        return Err(DecodeError::Version { found: versions });
    }
    match kind {
        kind::HELLO => decode_hello(versions, reader).map(|hello| FirstBytes::Hello(Box::new(hello))),
        kind::ANSWER => decode_hello(versions, reader).map(|hello| FirstBytes::Answer(Box::new(hello))),
        kind::REJECT => decode_reject(versions, reader).map(|reject| FirstBytes::Reject(Box::new(reject))),
        other => Err(DecodeError::Value { what: "kind of the first bytes", value: other.into() }),
    }
}

fn decode_hello(versions: Versions, mut reader: Reader<'_>) -> Result<Hello, DecodeError> {
    let mut environment = None;
    let mut from = None;
    let mut member = Member {
        id: MemberId::from_bytes([0; 16]),
        endpoints: Vec::new(),
        name: String::new(),
        labels: BTreeMap::new(),
        joined: None,
    };
    let mut hello = Hello {
        versions,
        environment: String::new(),
        network: None,
        from: member.clone(),
        role: 0,
        to: None,
        epoch: Epoch::UNKNOWN,
        your_epoch: Epoch::UNKNOWN,
        generation: 0,
        attempt: 0,
        view: None,
        streams: Vec::new(),
        features: 0,
        credit: 0,
        message_bytes: u64::MAX,
    };
    while !reader.is_empty() {
        let (kind, value) = reader.field()?;
        let mut value = Reader::new(value, "hello field");
        match kind & !CRITICAL {
            field::ENVIRONMENT => environment = Some(value.text()?.to_owned()),
            field::NETWORK => hello.network = Some(value.text()?.to_owned()),
            field::FROM => from = Some(MemberId::from_bytes(value.id()?)),
            field::ENDPOINT => member.endpoints.push(decode_endpoint(&mut value)?),
            field::NAME => member.name = value.text()?.to_owned(),
            field::LABEL => {
                let key_bytes = value.u16()?;
                let key = value.bytes(usize::from(key_bytes))?;
                let key = std::str::from_utf8(key).map_err(|_| DecodeError::Text { what: "label" })?;
                member.labels.insert(key.to_owned(), value.text()?.to_owned());
            }
            field::JOINED => member.joined = Some(decode_view(&mut value)?),
            field::ROLE => hello.role = value.u8()?,
            field::TO => hello.to = Some(MemberId::from_bytes(value.id()?)),
            field::EPOCH => hello.epoch = Epoch(value.u64()?),
            field::YOUR_EPOCH => hello.your_epoch = Epoch(value.u64()?),
            field::GENERATION => hello.generation = value.u64()?,
            field::ATTEMPT => hello.attempt = value.u64()?,
            field::VIEW => hello.view = Some(decode_view(&mut value)?),
            field::STREAM => hello.streams.push(StreamResume {
                stream: StreamId::from_wire(value.u16()?)?,
                next_expected: Seq(value.u64()?),
                credit: value.u64()?,
            }),
            field::FEATURES => hello.features = value.u64()?,
            field::CREDIT => hello.credit = value.u64()?,
            field::MESSAGE_BYTES => hello.message_bytes = value.u64()?,
            _ => unknown(kind)?,
        }
    }
    most("endpoints", member.endpoints.len(), ENDPOINTS_MAX)?;
    most("labels", member.labels.len(), LABELS_MAX)?;
    most("name", member.name.len(), MEMBER_NAME_BYTES_MAX)?;
    most("streams", hello.streams.len(), STREAMS_MAX)?;
    member.id = from.ok_or(DecodeError::Missing { what: "the sender's id" })?;
    hello.from = member;
    hello.environment = environment.ok_or(DecodeError::Missing { what: "the environment" })?;
    Ok(hello)
}

fn decode_reject(versions: Versions, mut reader: Reader<'_>) -> Result<Reject, DecodeError> {
    let mut code = None;
    let mut reject = Reject {
        versions,
        code: Code::Other(0),
        text: String::new(),
        from: None,
        your_versions: None,
        environment: None,
        network: None,
    };
    while !reader.is_empty() {
        let (kind, value) = reader.field()?;
        let mut value = Reader::new(value, "refusal field");
        match kind & !CRITICAL {
            field::CODE => code = Some(Code::from_wire(value.u16()?)),
            field::TEXT => reject.text = value.text()?.to_owned(),
            field::FROM => reject.from = Some(MemberId::from_bytes(value.id()?)),
            field::RANGES => {
                reject.your_versions = Some(Versions { lowest: value.u16()?, highest: value.u16()? });
            }
            field::ENVIRONMENT => reject.environment = Some(value.text()?.to_owned()),
            field::NETWORK => reject.network = Some(value.text()?.to_owned()),
            _ => unknown(kind)?,
        }
    }
    reject.code = code.ok_or(DecodeError::Missing { what: "the code of the refusal" })?;
    Ok(reject)
}

fn decode_endpoint(value: &mut Reader<'_>) -> Result<Endpoint, DecodeError> {
    value.text()?.parse().map_err(|_| DecodeError::Value { what: "endpoint", value: 0 })
}

fn decode_view(value: &mut Reader<'_>) -> Result<ViewId, DecodeError> {
    Ok(ViewId { generation: value.u64()?, number: value.u64()? })
}

fn unknown(kind: u16) -> Result<(), DecodeError> {
    if kind & CRITICAL == 0 {
        Ok(())
    } else {
        Err(DecodeError::Critical { what: "hello field", value: kind.into() })
    }
}

fn most(what: &'static str, count: usize, most: usize) -> Result<(), DecodeError> {
    if count <= most {
        Ok(())
    } else {
        Err(DecodeError::TooLong { what, bytes: count as u64, most: most as u64 })
    }
}

/// The bytes of an opening.
pub(crate) fn encode(first: &FirstBytes) -> Vec<u8> {
    let (versions, kind) = match first {
        FirstBytes::Hello(hello) => (hello.versions, kind::HELLO),
        FirstBytes::Answer(hello) => (hello.versions, kind::ANSWER),
        FirstBytes::Reject(reject) => (reject.versions, kind::REJECT),
    };
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&versions.lowest.to_le_bytes());
    out.extend_from_slice(&versions.highest.to_le_bytes());
    out.push(kind);
    match first {
        FirstBytes::Hello(hello) | FirstBytes::Answer(hello) => encode_hello(&mut out, hello),
        FirstBytes::Reject(reject) => encode_reject(&mut out, reject),
    }
    let length = (out.len() - PREFIX_BYTES + CRC_BYTES) as u32;
    debug_assert!(length as usize <= HELLO_BYTES_MAX, "limits keep a hello small");
    if let Some(place) = out.get_mut(MAGIC.len()..PREFIX_BYTES) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    let checksum = crc(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn encode_hello(out: &mut Vec<u8>, hello: &Hello) {
    let number = |out: &mut Vec<u8>, kind, value: u64| put_field(out, kind, &value.to_le_bytes());
    put_field(out, field::ENVIRONMENT, hello.environment.as_bytes());
    if let Some(network) = &hello.network {
        put_field(out, field::NETWORK, network.as_bytes());
    }
    put_field(out, field::FROM, &hello.from.id.to_bytes());
    for endpoint in &hello.from.endpoints {
        put_field(out, field::ENDPOINT, endpoint.to_string().as_bytes());
    }
    if !hello.from.name.is_empty() {
        put_field(out, field::NAME, hello.from.name.as_bytes());
    }
    for (key, value) in &hello.from.labels {
        let mut label = Vec::with_capacity(2 + key.len() + value.len());
        label.extend_from_slice(&(key.len() as u16).to_le_bytes());
        label.extend_from_slice(key.as_bytes());
        label.extend_from_slice(value.as_bytes());
        put_field(out, field::LABEL, &label);
    }
    put_view(out, field::JOINED, hello.from.joined);
    put_field(out, field::ROLE, &[hello.role]);
    if let Some(to) = hello.to {
        put_field(out, field::TO, &to.to_bytes());
    }
    number(out, field::EPOCH, hello.epoch.0);
    number(out, field::YOUR_EPOCH, hello.your_epoch.0);
    number(out, field::GENERATION, hello.generation);
    number(out, field::ATTEMPT, hello.attempt);
    put_view(out, field::VIEW, hello.view);
    for stream in &hello.streams {
        let mut value = [0; 18];
        let (id, rest) = value.split_at_mut(2);
        let (next, credit) = rest.split_at_mut(8);
        id.copy_from_slice(&stream.stream.to_wire().to_le_bytes());
        next.copy_from_slice(&stream.next_expected.0.to_le_bytes());
        credit.copy_from_slice(&stream.credit.to_le_bytes());
        put_field(out, field::STREAM, &value);
    }
    number(out, field::FEATURES, hello.features);
    number(out, field::CREDIT, hello.credit);
    if hello.message_bytes != u64::MAX {
        number(out, field::MESSAGE_BYTES, hello.message_bytes);
    }
}

fn put_view(out: &mut Vec<u8>, kind: u16, view: Option<ViewId>) {
    if let Some(view) = view {
        let mut value = [0; 16];
        let (generation, number) = value.split_at_mut(8);
        generation.copy_from_slice(&view.generation.to_le_bytes());
        number.copy_from_slice(&view.number.to_le_bytes());
        put_field(out, kind, &value);
    }
}

fn encode_reject(out: &mut Vec<u8>, reject: &Reject) {
    put_field(out, field::CODE, &reject.code.to_wire().to_le_bytes());
    put_field(out, field::TEXT, reject.text.as_bytes());
    if let Some(from) = reject.from {
        put_field(out, field::FROM, &from.to_bytes());
    }
    if let Some(yours) = reject.your_versions {
        let mut value = [0; 4];
        let (lowest, highest) = value.split_at_mut(2);
        lowest.copy_from_slice(&yours.lowest.to_le_bytes());
        highest.copy_from_slice(&yours.highest.to_le_bytes());
        put_field(out, field::RANGES, &value);
    }
    if let Some(environment) = &reject.environment {
        put_field(out, field::ENVIRONMENT, environment.as_bytes());
    }
    if let Some(network) = &reject.network {
        put_field(out, field::NETWORK, network.as_bytes());
    }
}
