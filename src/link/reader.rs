//! Cuts the bytes of a link into frames. Bodies are slices of the buffer that was read into.

use bytes::{Bytes, BytesMut};

use crate::limits::{OWN_FRAME_BYTES, READ_BYTES};
use crate::wire::frame::{Frame, FrameHeader, HEADER_BYTES};
use crate::wire::{BodyCheck, DecodeError};

/// The buffer of an idle link.
const IDLE_BYTES: usize = 4 * 1024;

/// Bytes in, frames out.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
    /// Decoded, and waiting for its body.
    header: Option<FrameHeader>,
    /// The last read filled the room there was, so the next one gets more.
    busy: bool,
    check: BodyCheck,
}

impl FrameReader {
    /// Of a link whose bodies carry this checksum; the default is CRC32C.
    pub(crate) fn new(check: BodyCheck) -> Self {
        Self { check, ..Self::default() }
    }

    /// Where to read into: room for the rest of the frame that has begun, or for what may come next.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        let missing =
            self.header.map_or(0, |header| header.rest_bytes(self.check).saturating_sub(self.buffer.len()));
        let room = self.buffer.capacity() - self.buffer.len();
        let wanted = if self.busy { READ_BYTES } else { IDLE_BYTES };
        if room < missing.max(wanted / 4) {
            // Takes the old allocation back when no frame of it is held any more.
            self.buffer.reserve(missing.max(wanted));
        }
        &mut self.buffer
    }

    /// After a read into [`FrameReader::buffer`].
    pub(crate) fn note_read(&mut self) {
        self.busy = self.buffer.len() == self.buffer.capacity();
    }

    /// Gives memory back when nothing waits here.
    pub(crate) fn note_idle(&mut self) {
        if self.buffer.is_empty() && self.header.is_none() && self.buffer.capacity() > IDLE_BYTES {
            self.buffer = BytesMut::new();
            self.busy = false;
        }
    }

    /// The next frame; `None`: more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                let header = FrameHeader::decode(bytes)?;
                bytes::Buf::advance(&mut self.buffer, HEADER_BYTES);
                *self.header.insert(header)
            }
        };
        let rest_bytes = header.rest_bytes(self.check);
        if self.buffer.len() < rest_bytes {
            return Ok(None);
        }
        self.header = None;
        let rest = self.buffer.split_to(rest_bytes);
        // A small frame must not pin a large buffer for as long as its handler takes.
        let rest = if rest.len() < OWN_FRAME_BYTES { Bytes::copy_from_slice(&rest) } else { rest.freeze() };
        Frame::decode(&header, rest, self.check).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{self, Datagram};
    use crate::wire::{Class, Protocol, StreamId};

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive_with_and_without_checksums() {
        [BodyCheck::Crc, BodyCheck::Absent].into_iter().for_each(come_out_whole);
    }

    fn come_out_whole(check: BodyCheck) {
        let frames = [
            Frame::Ping { nonce: 7, heard_millis: 9 },
            Frame::Goodbye { last: Vec::new(), confirmed: true },
            Frame::Types(Vec::new()),
            Frame::Datagram(Datagram {
                stream: StreamId::new(Protocol(64), Class::Bulk, true),
                record: vec![5; 9000].into(),
            }),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|each| frame::encode(each, check)).collect();
        for step in [1, 3, 24, 25, 1000, bytes.len()] {
            let mut reader = FrameReader::new(check);
            let mut found = Vec::new();
            for piece in bytes.chunks(step) {
                reader.buffer().extend_from_slice(piece);
                reader.note_read();
                while let Some(frame) = reader.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames, "in steps of {step}");
        }
    }

    #[test]
    fn a_read_that_fills_its_room_gets_more_and_others_do_not() {
        let mut reader = FrameReader::default();
        let before = reader.buffer().capacity();
        assert!((4096..READ_BYTES).contains(&before), "little at first");
        // The beginning of a frame, whose body is never all there.
        let ping = frame::encode(&Frame::Ping { nonce: 1, heard_millis: 1 }, BodyCheck::Crc);
        reader.buffer().extend_from_slice(&ping[..10]);
        reader.note_read();
        assert_eq!(reader.buffer().capacity(), before, "there is room");
        for _ in 0..3 {
            let room = reader.buffer.capacity() - reader.buffer.len();
            reader.buffer.extend_from_slice(&vec![0; room]);
            reader.note_read();
            let buffer = reader.buffer();
            assert!(buffer.capacity() - buffer.len() >= READ_BYTES, "a read of nothing would be the end");
        }
    }

    #[test]
    fn a_large_frame_that_has_begun_gets_room_for_its_rest() {
        let frame = Frame::Datagram(Datagram {
            stream: StreamId::new(Protocol(64), Class::Bulk, true),
            record: vec![5; 300_000].into(),
        });
        let bytes = frame::encode(&frame, BodyCheck::Crc);
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(&bytes[..5000]);
        assert_eq!(reader.next(), Ok(None));
        let buffer = reader.buffer();
        assert!(buffer.capacity() - buffer.len() >= bytes.len() - 5000, "all of it in one read");
    }

    #[test]
    fn a_small_frame_holds_no_large_buffer_and_a_large_one_is_not_copied() {
        let stream = StreamId::new(Protocol(64), Class::Bulk, true);
        for (rest_bytes, copied) in
            [(100, true), (OWN_FRAME_BYTES - 1, true), (OWN_FRAME_BYTES, false), (OWN_FRAME_BYTES * 2, false)]
        {
            let record = vec![5; rest_bytes - frame::BODY_CRC_BYTES].into();
            let bytes = frame::encode(&Frame::Datagram(Datagram { stream, record }), BodyCheck::Crc);
            let mut reader = FrameReader::default();
            reader.buffer().extend_from_slice(&bytes);
            // Something comes behind it, into the same buffer.
            reader.buffer().extend_from_slice(&[1]);
            let Ok(Some(Frame::Datagram(datagram))) = reader.next() else { panic!("a datagram") };
            assert_eq!(datagram.record.is_unique(), copied, "{rest_bytes} bytes");
        }
    }

    #[test]
    fn memory_is_given_back_only_when_nothing_waits_in_it() {
        let mut reader = FrameReader { busy: true, ..FrameReader::default() };
        reader.buffer().extend_from_slice(&[7; 5]);
        reader.note_idle();
        assert_eq!(reader.buffer().len(), 5, "the beginning of a frame stays");
        let mut reader = FrameReader::default();
        let little = reader.buffer().capacity();
        reader.note_idle();
        assert_eq!(reader.buffer.capacity(), little, "as much as an idle one may keep");
    }

    #[test]
    fn an_idle_reader_holds_no_memory() {
        let mut reader = FrameReader { busy: true, ..FrameReader::default() };
        reader.buffer();
        assert!(reader.buffer.capacity() >= READ_BYTES);
        reader.note_idle();
        assert_eq!(reader.buffer.capacity(), 0);
    }
}
