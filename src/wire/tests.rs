//! Hostile and damaged bytes: refused, asked on, or read as what was written; never anything else, never a panic.

use bytes::Bytes;
use proptest::prelude::*;

use super::first::{self, FirstBytes, Hello, StreamResume};
use super::frame::{FrameHeader, FrameKind, HEADER_BYTES, encode_control};
use super::golden::{Value, values};
use super::*;
use crate::limits::{
    CLOSE_TEXT_BYTES_MAX, DATAGRAM_BYTES_MAX, ENDPOINTS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX,
    MEMBER_NAME_BYTES_MAX, NETWORK_NAME_BYTES_MAX, STREAMS_MAX,
};

fn openings() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let openings = values().into_iter().filter(|(_, value)| matches!(value, Value::First(_)));
    openings.map(|(name, value)| (name, value.encode()))
}

fn frames() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    // Those under TLS have no checksum, so nothing here is to be found out.
    let frames =
        values().into_iter().filter(|(_, value)| matches!(value, Value::Frame(_) | Value::Records { .. }));
    frames.map(|(name, value)| (name, value.encode()))
}

/// What a reader makes of the bytes of an opening; `None`: it waits for more.
fn read_opening(bytes: &[u8]) -> Option<Result<FirstBytes, DecodeError>> {
    match first::length(bytes) {
        Ok(None) => None,
        Ok(Some(length)) => bytes.get(..length).map(first::decode),
        Err(error) => Some(Err(error)),
    }
}

/// What a reader makes of the bytes of a frame; `None`: it waits for more.
fn read_frame(bytes: &[u8]) -> Option<Result<Frame, DecodeError>> {
    let header = match FrameHeader::decode(bytes.first_chunk()?) {
        Ok(header) => header,
        Err(error) => return Some(Err(error)),
    };
    let rest = bytes.get(HEADER_BYTES..HEADER_BYTES + header.rest_bytes(BodyCheck::Crc))?;
    Some(Frame::decode(&header, Bytes::copy_from_slice(rest), BodyCheck::Crc))
}

/// A frame with right checksums, whatever its content.
fn sealed(kind: u8, flags: u8, stream: u16, first: u64, count: u32, body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32).to_le_bytes().to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(crc(&out).to_le_bytes());
    if !body.is_empty() {
        out.extend(body);
        out.extend(crc(body).to_le_bytes());
    }
    out
}

/// An opening with right length and checksum, whatever its content.
fn sealed_opening(content: &[u8]) -> Vec<u8> {
    let mut out = first::MAGIC.to_vec();
    out.extend((content.len() as u32 + 4).to_le_bytes());
    out.extend(content);
    out.extend(crc(&out).to_le_bytes());
    out
}

