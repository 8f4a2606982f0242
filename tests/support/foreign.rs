//! A peer that shares no code with karere: the wire by hand, as docs/PROTOCOL.md specifies it. It says what a test tells
//! it to say, right or wrong, and blocks; every wait has a deadline.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Far beyond what a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) const HELLO: u8 = 1;
pub(crate) const ANSWER: u8 = 2;
pub(crate) const REJECT: u8 = 3;

pub(crate) const BATCH: u8 = 0x81;
pub(crate) const ACK: u8 = 0x83;
pub(crate) const PING: u8 = 0x04;
pub(crate) const PONG: u8 = 0x05;
pub(crate) const TYPES: u8 = 0x86;
pub(crate) const CLOSE: u8 = 0x89;

pub(crate) const VERSION_MISMATCH: u16 = 1;
pub(crate) const WRONG_MEMBER: u16 = 4;
pub(crate) const DUPLICATE: u16 = 7;
pub(crate) const MALFORMED: u16 = 11;

/// Protocol 0, open, normal.
pub(crate) const OPEN_NORMAL: u16 = 1 << 3 | 1;
/// First and last chunk: a whole message.
pub(crate) const WHOLE: u16 = 3;

/// CRC32C, bit by bit (RFC 3720, appendix B.4).
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// FNV-1a, 32 bits: how a type's name becomes a number.
pub(crate) fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Who it is and what it says of itself in every opening.
#[derive(Clone, Debug)]
pub(crate) struct Foreign {
    pub(crate) id: [u8; 16],
    pub(crate) versions: (u16, u16),
    /// Said beside what must be said.
    pub(crate) extra: Vec<(u16, Vec<u8>)>,
}

/// What an opening says of the session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) epoch: u64,
    pub(crate) your_epoch: u64,
    pub(crate) generation: u64,
    pub(crate) attempt: u64,
    /// Stream, next expected, credit.
    pub(crate) streams: Vec<(u16, u64, u64)>,
}

impl Session {
    pub(crate) fn new(epoch: u64, your_epoch: u64, generation: u64) -> Self {
        Self { epoch, your_epoch, generation, attempt: 1, streams: Vec::new() }
    }

    pub(crate) fn expecting(mut self, stream: u16, next: u64) -> Self {
        self.streams.push((stream, next, 1 << 20));
        self
    }
}

/// First bytes as they came.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) versions: (u16, u16),
    pub(crate) kind: u8,
    fields: Vec<(u16, Vec<u8>)>,
}

impl Opening {
    pub(crate) fn field(&self, number: u16) -> Option<&[u8]> {
        let is = |field: &&(u16, Vec<u8>)| field.0 & 0x7fff == number;
        self.fields.iter().rev().find(is).map(|(_, value)| &value[..])
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        self.field(3).unwrap().try_into().unwrap()
    }

    pub(crate) fn number(&self, number: u16) -> u64 {
        u64::from_le_bytes(self.field(number).unwrap().try_into().unwrap())
    }

    /// The code of a refusal.
    pub(crate) fn code(&self) -> u16 {
        assert_eq!(self.kind, REJECT, "{self:?}");
        u16::from_le_bytes(self.field(32).unwrap().try_into().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.field(33).unwrap().to_vec()).unwrap()
    }

    /// What is expected next on a stream; nothing came on one that is not listed.
    pub(crate) fn next_expected(&self, stream: u16) -> u64 {
        let listed = self.fields.iter().filter(|(kind, _)| kind & 0x7fff == 15);
        let of = |value: &[u8]| u16::from_le_bytes(value[..2].try_into().unwrap()) == stream;
        let mut found = listed.filter(|(_, value)| of(value));
        found.next().map_or(1, |(_, value)| u64::from_le_bytes(value[2..10].try_into().unwrap()))
    }
}

impl Foreign {
    /// Speaks version 1; the number makes its id.
    pub(crate) fn new(number: u8) -> Self {
        let id = [0, 0, 0, 0, 0, 9, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number];
        Self { id, versions: (1, 1), extra: Vec::new() }
    }

    /// 32 hexadecimal digits.
    pub(crate) fn name(&self) -> String {
        hex(&self.id)
    }

    pub(crate) fn opening(&self, kind: u8, fields: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut rest = Vec::new();
        rest.extend(self.versions.0.to_le_bytes());
        rest.extend(self.versions.1.to_le_bytes());
        rest.push(kind);
        for (number, value) in fields.iter().chain(&self.extra) {
            rest.extend(number.to_le_bytes());
            rest.extend((value.len() as u16).to_le_bytes());
            rest.extend(value);
        }
        let mut out = b"KRRE".to_vec();
        out.extend((rest.len() as u32 + 4).to_le_bytes());
        out.extend(rest);
        out.extend(crc(&out).to_le_bytes());
        out
    }

