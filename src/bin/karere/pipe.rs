//! The protocol inside one byte stream: `karere.pipe/1`. No sockets, no files and no clock here.
//!
//! The sender writes a [`Header`], then blocks, then a [`Trailer`]; the receiver answers on the reverse half with one
//! [`Verdict`] when everything is where it belongs. Blocks are numbered here, too, so that a receiver sees what is
//! missing, doubled or out of order without trusting the transport. Integers are little-endian.
//!
//! | part | bytes |
//! |---|---|
//! | header | flags u8 (1: size known), length of the name u16, size u64, name (UTF-8) |
//! | block | sequence u64 from 1, length u32 from 1 to 64 KiB, data |
//! | trailer | sequence u64 (one more than the last block's), length u32 = 0, total length u64, SHA-256 |
//! | verdict | ok u8, length u64, SHA-256, blocks, doubled, reordered, missing u64 each, text with length u16 |

mod decoder;
mod sequence;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use decoder::{Decoder, Item};
pub(crate) use sequence::{Place, Sequence, SequenceCounts};

/// The name the byte stream is opened with.
pub(crate) const PROTOCOL: &str = "karere.pipe/1";
/// The most data in one block: large enough that its header and hand-over cost little.
pub(crate) const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Before the data of a block.
pub(crate) const BLOCK_HEADER_BYTES: usize = 12;
/// The longest file name; no file system in use takes longer ones (`NAME_MAX` is 255).
pub(crate) const NAME_BYTES_MAX: usize = 1024;
/// The longest text of a verdict.
pub(crate) const TEXT_BYTES_MAX: usize = 1024;

const HEADER_BYTES: usize = 11;
const TRAILER_BYTES: usize = 40;
const VERDICT_BYTES: usize = 75;
const SIZE_KNOWN: u8 = 1;

const _: () = assert!(NAME_BYTES_MAX <= u16::MAX as usize && TEXT_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(BLOCK_BYTES_MAX <= u32::MAX as usize);

/// A SHA-256, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sha(pub(crate) [u8; 32]);

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the sender says first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// The name of the file, if it comes from one. Not to be trusted.
    pub(crate) name: Option<String>,
    /// How many bytes will come, if that is known.
    pub(crate) size: Option<u64>,
}

impl Header {
    /// The bytes of it; a longer name is left out.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let name = self.name.as_deref().filter(|name| name.len() <= NAME_BYTES_MAX).unwrap_or_default();
        let flags = if self.size.is_some() { SIZE_KNOWN } else { 0 };
        let mut out = Vec::with_capacity(HEADER_BYTES + name.len());
        out.push(flags);
        put_text_length(&mut out, name);
        out.extend(self.size.unwrap_or(0).to_le_bytes());
        out.extend(name.as_bytes());
        out
    }
}

/// What goes before the data of a block.
pub(crate) fn block_header(sequence: u64, length: usize) -> [u8; BLOCK_HEADER_BYTES] {
    debug_assert!((1..=BLOCK_BYTES_MAX).contains(&length));
    let mut out = [0; BLOCK_HEADER_BYTES];
    let (number, rest) = out.split_at_mut(8);
    number.copy_from_slice(&sequence.to_le_bytes());
    rest.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out
}

/// What the sender says last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// All data.
    pub(crate) length: u64,
    /// Of all data.
    pub(crate) sha: Sha,
}

impl Trailer {
    /// The bytes of it, after so many blocks.
    pub(crate) fn encode(&self, blocks: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES + TRAILER_BYTES);
        out.extend((blocks + 1).to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out.extend(self.sha.0);
        out
    }
}

/// The receiver's answer: whether it has it all, and what it counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Nothing if it is all there; else what is wrong.
    pub(crate) error: Option<String>,
    /// What was received.
    pub(crate) received: Trailer,
    /// Blocks, as their numbers told.
    pub(crate) counts: SequenceCounts,
}

impl Verdict {
    /// The bytes of it; a longer text is cut.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let text = clip(self.error.as_deref().unwrap_or_default(), TEXT_BYTES_MAX);
        let mut out = Vec::with_capacity(VERDICT_BYTES + text.len());
        out.push(u8::from(self.error.is_none()));
        out.extend(self.received.length.to_le_bytes());
        out.extend(self.received.sha.0);
        let SequenceCounts { blocks, doubled, reordered, missing } = self.counts;
        for count in [blocks, doubled, reordered, missing] {
            out.extend(count.to_le_bytes());
        }
        put_text_length(&mut out, text);
        out.extend(text.as_bytes());
        out
    }

    /// The verdict in these bytes; none if more have to come.
    ///
    /// # Errors
    /// If the bytes are no verdict.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Verdict>, PipeError> {
        let Some((fixed, rest)) = bytes.split_at_checked(VERDICT_BYTES) else { return Ok(None) };
        let mut fields = Fields(fixed);
        let [ok] = fields.take()?;
        let received = Trailer { length: fields.u64()?, sha: Sha(fields.take()?) };
        let counts = SequenceCounts {
            blocks: fields.u64()?,
            doubled: fields.u64()?,
            reordered: fields.u64()?,
            missing: fields.u64()?,
        };
        let text_len = usize::from(u16::from_le_bytes(fields.take()?));
        if text_len > TEXT_BYTES_MAX || ok > 1 {
            return Err(PipeError::Malformed("the verdict"));
        }
        let Some(text) = rest.get(..text_len) else { return Ok(None) };
        let text = String::from_utf8_lossy(text);
        let text = if text.is_empty() { "the receiver does not say why".into() } else { text.into_owned() };
        Ok(Some(Verdict { error: (ok == 0).then_some(text), received, counts }))
    }
}

/// What is wrong with the bytes of the other side. The stream is given up; nothing else suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PipeError {
    /// A part does not hold what it must.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A block that is too large.
    #[error("a block of {0} bytes; at most {BLOCK_BYTES_MAX} are allowed")]
    BlockTooLarge(u32),
    /// Bytes behind the end.
    #[error("bytes came after the end")]
    AfterEnd,
}

/// Fixed fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], PipeError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(PipeError::Malformed("a field"))?;
        self.0 = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, PipeError> {
        self.take().map(u64::from_le_bytes)
    }
}

/// The callers have cut the text to a length that fits.
fn put_text_length(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
}

/// The beginning of a text, at most so many bytes, no character cut in two.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}
