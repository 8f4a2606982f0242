//! The sender's half, out of bytes that come in pieces of any size.

use super::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, Fields, HEADER_BYTES, Header, NAME_BYTES_MAX, PipeError, Place,
    SIZE_KNOWN, Sequence, SequenceCounts, Sha, TRAILER_BYTES, Trailer,
};

/// A part that is complete, or data of a block as far as it is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// Comes first, once.
    Header(Header),
    /// The next data; never of a block that came before.
    Data(&'a [u8]),
    /// The end; nothing follows.
    End(Trailer),
}

#[derive(Debug)]
enum Stage {
    Header,
    Name { length: usize, size: Option<u64> },
    Block,
    Data { left: usize, place: Place },
    Trailer { number: u64 },
    Over,
}

/// Takes bytes, gives parts.
#[derive(Debug)]
pub(crate) struct Decoder {
    stage: Stage,
    /// The beginning of a part of fixed length, when the bytes ended inside it; bounded by the longest of them.
    partial: Vec<u8>,
    sequence: Sequence,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { stage: Stage::Header, partial: Vec::new(), sequence: Sequence::default() }
    }

    /// The next part; none when all of `input` is taken and more has to come.
    ///
    /// # Errors
    /// If the bytes are not what the protocol says. The decoder is of no use then.
    pub(crate) fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, PipeError> {
        loop {
            match self.stage {
                Stage::Header => {
                    let Some(fixed) = self.gather(input, HEADER_BYTES) else { return Ok(None) };
                    self.stage = decode_header(&fixed)?;
                }
                Stage::Name { length, size } => {
                    let Some(name) = self.gather(input, length) else { return Ok(None) };
                    let name = String::from_utf8(name).map_err(|_| PipeError::Malformed("the file name"))?;
                    let name = Some(name).filter(|name| !name.is_empty());
                    self.stage = Stage::Block;
                    return Ok(Some(Item::Header(Header { name, size })));
                }
                Stage::Block => {
                    let Some(fixed) = self.gather(input, BLOCK_HEADER_BYTES) else { return Ok(None) };
                    self.begin_block(&fixed)?;
                    self.partial = fixed;
                    self.partial.clear();
                }
                Stage::Data { left: 0, .. } => self.stage = Stage::Block,
                Stage::Data { left, place } => {
                    let Some(data) = take_data(input, left) else { return Ok(None) };
                    self.stage = Stage::Data { left: left - data.len(), place };
                    match place {
                        Place::New | Place::Late => return Ok(Some(Item::Data(data))),
                        Place::Again => {}
                    }
                }
                Stage::Trailer { number } => {
                    let Some(fixed) = self.gather(input, TRAILER_BYTES) else { return Ok(None) };
                    let mut fields = Fields(&fixed);
                    let trailer = Trailer { length: fields.u64()?, sha: Sha(fields.take()?) };
                    self.sequence.handle_end(number);
                    self.stage = Stage::Over;
                    return Ok(Some(Item::End(trailer)));
                }
                Stage::Over if input.is_empty() => return Ok(None),
                Stage::Over => return Err(PipeError::AfterEnd),
            }
        }
    }

    /// What the numbers of the blocks told.
    pub(crate) fn counts(&self) -> SequenceCounts {
        self.sequence.counts()
    }

    fn begin_block(&mut self, fixed: &[u8]) -> Result<(), PipeError> {
        let mut fields = Fields(fixed);
        let number = fields.u64()?;
        let length = u32::from_le_bytes(fields.take()?);
        if number == 0 {
            return Err(PipeError::Malformed("the number of a block"));
        }
        self.stage = match usize::try_from(length) {
            Ok(0) => Stage::Trailer { number },
            Ok(left @ 1..=BLOCK_BYTES_MAX) => Stage::Data { left, place: self.sequence.handle_block(number) },
            Ok(_) | Err(_) => return Err(PipeError::BlockTooLarge(length)),
        };
        Ok(())
    }

    /// So many bytes in one piece, once they are there.
    fn gather(&mut self, input: &mut &[u8], length: usize) -> Option<Vec<u8>> {
        let lacking = length.saturating_sub(self.partial.len());
        let (head, tail) = input.split_at(lacking.min(input.len()));
        self.partial.extend_from_slice(head);
        *input = tail;
        (self.partial.len() >= length).then(|| std::mem::take(&mut self.partial))
    }
}

fn decode_header(fixed: &[u8]) -> Result<Stage, PipeError> {
    let mut fields = Fields(fixed);
    let [flags] = fields.take()?;
    let length = usize::from(u16::from_le_bytes(fields.take()?));
    let size = fields.u64()?;
    if flags & !SIZE_KNOWN != 0 || length > NAME_BYTES_MAX {
        return Err(PipeError::Malformed("the header"));
    }
    Ok(Stage::Name { length, size: (flags & SIZE_KNOWN != 0).then_some(size) })
}

/// As much of a block as is there.
fn take_data<'a>(input: &mut &'a [u8], left: usize) -> Option<&'a [u8]> {
    let (data, rest) = input.split_at(left.min(input.len()));
    *input = rest;
    (!data.is_empty()).then_some(data)
}