#[test]
fn every_flipped_bit_of_an_opening_is_refused() {
    for (name, good) in openings() {
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = read_opening(&bad);
            assert!(!matches!(read, Some(Ok(_))), "{name}, bit {bit}: {read:?}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_frame_is_refused() {
    for (name, good) in frames() {
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = read_frame(&bad);
            assert!(matches!(read, Some(Err(DecodeError::Crc { .. }))), "{name}, bit {bit}: {read:?}");
        }
    }
}

#[test]
fn a_truncated_opening_asks_for_more() {
    for (name, good) in openings() {
        for end in 0..good.len() {
            assert_eq!(read_opening(&good[..end]), None, "{name}, {end}");
            assert!(first::decode(&good[..end]).is_err(), "{name}, {end}");
        }
    }
}

#[test]
fn a_truncated_frame_asks_for_more() {
    for (name, good) in frames() {
        for end in 0..good.len() {
            assert_eq!(read_frame(&good[..end]), None, "{name}, {end}");
        }
        let header = FrameHeader::decode(good.first_chunk().unwrap()).unwrap();
        for end in HEADER_BYTES..good.len() {
            let rest = Bytes::copy_from_slice(&good[HEADER_BYTES..end]);
            assert!(Frame::decode(&header, rest, BodyCheck::Crc).is_err(), "{name}, {end}");
        }
    }
}

#[test]
fn a_content_cut_short_under_a_right_checksum_is_never_read_as_the_whole() {
    for (name, good) in frames() {
        let header = FrameHeader::decode(good.first_chunk().unwrap()).unwrap();
        let whole = read_frame(&good).unwrap().unwrap();
        let body = &good[HEADER_BYTES..HEADER_BYTES + header.length as usize];
        for end in 0..body.len() {
            let cut =
                sealed(good[4], header.flags, header.stream, header.first.0, header.count, &body[..end]);
            assert_ne!(read_frame(&cut), Some(Ok(whole.clone())), "{name}, {end}");
        }
    }
}

#[test]
fn a_foreign_protocol_is_known_by_its_first_byte() {
    let foreign: [(&[u8], &str); 8] = [
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST /", "HTTP"),
        (b"PRI * HTTP/2.0", "HTTP"),
        (b"OPTIONS *", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"\x16\x03\x03\x00\x7a\x02", "TLS"),
        (b"SSH-2.0-OpenSSH_9.6", "SSH"),
        (b"\0\0\0\0", ""),
    ];
    for (bytes, name) in foreign {
        assert!(
            matches!(first::length(&bytes[..1]), Err(DecodeError::Magic { .. })),
            "{name}: not waited for"
        );
        let error = first::length(bytes).unwrap_err().to_string();
        assert!(error.starts_with("not karere") && error.contains(name), "{error}");
    }
    assert!(first::length(b"KRR").is_ok_and(|length| length.is_none()));
    assert!(first::length(b"KRX").is_err(), "at the first byte that is wrong");
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_it_is_waited_for() {
    let prefix = |length: u32| [&first::MAGIC[..], &length.to_le_bytes()].concat();
    assert!(first::length(&prefix(HELLO_BYTES_MAX as u32)).is_ok());
    assert!(matches!(first::length(&prefix(HELLO_BYTES_MAX as u32 + 1)), Err(DecodeError::TooLong { .. })));
    assert!(first::length(&prefix(8)).is_err());
    let header = |length| FrameHeader::new(FrameKind::Batch, length).encode();
    assert!(FrameHeader::decode(&header(FRAME_BYTES_MAX as u32)).is_ok());
    let refused = FrameHeader::decode(&header(FRAME_BYTES_MAX as u32 + 1));
    assert!(matches!(refused, Err(DecodeError::TooLong { .. })));
}

#[test]
fn what_must_be_understood_is_refused_and_the_rest_passed_over() {
    assert_eq!(read_frame(&sealed(0x7f, 0, 0, 0, 0, b"new")), Some(Ok(Frame::Unknown)));
    assert!(matches!(read_frame(&sealed(0xff, 0, 0, 0, 0, b"new")), Some(Err(DecodeError::Critical { .. }))));
    let (_, good) = openings().next().unwrap();
    let with = |kind: u16| {
        let mut content = good[8..good.len() - 4].to_vec();
        field::put_field(&mut content, kind, b"new");
        read_opening(&sealed_opening(&content)).unwrap()
    };
    assert_eq!(with(0x7000), first::decode(&good));
    assert!(matches!(with(0xf000), Err(DecodeError::Critical { .. })));
}

#[test]
fn impossible_values_are_refused() {
    let refused = |bytes: Vec<u8>| matches!(read_frame(&bytes), Some(Err(_)));
    let batch = FrameKind::Batch as u8;
    assert!(refused(sealed(batch, 0, 0, 1, 0, b"x")), "no records");
    assert!(refused(sealed(batch, 0, 0, 1, u32::MAX, b"x")), "too many records");
    assert!(refused(sealed(batch, 0, 0, 0, 1, b"x")), "records count from 1");
    assert!(refused(sealed(batch, 0, 0b011, 1, 1, b"x")), "a class that does not exist");
    assert!(refused(sealed(batch, 0, 0b100, 1, 1, b"x")), "a bit that means nothing");
    let ahead = StreamAck { stream: StreamId(0), accepted: Seq(1), handled: Seq(2), credit: 0 };
    assert!(refused(encode_control(&Frame::Ack(vec![ahead])).to_vec()), "handled before it was accepted");
    let upside_down = [&9u16.to_le_bytes()[..], &8u16.to_le_bytes(), &[1]].concat();
    assert!(matches!(read_opening(&sealed_opening(&upside_down)), Some(Err(DecodeError::Value { .. }))));
}

#[test]
fn a_datagram_beyond_its_limit_is_refused() {
    let datagram = |bytes| {
        let (stream, record) = (StreamId(0), vec![0; bytes].into());
        encode_control(&Frame::Datagram(frame::Datagram { stream, record }))
    };
    assert!(matches!(read_frame(&datagram(DATAGRAM_BYTES_MAX)), Some(Ok(_))));
    assert!(matches!(read_frame(&datagram(DATAGRAM_BYTES_MAX + 1)), Some(Err(DecodeError::TooLong { .. }))));
}

#[test]
fn the_text_of_a_close_is_cut_to_its_limit_in_bytes() {
    let text = "ü".repeat(CLOSE_TEXT_BYTES_MAX) + "x";
    let close = encode_control(&Frame::Close { code: first::Code::Busy, text });
    let Some(Ok(Frame::Close { text, .. })) = read_frame(&close) else { panic!("it is still a close") };
    assert_eq!(text, "ü".repeat(CLOSE_TEXT_BYTES_MAX / 2));
}

#[test]
fn the_fullest_hello_fits() {
    let Some((_, Value::First(FirstBytes::Hello(hello)))) = values().into_iter().next() else { panic!() };
    let stream =
        |at: u16| StreamId::from_wire((at / 6) << 4 | [0, 1, 2, 8, 9, 10][usize::from(at % 6)]).unwrap();
    let resume = |at| StreamResume { stream: stream(at), next_expected: Seq(1), credit: 1 };
    let mut fullest = Hello {
        environment: "e".repeat(NETWORK_NAME_BYTES_MAX),
        network: Some("n".repeat(NETWORK_NAME_BYTES_MAX)),
        streams: (0..STREAMS_MAX as u16).map(resume).collect(),
        ..*hello
    };
    fullest.from.name = "m".repeat(MEMBER_NAME_BYTES_MAX);
    let host = format!("{}:65535", "h".repeat(253));
    fullest.from.endpoints = (0..ENDPOINTS_MAX).map(|_| host.parse().unwrap()).collect();
    let fullest = FirstBytes::Hello(Box::new(fullest));
    let bytes = first::encode(&fullest);
    assert_eq!(read_opening(&bytes), Some(Ok(fullest)));
}

#[test]
fn more_of_anything_than_a_hello_or_a_goodbye_may_have_is_refused() {
    let Some((_, Value::First(FirstBytes::Hello(hello)))) = values().into_iter().next() else { panic!() };
    let endpoints = |count: usize| {
        let mut hello = hello.clone();
        hello.from.endpoints = (0..count).map(|_| "10.0.0.1:7400".parse().unwrap()).collect();
        read_opening(&first::encode(&FirstBytes::Hello(hello)))
    };
    assert!(matches!(endpoints(ENDPOINTS_MAX), Some(Ok(_))));
    assert!(matches!(
        endpoints(ENDPOINTS_MAX + 1),
        Some(Err(DecodeError::TooLong { what: "endpoints", .. }))
    ));
    let goodbye = |count: usize| {
        let last = (0..count).map(|_| (StreamId(0), Seq(1))).collect();
        read_frame(&encode_control(&Frame::Goodbye { last, confirmed: false }))
    };
    assert!(matches!(goodbye(STREAMS_MAX), Some(Ok(_))));
    assert!(matches!(goodbye(STREAMS_MAX + 1), Some(Err(DecodeError::TooLong { .. }))));
}

#[test]
fn a_frame_of_a_kind_that_is_not_known_is_read_as_such() {
    assert_eq!(read_frame(&encode_control(&Frame::Unknown)), Some(Ok(Frame::Unknown)));
}

#[test]
fn the_version_is_the_lower_maximum_or_none() {
    let range = |lowest, highest| Versions { lowest, highest };
    for (ours, theirs, agreed) in [
        (range(1, 1), range(1, 1), Some(1)),
        (range(1, 3), range(2, 9), Some(3)),
        (range(1, 3), range(3, 3), Some(3)),
        (range(1, 2), range(3, 4), None),
    ] {
        assert_eq!((ours.agree(theirs), theirs.agree(ours)), (agreed, agreed), "{ours} and {theirs}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_opening(&bytes);
        let _ = first::decode(&bytes);
        let _ = read_frame(&bytes);
        let mut records = Bytes::from(bytes);
        while let Ok(record) = record::take(&mut records) {
            prop_assert!(record.body.len() <= record.header.length as usize);
        }
    }

    #[test]
    fn random_contents_under_right_checksums_never_panic(
        kind in any::<u8>(), flags in any::<u8>(), stream in any::<u16>(), first in any::<u64>(),
        count in any::<u32>(), body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = read_frame(&sealed(kind, flags, stream, first, count, &body));
        for kind in [0x81, 0x02, 0x83, 0x04, 0x05, 0x86, 0x07, 0x88, 0x89] {
            if let Some(Ok(frame)) = read_frame(&sealed(kind, flags, stream, first, count, &body)) {
                let again = encode_control(&frame);
                prop_assert_eq!(read_frame(&again), Some(Ok(frame)), "what was read can be written and read");
            }
        }
    }

    #[test]
    fn random_fields_under_a_right_checksum_never_panic(
        kind in 0..4u8, fields in prop::collection::vec((0..40u16, prop::collection::vec(any::<u8>(), 0..20)), 0..20),
    ) {
        let mut content = vec![1, 0, 1, 0, kind];
        for (kind, value) in &fields {
            field::put_field(&mut content, *kind, value);
        }
        if let Some(Ok(opening)) = read_opening(&sealed_opening(&content)) {
            prop_assert_eq!(read_opening(&first::encode(&opening)), Some(Ok(opening)));
        }
    }
}