    /// A Hello or an Answer of the default network.
    pub(crate) fn hello(&self, kind: u8, to: Option<[u8; 16]>, session: &Session) -> Vec<u8> {
        let number = |value: u64| value.to_le_bytes().to_vec();
        let mut fields = vec![
            (1, b"development".to_vec()),
            (2, b"default".to_vec()),
            (3, self.id.to_vec()),
            (10, number(session.epoch)),
            (11, number(session.your_epoch)),
            (12, number(session.generation)),
            (13, number(session.attempt)),
            (18, number(1 << 20)),
        ];
        fields.extend(to.map(|to| (9, to.to_vec())));
        for (stream, next, credit) in &session.streams {
            let value = [&stream.to_le_bytes()[..], &next.to_le_bytes(), &credit.to_le_bytes()].concat();
            fields.push((15, value));
        }
        self.opening(kind, &fields)
    }

    pub(crate) fn reject(&self, code: u16, text: &str) -> Vec<u8> {
        let fields =
            [(32, code.to_le_bytes().to_vec()), (33, text.as_bytes().to_vec()), (3, self.id.to_vec())];
        self.opening(REJECT, &fields)
    }

    /// Who is there?
    pub(crate) fn ask(&self, target: SocketAddr) -> Opening {
        let mut wire = Wire::connect(target);
        wire.say(&self.hello(HELLO, None, &Session::new(0, 0, 0)));
        wire.opening()
    }

    /// Dials and says hello to whoever is there; what comes back.
    pub(crate) fn dial(&self, target: SocketAddr, session: &Session) -> (Wire, Opening) {
        let to = self.asks_as_version_1(target);
        let mut wire = Wire::connect(target);
        wire.say(&self.hello(HELLO, Some(to), session));
        let opening = wire.opening();
        (wire, opening)
    }

    fn asks_as_version_1(&self, target: SocketAddr) -> [u8; 16] {
        let plain = Self { versions: (1, 1), extra: Vec::new(), ..self.clone() };
        let opening = plain.ask(target);
        assert_eq!(opening.code(), WRONG_MEMBER);
        opening.id()
    }

    /// As [`Foreign::dial`]; the link is up, and both have said what they understand.
    pub(crate) fn link(&self, target: SocketAddr, session: &Session, types: &[Type]) -> (Wire, Opening) {
        let (mut wire, answer) = self.dial(target, session);
        assert_eq!(answer.kind, ANSWER, "{answer:?}");
        wire.types(types);
        wire.until(TYPES);
        (wire, answer)
    }

    /// Waits for a dial, and for the hello that means this peer; questions before are answered.
    pub(crate) fn accept(&self, door: &TcpListener) -> (Wire, Opening) {
        loop {
            let mut wire = Wire::at(door);
            let hello = wire.opening();
            assert_eq!(hello.kind, HELLO);
            if hello.field(9) == Some(&self.id[..]) {
                return (wire, hello);
            }
            wire.say(&self.reject(WRONG_MEMBER, "another member is here"));
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A type that it understands, open to anyone.
#[derive(Clone, Debug)]
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) hash: u32,
    pub(crate) version: u16,
    pub(crate) flags: u8,
}

impl Type {
    pub(crate) fn new(name: &str, version: u16) -> Self {
        Self { name: name.to_owned(), hash: hash(name), version, flags: 1 }
    }
}

/// A frame as it came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u16,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// The code of a Close.
    pub(crate) fn code(&self) -> u16 {
        assert_eq!(self.kind, CLOSE, "{self:?}");
        u16::from_le_bytes(self.body[..2].try_into().unwrap())
    }

    /// Of a batch: type and body of each record.
    pub(crate) fn records(&self) -> Vec<(u32, Vec<u8>)> {
        let mut rest = &self.body[..];
        let mut records = Vec::new();
        while let Some((header, after)) = rest.split_at_checked(12) {
            let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
            let (body, next) = after.split_at(length);
            records.push((u32::from_le_bytes(header[8..].try_into().unwrap()), body.to_vec()));
            rest = next;
        }
        records
    }

    /// Of an Ack: stream, accepted and handled.
    fn cursors(&self) -> impl Iterator<Item = (u16, (u64, u64))> + '_ {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        self.body.chunks_exact(26).map(move |entry| {
            (u16::from_le_bytes([entry[0], entry[1]]), (number(&entry[2..10]), number(&entry[10..18])))
        })
    }
}

/// A record; its flags, version, type and body as they are given.
pub(crate) fn record(flags: u16, version: u16, hash: u32, body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32).to_le_bytes().to_vec();
    out.extend(flags.to_le_bytes());
    out.extend(version.to_le_bytes());
    out.extend(hash.to_le_bytes());
    out.extend(body);
    out
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, stream: u16, first: u64, count: u32, body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32).to_le_bytes().to_vec();
    out.extend([kind, 0]);
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

/// The frame that says what is understood.
pub(crate) fn types_frame(types: &[Type]) -> Vec<u8> {
    let mut body = Vec::new();
    for each in types {
        body.extend(0u16.to_le_bytes());
        body.extend(each.hash.to_le_bytes());
        body.extend(each.version.to_le_bytes());
        body.extend([each.flags, each.name.len() as u8]);
        body.extend(each.name.as_bytes());
    }
    frame(TYPES, 0, 0, types.len() as u32, &body)
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Accepted and handled of each stream, as last told: an Ack may come before what a test waits for first, and is not
    /// said twice.
    told: BTreeMap<u16, (u64, u64)>,
}

