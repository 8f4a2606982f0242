//! Every bound of karere in one place: value, unit, reason, and how they hold together.
//!
//! What a user may want to change has its default here and its checked value in [`crate::config`]; what is part of
//! the protocol cannot be changed.

use std::time::Duration;

/// One kibibyte.
pub(crate) const KIB: usize = 1024;
/// One mebibyte.
pub(crate) const MIB: usize = 1024 * KIB;

// ---- the wire ----

/// The first bytes of a connection, magic and length not counted. Frozen (docs/PROTOCOL.md, First bytes).
pub(crate) const HELLO_BYTES_MAX: usize = 16 * KIB;
/// The body of one frame. Larger is refused before a byte of it is read, so that a corrupt length costs nothing.
pub(crate) const FRAME_BYTES_MAX: usize = MIB;
/// A batch is sealed when it would grow beyond this: the knee of the curve in shared/PEERS.md ("What mattered").
pub(crate) const BATCH_BYTES: usize = 64 * KIB;
/// Records in one batch; bounds the work of one frame also when bodies are empty.
pub(crate) const BATCH_RECORDS_MAX: u32 = 8 * 1024;
/// The body of one chunk of a large message. With its record header it stays below the frame limit.
pub(crate) const CHUNK_BYTES: usize = 64 * KIB;
/// A body from this size on travels in a frame of its own and is shared, not copied.
pub(crate) const OWN_FRAME_BYTES: usize = 4 * KIB;
/// Bytes of a datagram: its record header and body.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 32 * KIB;
/// Protocols in one hello.
pub(crate) const PROTOCOLS_MAX: usize = 32;
/// Streams in one session: classes, open or not, of each protocol.
pub(crate) const STREAMS_MAX: usize = PROTOCOLS_MAX * 6;
/// Length of a member's name, in bytes: it is bound to a certificate's subject name (255, RFC 5280's ub-name order).
pub(crate) const MEMBER_NAME_BYTES_MAX: usize = 255;
/// Length of an environment's or network's name, in bytes.
pub(crate) const NETWORK_NAME_BYTES_MAX: usize = 255;
/// Endpoints a member may advertise; a dial tries them in turn, so more would only be slow.
pub(crate) const ENDPOINTS_MAX: usize = 8;
/// Labels of a member.
pub(crate) const LABELS_MAX: usize = 64;
/// Name of a message type, in bytes: its length is one byte on the wire.
pub(crate) const TYPE_NAME_BYTES_MAX: usize = 255;
/// Types one process may understand: with names of full length they fit one `Types` frame.
pub(crate) const TYPES_MAX: usize = 3 * 1024;
/// Text of a refusal or close, in bytes.
pub(crate) const CLOSE_TEXT_BYTES_MAX: usize = 512;

// ---- flow and memory, defaults ----

