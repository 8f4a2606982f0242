//! What is encoded is decoded, in pieces of any size; what is wrong is seen.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SHA: Sha = Sha([0xab; 32]);

fn encode(header: &Header, blocks: &[(u64, Vec<u8>)], last: u64) -> Vec<u8> {
    let mut out = header.encode();
    for (number, data) in blocks {
        out.extend(block_header(*number, data.len()));
        out.extend(data);
    }
    let length = blocks.iter().map(|(_, data)| data.len() as u64).sum();
    out.extend(Trailer { length, sha: SHA }.encode(last));
    out
}

/// Everything that comes out, fed in pieces of these sizes in turn.
fn decode(bytes: &[u8], pieces: &[usize]) -> Result<(Header, Vec<u8>, Trailer, SequenceCounts), PipeError> {
    let mut decoder = Decoder::new();
    let (mut header, mut data, mut trailer) = (None, Vec::new(), None);
    let (mut rest, mut sizes) = (bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (mut piece, tail) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
        rest = tail;
        while let Some(item) = decoder.decode(&mut piece)? {
            match item {
                Item::Header(found) => assert!(header.replace(found).is_none()),
                Item::Data(found) => data.extend_from_slice(found),
                Item::End(found) => assert!(trailer.replace(found).is_none()),
            }
        }
        assert!(piece.is_empty());
    }
    Ok((header.unwrap(), data, trailer.unwrap(), decoder.counts()))
}

fn numbered(numbers: &[u64]) -> Vec<(u64, Vec<u8>)> {
    numbers.iter().map(|number| (*number, vec![*number as u8; 10])).collect()
}

fn counts_of(numbers: &[u64], last: u64) -> SequenceCounts {
    let bytes = encode(&Header::default(), &numbered(numbers), last);
    decode(&bytes, &[7]).unwrap().3
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_in_pieces_of_any_size(
        name in proptest::option::of("[a-zå ./]{1,40}"),
        size in proptest::option::of(any::<u64>()),
        blocks in vec(vec(any::<u8>(), 1..300), 0..8),
        pieces in vec(1_usize..400, 1..5),
    ) {
        let header = Header { name, size };
        let blocks: Vec<_> = (1..).zip(blocks).collect();
        let data: Vec<u8> = blocks.iter().flat_map(|(_, data)| data.clone()).collect();
        let bytes = encode(&header, &blocks, blocks.len() as u64);
        let (found, received, trailer, counts) = decode(&bytes, &pieces).unwrap();
        prop_assert_eq!(found, header);
        prop_assert_eq!(&received, &data);
        prop_assert_eq!(trailer, Trailer { length: data.len() as u64, sha: SHA });
        let clean = SequenceCounts { blocks: blocks.len() as u64, ..SequenceCounts::default() };
        prop_assert_eq!(counts, clean);
    }

    #[test]
    fn any_bytes_are_taken_or_refused_without_panic(
        bytes in vec(any::<u8>(), 0..2000),
        pieces in vec(1_usize..90, 1..4),
    ) {
        let mut decoder = Decoder::new();
        let (mut rest, mut sizes) = (&bytes[..], pieces.iter().cycle());
        'all: while !rest.is_empty() {
            let (mut piece, tail) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            rest = tail;
            loop {
                match decoder.decode(&mut piece) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
        let _ = Verdict::decode(&bytes);
    }

    #[test]
    fn a_verdict_survives_bytes_and_waits_for_the_last(
        error in proptest::option::of("[ -~]{1,2000}"),
        length in any::<u64>(),
        counts in any::<[u64; 4]>(),
    ) {
        let [blocks, doubled, reordered, missing] = counts;
        let counts = SequenceCounts { blocks, doubled, reordered, missing };
        let verdict = Verdict { error, received: Trailer { length, sha: SHA }, counts };
        let bytes = verdict.encode();
        for end in 0..bytes.len() {
            prop_assert_eq!(Verdict::decode(&bytes[..end]), Ok(None));
        }
        let cut = verdict.error.as_deref().map(|text| clip(text, TEXT_BYTES_MAX).to_owned());
        prop_assert_eq!(Verdict::decode(&bytes), Ok(Some(Verdict { error: cut, ..verdict })));
    }
}

#[test]
fn a_block_that_comes_again_is_counted_and_its_data_dropped() {
    let bytes = encode(&Header::default(), &numbered(&[1, 2, 2, 1, 3]), 3);
    let (_, data, _, counts) = decode(&bytes, &[13]).unwrap();
    assert_eq!(counts, SequenceCounts { blocks: 3, doubled: 2, ..SequenceCounts::default() });
    assert_eq!(data, [[1_u8; 10], [2; 10], [3; 10]].concat());
}

#[test]
fn late_and_missing_blocks_are_told_apart() {
    let late = SequenceCounts { blocks: 4, reordered: 1, ..SequenceCounts::default() };
    assert_eq!(counts_of(&[1, 3, 2, 4], 4), late);
    let gap = SequenceCounts { blocks: 2, missing: 2, ..SequenceCounts::default() };
    assert_eq!(counts_of(&[1, 4], 4), gap);
    let tail = SequenceCounts { blocks: 2, missing: 3, ..SequenceCounts::default() };
    assert_eq!(counts_of(&[1, 2], 5), tail);
}

#[test]
fn more_blocks_than_were_sent_are_not_clean() {
    assert!(!counts_of(&[1, 2, 3], 2).are_clean());
    assert!(counts_of(&[1, 2, 3], 3).are_clean());
}

#[test]
fn a_huge_gap_costs_no_memory() {
    let mut sequence = Sequence::default();
    assert_eq!(sequence.handle_block(u64::MAX - 1), Place::New);
    sequence.handle_end(u64::MAX);
    assert_eq!(sequence.counts().missing, u64::MAX - 2);
    assert_eq!(sequence.handle_block(5), Place::Late);
}

#[test]
fn a_block_too_large_is_refused_before_its_data() {
    let mut bytes = Header::default().encode();
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend((BLOCK_BYTES_MAX as u32 + 1).to_le_bytes());
    assert_eq!(decode(&bytes, &[100]).unwrap_err(), PipeError::BlockTooLarge(65537));
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut bytes = encode(&Header::default(), &[], 0);
    bytes.push(0);
    assert_eq!(decode(&bytes, &[100]).unwrap_err(), PipeError::AfterEnd);
}

#[test]
fn a_name_too_long_is_left_out() {
    let header = Header { name: Some("x".repeat(NAME_BYTES_MAX + 1)), size: Some(5) };
    let found = decode(&encode(&header, &[], 0), &[9]).unwrap().0;
    assert_eq!(found, Header { name: None, size: Some(5) });
}