impl Wire {
    pub(crate) fn connect(target: SocketAddr) -> Self {
        Self::new(TcpStream::connect(target).unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, told: BTreeMap::new() }
    }

    /// Waits for a dial.
    #[track_caller]
    pub(crate) fn at(door: &TcpListener) -> Self {
        door.set_nonblocking(true).unwrap();
        let from = Instant::now();
        loop {
            match door.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Self::new(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(from.elapsed() < DEADLINE, "nobody dialled in time");
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// As [`Wire::say`], where the other side may have closed.
    pub(crate) fn try_say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn read(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came in time"),
            Err(_) => None,
        }
    }

    /// First bytes; `None` at the end of the connection.
    pub(crate) fn try_opening(&mut self) -> Option<Opening> {
        let mut bytes = self.read(8)?;
        assert_eq!(&bytes[..4], b"KRRE");
        let length = u32::from_le_bytes(bytes[4..].try_into().unwrap()) as usize;
        assert!((9..=16 * 1024).contains(&length), "{length}");
        bytes.extend(self.read(length)?);
        let (content, checksum) = bytes.split_at(bytes.len() - 4);
        assert_eq!(crc(content).to_le_bytes(), checksum);
        let short = |at: usize| u16::from_le_bytes(content[at..at + 2].try_into().unwrap());
        let (versions, kind) = ((short(8), short(10)), content[12]);
        let mut fields = Vec::new();
        let mut at = 13;
        while at < content.len() {
            let end = at + 4 + usize::from(short(at + 2));
            fields.push((short(at), content[at + 4..end].to_vec()));
            at = end;
        }
        Some(Opening { versions, kind, fields })
    }

    pub(crate) fn opening(&mut self) -> Opening {
        self.try_opening().expect("an opening comes")
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let header = self.read(24)?;
        assert_eq!(crc(&header[..20]).to_le_bytes(), header[20..]);
        let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        let mut body = Vec::new();
        if length > 0 {
            body = self.read(length)?;
            assert_eq!(crc(&body).to_le_bytes()[..], self.read(4)?);
        }
        let frame = Frame {
            kind: header[4],
            stream: u16::from_le_bytes(header[6..8].try_into().unwrap()),
            first: u64::from_le_bytes(header[8..16].try_into().unwrap()),
            count: u32::from_le_bytes(header[16..20].try_into().unwrap()),
            body,
        };
        if frame.kind == ACK {
            self.told.extend(frame.cursors());
        }
        Some(frame)
    }

    /// Reads until what is read, or was told so far, is what is waited for; pings are answered meanwhile.
    #[track_caller]
    fn until_that(&mut self, what: &str, is: impl Fn(&Self, &Frame) -> bool) -> Frame {
        let from = Instant::now();
        loop {
            let frame = self.frame().unwrap_or_else(|| panic!("the connection ended before {what}"));
            assert!(from.elapsed() < DEADLINE, "{what} did not come in time, other frames did");
            if frame.kind == PING {
                self.say(&self::frame(PONG, 0, 0, 0, &frame.body));
            }
            if is(self, &frame) {
                return frame;
            }
        }
    }

    /// Reads until a frame of this kind comes.
    #[track_caller]
    pub(crate) fn until(&mut self, kind: u8) -> Frame {
        self.until_that(&format!("{kind:#x}"), |_, frame| frame.kind == kind)
    }

    /// Reads until a stream is acknowledged and handled so far, if that was not told yet.
    #[track_caller]
    pub(crate) fn until_handled(&mut self, stream: u16, seq: u64) {
        let is_told = |wire: &Self| wire.told.get(&stream) == Some(&(seq, seq));
        if !is_told(self) {
            self.until_that(&format!("{seq} handled"), |wire, _| is_told(wire));
        }
    }

    /// The other side closes, with this code.
    #[track_caller]
    pub(crate) fn is_closed_with(&mut self, code: u16) {
        let close = self.until(CLOSE);
        assert_eq!(close.code(), code, "{}", String::from_utf8_lossy(&close.body[2..]));
        let from = Instant::now();
        while self.frame().is_some() {
            assert!(from.elapsed() < DEADLINE, "it said Close and goes on");
        }
    }

    pub(crate) fn types(&mut self, types: &[Type]) {
        self.say(&types_frame(types));
    }

    /// Records of one open stream, from this number on.
    pub(crate) fn batch(&mut self, first: u64, records: &[Vec<u8>]) {
        self.say(&frame(BATCH, OPEN_NORMAL, first, records.len() as u32, &records.concat()));
    }

    pub(crate) fn ack(&mut self, accepted: u64, handled: u64) {
        self.say(&ack(accepted, handled));
    }
}

/// An Ack of the open normal stream.
pub(crate) fn ack(accepted: u64, handled: u64) -> Vec<u8> {
    let numbers = [accepted, handled, 1 << 20].map(u64::to_le_bytes).concat();
    frame(ACK, 0, 0, 1, &[&OPEN_NORMAL.to_le_bytes()[..], &numbers].concat())
}