/// Credit a receiver grants per stream beyond what is handled: about the best window on loopback (shared/PEERS.md).
pub(crate) const CREDIT_BYTES: u64 = MIB as u64;
/// The smallest credit: one whole chunk with its headers must pass.
pub(crate) const CREDIT_BYTES_MIN: u64 = 2 * CHUNK_BYTES as u64;
/// The largest message `send` takes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * MIB;
/// What one process holds for all its destinations.
pub(crate) const PROCESS_BYTES: usize = 256 * MIB;
/// What a destination may always hold, link or no link.
pub(crate) const RESERVE_BYTES: usize = 64 * KIB;
/// What a destination may hold at most while its link is up and the process has room: a credit in flight and as much
/// that waits. More only leaves the cache (64 B messages: 8 MiB gave .34 of framed, 2 MiB .36).
pub(crate) const QUEUE_BYTES: usize = 2 * MIB;
/// What replies from inside handlers may take beyond a full queue, for each destination.
pub(crate) const REPLY_RESERVE_BYTES: usize = 64 * KIB;
/// What a queued record costs beside its bytes (bookkeeping), so that empty messages are not free.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 16;
/// What a message with a time to live or a key costs beside that: its mark in the batch, its place among the keys.
pub(crate) const MARK_OVERHEAD_BYTES: usize = 144;
/// What reassembly of messages larger than the ordinary credit may take in one process: one of the largest fits.
pub(crate) const REASSEMBLY_BYTES: usize = 128 * MIB;
/// Bytes offered to one write; small, because what the kernel holds cannot be overtaken.
pub(crate) const WRITE_BYTES: usize = 256 * KIB;
/// On a link slower than that (25 MB/s) a write is offered what the link takes within this, at least one batch: below what
/// such a path takes for one chunk, above what a busy machine takes to wake a task.
pub(crate) const WRITE_TIME: Duration = Duration::from_millis(10);
/// Unsent bytes the kernel may hold (`TCP_NOTSENT_LOWAT`): one write's worth keeps the pipe full.
pub(crate) const NOTSENT_BYTES: u32 = 128 * KIB as u32;
/// Read buffer of a link that is busy; an idle one holds none.
pub(crate) const READ_BYTES: usize = 256 * KIB;
/// What a busy link under TLS reads from its socket at once; an idle one holds none.
#[cfg(feature = "tls")]
pub(crate) const TLS_READ_BYTES: usize = 64 * KIB;
/// Free buffers of `BATCH_BYTES` kept for reuse in one process.
pub(crate) const POOL_BUFFERS: usize = 64;
/// Bytes of lower classes pass after this many of higher ones, so that strict priority starves nobody.
pub(crate) const STARVATION_BYTES: usize = MIB;

// ---- datagrams and probes ----

/// Frame bytes of datagrams that wait to be written to one peer: two of the largest, or one round of votes many times.
/// More than that is old news before it is written.
pub(crate) const DATAGRAM_QUEUE_BYTES: usize = 64 * KIB + KIB;
/// Datagrams that wait to be written to one peer.
pub(crate) const DATAGRAM_QUEUE_MAX: usize = 256;
/// Record bytes of received datagrams that wait for one handler; as many as may wait to be written.
pub(crate) const DATAGRAM_LANE_BYTES: usize = 64 * KIB;
/// Received datagrams that wait for one handler.
pub(crate) const DATAGRAM_LANE_MAX: usize = 256;
/// A probe skips the wait for the next dial at most once in this: probing in a loop is one dial a second more.
pub(crate) const PROBE_DIALS_APART: Duration = Duration::from_secs(1);

// ---- acknowledgements ----

/// A share of the credit: so many bytes received are acknowledged at once.
pub(crate) const ACK_SHARE: u64 = 4;
/// So many records received are acknowledged at once.
pub(crate) const ACK_RECORDS: u64 = 64 * 1024;
/// At the latest after this an acknowledgement goes alone.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(20);

// ---- time, defaults ----

