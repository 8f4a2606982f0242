//! What stands on the wire.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::wire::{
    AbortCode, Content, Head, Malformed, MessageError, NAME_BYTES_MAX, TEXT_BYTES_MAX, decode, encode,
    encode_data,
};

fn contents() -> impl Strategy<Value = Content> {
    prop_oneof![
        (any::<u64>(), ".{0,60}").prop_map(|(window, name)| Content::Open { window, name }),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Content::Data(bytes.into())),
        any::<u64>().prop_map(|limit| Content::Window { limit }),
        any::<u64>().prop_map(|total| Content::End { total }),
        (any::<u16>(), ".{0,120}").prop_map(|(code, text)| Content::Abort { code, text }),
    ]
}

proptest! {
    #[test]
    fn every_message_reads_as_written(id: u64, from_opener: bool, content in contents()) {
        // Only an opener opens.
        let head = Head { id, from_opener: from_opener || matches!(content, Content::Open { .. }) };
        prop_assert_eq!(decode(encode(head, &content)), Ok((head, content)));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), tag in 0u8..8) {
        let _ = decode(Bytes::from(bytes.clone()));
        let mut tagged = bytes;
        if let Some(first) = tagged.first_mut() {
            *first = tag;
        }
        let _ = decode(tagged.into());
    }

    #[test]
    fn a_message_cut_short_never_panics(content in contents(), cut in 0usize..40) {
        let body = encode(Head { id: 3, from_opener: true }, &content);
        let _ = decode(body.slice(..cut.min(body.len())));
    }
}

#[test]
fn the_bytes_are_those_of_the_text() {
    let head = Head { id: 0x0102, from_opener: true };
    let id = [2, 1, 0, 0, 0, 0, 0, 0];
    let bytes = |first: &[u8], rest: &[u8]| [first, &id, rest].concat();
    let open = encode(head, &Content::Open { window: 5, name: "ab".into() });
    assert_eq!(open, bytes(&[0x81], b"\x05\0\0\0\0\0\0\0ab"));
    assert_eq!(encode_data(Head { from_opener: false, ..head }, b"xyz"), bytes(&[2], b"xyz"));
    assert_eq!(encode(head, &Content::Window { limit: 7 }), bytes(&[0x83], &7u64.to_le_bytes()));
    assert_eq!(encode(head, &Content::End { total: 9 }), bytes(&[0x84], &9u64.to_le_bytes()));
    let abort = Content::Abort { code: AbortCode::Fault as u16, text: "no".into() };
    assert_eq!(encode(head, &abort), bytes(&[0x85], b"\x04\0no"));
}

#[test]
fn each_malformed_message_is_named() {
    let head = Head { id: 1, from_opener: false };
    let with =
        |tag: u8, rest: &[u8]| decode([&[tag, 1, 0, 0, 0, 0, 0, 0, 0], rest].concat().into()).unwrap_err();
    let named = |error, opens| Malformed { error, head: Some(head), opens };
    assert_eq!(with(1, b"12345678ab"), named(MessageError::NotOpener, false));
    let head = Head { from_opener: true, ..head };
    let with = |tag: u8, rest: &[u8]| {
        decode([&[tag | 0x80, 1, 0, 0, 0, 0, 0, 0, 0], rest].concat().into()).unwrap_err()
    };
    let named = |error, opens| Malformed { error, head: Some(head), opens };
    assert_eq!(with(0, b""), named(MessageError::Tag { tag: 0 }, false));
    assert_eq!(with(6, b""), named(MessageError::Tag { tag: 6 }, false));
    assert_eq!(with(1, b"1234567"), named(MessageError::Short, true));
    assert_eq!(with(1, b"12345678\xff"), named(MessageError::NotUtf8, true));
    assert_eq!(with(1, &[b'a'; 8 + 256]), named(MessageError::NameTooLong { bytes: 256 }, true));
    assert_eq!(with(3, b"1234567"), named(MessageError::Short, false));
    assert_eq!(with(3, b"123456789"), named(MessageError::Trailing { bytes: 1 }, false));
    assert_eq!(with(5, &[b'a'; 2 + 513]), named(MessageError::TextTooLong { bytes: 513 }, false));
    let short = Malformed { error: MessageError::Short, head: None, opens: false };
    assert_eq!(decode(Bytes::from_static(&[1, 2, 3])), Err(short));
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let text = "é".repeat(TEXT_BYTES_MAX);
    let body = encode(Head { id: 1, from_opener: true }, &Content::Abort { code: 1, text });
    let Ok((_, Content::Abort { text, .. })) = decode(body) else { panic!("it decodes") };
    assert_eq!(text, "é".repeat(TEXT_BYTES_MAX / 2));
    assert_eq!(NAME_BYTES_MAX, 255);
}