/// A link idle for so long is pinged.
pub(crate) const PING: Duration = Duration::from_millis(1500);
/// A link silent for so long is dead: three pings may be lost.
pub(crate) const LIVENESS: Duration = Duration::from_secs(5);
/// From connected to answered.
pub(crate) const HELLO: Duration = Duration::from_secs(3);
/// TCP_USER_TIMEOUT, in liveness times. Linux counts it from the first loss that is not made good (`retransmits_timed_out` in
/// `net/ipv4/tcp_timer.c`), not from the last acknowledgement: at one liveness time it ended links that a slow line with losses
/// filled, though their bytes arrived (the lab's slow line, 6 of 24 runs). Pings and the deadline of a write find a dead link
/// before; this is for what the kernel still sends of connections that are closed.
pub(crate) const USER_TIMEOUT_LIVENESSES: u32 = 4;
/// From dialled to connected. Shorter than liveness: a lost SYN is sent again by TCP after 1 s.
pub(crate) const CONNECT: Duration = Duration::from_secs(3);
/// Between two attempts to connect to addresses of one name (RFC 8305, section 5: its recommendation).
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried in one dial: more than fit into [`CONNECT`], one each [`ATTEMPT_DELAY`].
pub(crate) const ADDRESSES_MAX: usize = 16;
/// Names that are looked up at the same time: each blocks a thread, of which tokio has 512 for the whole process.
pub(crate) const LOOKUPS_MAX: usize = 128;
/// The first redial comes within this.
pub(crate) const REDIAL_MIN: Duration = Duration::from_millis(50);
/// Redials are at most this far apart.
pub(crate) const REDIAL_MAX: Duration = Duration::from_secs(5);
/// A contact gives up after this, if nobody was ever met there.
pub(crate) const CONTACT_GIVE_UP: Duration = Duration::from_secs(30);
/// How long the accepting side keeps a session that has no link and no other reason.
pub(crate) const RESUME_LEASE: Duration = Duration::from_secs(60);
/// A link that carried nothing for so long is closed, if nobody holds it by a contact; the next message dials again.
pub(crate) const IDLE: Duration = Duration::from_secs(5 * 60);
/// Links up before the most idle ones go: what a process with the customary 1024 descriptors comes near to.
pub(crate) const LINKS_MAX: usize = 1024;
/// Sessions kept by a lease alone.
pub(crate) const LEASES_MAX: usize = 4096;
/// A refused connection is read to its end for at most this, so that the refusal is not destroyed by a reset.
pub(crate) const REFUSAL_LINGER: Duration = Duration::from_secs(1);
/// Something waits for a peer's credit for so long: its handlers are behind. Far above what a round trip and a delayed
/// acknowledgement take.
pub(crate) const SLOW: Duration = Duration::from_secs(1);
/// A record is not acknowledged for so long: the liveness time, so that a lost link is replaced first.
pub(crate) const STUCK: Duration = LIVENESS;
/// A peer is dialled in vain for so long: one dial that hangs and one that is refused after it.
pub(crate) const UNREACHABLE: Duration = Duration::from_secs(5);
/// Protocol errors in a row, without progress, until `Misbehaving` is reported.
pub(crate) const ERRORS_UNTIL_MISBEHAVING: u32 = 3;

// ---- views ----

/// Members that are gone for good and still remembered by id; who is forgotten is judged by the view in which it joined.
pub(crate) const GONE_MAX: usize = 4096;
/// What is held of one peer that has joined and is in no view here yet, in record bytes: a stream's whole credit.
pub(crate) const QUARANTINE_BYTES: usize = MIB;
/// The same for all peers of a process.
pub(crate) const QUARANTINE_PROCESS_BYTES: usize = 64 * MIB;
/// How long it is held; then the link closes, and the sender keeps it.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(30);
/// How long last words to a member that a view removed may take, until the connection is reset: well below 100 ms.
pub(crate) const REMOVAL_LINGER: Duration = Duration::from_millis(20);

// ---- before authentication ----

/// Handshakes under way in one process.
pub(crate) const HANDSHAKES_MAX: usize = 1024;
/// Handshakes under way from one address.
pub(crate) const HANDSHAKES_PER_ADDRESS_MAX: usize = 128;

// ---- byte streams ----

/// Window of one byte stream: what its reader has not taken yet.
pub(crate) const BYTES_WINDOW: u64 = 512 * KIB as u64;
/// Byte streams open in one session.
pub(crate) const BYTE_STREAMS_MAX: usize = 1024;
/// Byte streams opened by peers and not yet accepted by the application.
pub(crate) const BYTE_STREAM_BACKLOG: usize = 128;
/// Bytes of one data record of a byte stream.
pub(crate) const BYTES_RECORD_MAX: usize = 32 * KIB;

// ---- requests ----

/// Requests to one member that wait for their replies: some 4 MiB of bookkeeping.
pub(crate) const REQUESTS_PENDING_MAX: usize = 16 * 1024;
/// Requests of one sender and class that wait for their handlers; more are refused as busy. As many small ones fit as
/// their sender may have under way.
pub(crate) const REQUEST_BACKLOG_BYTES: usize = 4 * MIB;
/// As above, of requests made inside request handlers, for each depth: each of them has somebody waiting, so they are few.
pub(crate) const REQUEST_NESTED_BACKLOG_BYTES: usize = 512 * KIB;
/// What a waiting request costs beside its bytes.
pub(crate) const REQUEST_OVERHEAD_BYTES: usize = 160;
/// How deep request handlers may call request handlers. Each depth has a lane of its own, or two members that ask
/// each other inside handlers would wait for each other.
pub(crate) const REQUEST_DEPTH_MAX: u8 = 8;
/// Refusals of requests that wait for room; beyond it their askers run into their timeout.
pub(crate) const REQUEST_REFUSALS_MAX: usize = 4 * 1024;

// ---- flush ----

/// Sessions of one member that are over and still known by their epochs.
pub(crate) const LEDGER_SESSIONS: usize = 8;
/// Members of which it is known how far what they sent is handled; those that are gone and done go first.
pub(crate) const LEDGER_MEMBERS_MAX: usize = 2 * LEASES_MAX;

// ---- events ----

/// Events waiting for a slow subscriber; beyond it those of a kind and peer coalesce, and then the oldest go and are
/// counted.
pub(crate) const EVENTS_MAX: usize = 1024;
/// Subscribers to events: each event is put into the queue of each.
pub(crate) const SUBSCRIBERS_MAX: usize = 64;
/// Members that were said to be where a peer was: two for each of its addresses.
pub(crate) const REPLACED_NOTED: usize = 2 * ENDPOINTS_MAX;

// ---- the blocking API ----

/// Listeners to events that threads may have; the oldest ends when another comes. A forgotten one costs a task until the
/// next event, so they are counted.
pub(crate) const LISTENERS_MAX: usize = 32;
/// Work that waits for one handler's thread, each from another sender and stream; who comes later waits with it.
pub(crate) const JOBS_MAX: usize = 64;
/// A full channel is looked at again after this, for readers that keep what they take and so say nothing of room.
pub(crate) const ROOM_RECHECK: Duration = Duration::from_millis(20);
/// How long closing waits for threads; then they are left to themselves. Only a handler that does not return is slower.
pub(crate) const THREADS_JOIN: Duration = Duration::from_secs(2);

const _: () = assert!(BATCH_BYTES + 4 * KIB <= FRAME_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES + 4 * KIB <= FRAME_BYTES_MAX);
const _: () = assert!(CREDIT_BYTES_MIN >= (CHUNK_BYTES + KIB) as u64, "a chunk and its headers must pass");
const _: () = assert!(CREDIT_BYTES >= CREDIT_BYTES_MIN);
const _: () = assert!(STREAMS_MAX * 22 + 6 * KIB <= HELLO_BYTES_MAX, "a hello with every stream fits");
const _: () = assert!(TYPES_MAX * (TYPE_NAME_BYTES_MAX + 10) <= FRAME_BYTES_MAX);
const _: () = assert!(OWN_FRAME_BYTES <= CHUNK_BYTES && BYTES_RECORD_MAX <= CHUNK_BYTES);
const _: () = assert!(DATAGRAM_QUEUE_BYTES >= DATAGRAM_BYTES_MAX + 64, "the largest fits with its frame");
const _: () = assert!(DATAGRAM_QUEUE_BYTES <= WRITE_BYTES / 2, "batches get room in the same write");
const _: () = assert!(DATAGRAM_LANE_BYTES >= DATAGRAM_BYTES_MAX);
const _: () = assert!(REASSEMBLY_BYTES >= MESSAGE_BYTES_MAX);
const _: () = assert!(RESERVE_BYTES <= QUEUE_BYTES && QUEUE_BYTES <= PROCESS_BYTES);
const _: () = assert!(REQUESTS_PENDING_MAX * (REQUEST_OVERHEAD_BYTES + 64) <= REQUEST_BACKLOG_BYTES);
const _: () = assert!(PING.as_millis() * 3 <= LIVENESS.as_millis());
const _: () =
    assert!(QUARANTINE_BYTES as u64 >= CREDIT_BYTES && QUARANTINE_BYTES <= QUARANTINE_PROCESS_BYTES);
const _: () = assert!(UNREACHABLE.as_millis() >= CONNECT.as_millis());
const _: () = assert!(ADDRESSES_MAX as u128 * ATTEMPT_DELAY.as_millis() >= CONNECT.as_millis());
const _: () = assert!(LISTENERS_MAX < SUBSCRIBERS_MAX, "each of them is one");
const _: () = assert!(HANDSHAKES_PER_ADDRESS_MAX <= HANDSHAKES_MAX);
