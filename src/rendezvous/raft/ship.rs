//! Snapshots on their way: a reliable byte stream each, with its length and checksum before it, and one answer. Never more in memory than has
//! come, never more than [`SNAPSHOT_BYTES_MAX`].

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::{Snapshot, SnapshotMeta, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::config::SNAPSHOT_TIME;
use super::house::House;
use super::types::{Server, ServerId, Types};
use super::wire::{self, Refusal};
use crate::{ByteStream, MemberId};

const NAME: &str = "karere.raft.snapshot";
/// The largest that is sent or taken: a hundred times what the state of a thousand members needs.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What stands before it: a membership, above all.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// The answer.
const ANSWER_BYTES_MAX: u32 = 1024;
/// At once, from anybody.
const RECEIVING_MAX: usize = 2;
/// Without a byte for so long it is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two looks at who is at the address.
const LOOK: Duration = Duration::from_millis(100);
/// Read at once.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Head {
    cluster: u128,
    from: ServerId,
    to: ServerId,
    vote: Vote<ServerId>,
    meta: SnapshotMeta<ServerId, Server>,
    bytes: u64,
    checksum: u32,
}

/// What the receiver's vote is now, or why it took nothing.
type Answer = Result<Vote<ServerId>, Refusal>;

/// A snapshot did not get there. Nothing has changed there, or all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShipError {
    /// Nobody was met at the address yet, or the session is gone.
    #[error("no stream: {0}")]
    NoStream(String),
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("{0} bytes; at most {SNAPSHOT_BYTES_MAX}")]
    TooLarge(u64),
    #[error("the other side says nonsense")]
    Nonsense,
    #[error("not there in time")]
    Late,
}

// ---- out ----

/// Sends a snapshot to whoever is at an address. Dropped, it is aborted there as well.
pub(super) async fn send(
    house: &House,
    address: &str,
    to: ServerId,
    vote: Vote<ServerId>,
    snapshot: Snapshot<Types>,
) -> Result<Vote<ServerId>, ShipError> {
    let nobody = || ShipError::NoStream("nobody was met there".to_owned());
    let (member, cluster) = house.peers.at(address).zip(house.cluster()).ok_or_else(nobody)?;
    let bytes = snapshot.snapshot.len() as u64;
    if bytes > SNAPSHOT_BYTES_MAX {
        return Err(ShipError::TooLarge(bytes));
    }
    let checksum = crc32c::crc32c(&snapshot.snapshot);
    let head = Head { cluster, from: house.me, to, vote, meta: snapshot.meta, bytes, checksum };
    let sending = async {
        let opened = house.messenger.open_stream(member, NAME).await;
        let mut stream = opened.map_err(|why| ShipError::NoStream(why.to_string()))?;
        write(&mut stream, &head).await?;
        stream.write_all(&snapshot.snapshot).await?;
        stream.shutdown().await?;
        let answer: Answer = read(&mut stream, ANSWER_BYTES_MAX).await?;
        answer.map_err(ShipError::Refused)
    };
    tokio::select! {
        biased;
        sent = sending => sent,
        () = replaced(house, address, member) => Err(ShipError::NoStream("another process is there now".to_owned())),
    }
}

/// Ends when another process is at the address. The session with the one before may outlive it by a lease, and the stream with it.
async fn replaced(house: &House, address: &str, member: MemberId) {
    while house.peers.at(address) == Some(member) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn write<T: Serialize>(stream: &mut ByteStream, value: &T) -> Result<(), ShipError> {
    let body = postcard::to_stdvec(value).map_err(|_| ShipError::Nonsense)?;
    let length = u32::try_from(body.len()).map_err(|_| ShipError::Nonsense)?;
    stream.write_all(&length.to_le_bytes()).await?;
    stream.write_all(&body).await?;
    Ok(())
}

async fn read<T: DeserializeOwned>(stream: &mut ByteStream, most: u32) -> Result<T, ShipError> {
    let length = stream.read_u32_le().await?;
    if length > most {
        return Err(ShipError::Nonsense);
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    postcard::from_bytes(&body).map_err(|_| ShipError::Nonsense)
}

// ---- in ----

/// Takes byte streams as long as the log lives: none but its own come to this messenger.
pub(super) async fn accept(house: Arc<House>) {
    let room = Arc::new(Semaphore::new(RECEIVING_MAX));
    while let Some(stream) = house.messenger.accept_stream().await {
        if stream.name() != NAME {
            stream.abort("this server takes snapshots only");
            continue;
        }
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            stream.abort("busy with other snapshots");
            continue;
        };
        let receiving = Arc::clone(&house);
        house.context.spawn(async move {
            let took = tokio::time::timeout(SNAPSHOT_TIME, receiving.receive(stream)).await;
            if let Err(why) = took.unwrap_or(Err(ShipError::Late)) {
                tracing::warn!("a snapshot was not taken: {why}");
            }
            drop(permit);
        });
    }
}

impl House {
    async fn receive(&self, mut stream: ByteStream) -> Result<(), ShipError> {
        let answer = match self.take(&mut stream).await {
            Err(ShipError::Refused(why)) => Err(why),
            Err(why) => return Err(why),
            Ok(vote) => Ok(vote),
        };
        write(&mut stream, &answer).await?;
        stream.shutdown().await?;
        answer.map(drop).map_err(ShipError::Refused)
    }

    async fn take(&self, stream: &mut ByteStream) -> Result<Vote<ServerId>, ShipError> {
        let head: Head = within(read(stream, HEAD_BYTES_MAX)).await?;
        self.check_head(&head).await.map_err(ShipError::Refused)?;
        let body = read_body(stream, head.bytes).await?;
        if crc32c::crc32c(&body) != head.checksum {
            return Err(ShipError::Nonsense);
        }
        let raft = self.raft().ok_or(ShipError::Refused(Refusal::Stopped))?;
        let snapshot = Snapshot { meta: head.meta, snapshot: Box::new(body) };
        let installed = raft.install_full_snapshot(head.vote, snapshot).await;
        installed.map(|done| done.vote).map_err(|_| ShipError::Refused(Refusal::Stopped))
    }

    async fn check_head(&self, head: &Head) -> Result<(), Refusal> {
        if head.to != self.me || head.from == self.me {
            return Err(Refusal::WrongServer { is: self.me });
        }
        let is_sound = head.bytes <= SNAPSHOT_BYTES_MAX
            && wire::is_sound_leader(&head.vote, head.from)
            && wire::is_sound_snapshot(&head.meta, &head.vote);
        if !is_sound {
            return Err(Refusal::Nonsense);
        }
        self.join_cluster(head.cluster).await.map_err(|_| Refusal::Stopped)?;
        if self.cluster() != Some(head.cluster) {
            return Err(Refusal::WrongCluster);
        }
        if self.leads_alone(&head.vote) { Ok(()) } else { Err(Refusal::Nonsense) }
    }
}

async fn within<T>(reading: impl Future<Output = Result<T, ShipError>>) -> Result<T, ShipError> {
    tokio::time::timeout(SILENCE, reading).await.unwrap_or(Err(ShipError::Late))
}

/// Exactly so many, and the end.
async fn read_body(stream: &mut ByteStream, bytes: u64) -> Result<Bytes, ShipError> {
    let mut body = BytesMut::new();
    loop {
        body.reserve(PIECE_BYTES);
        let read = within(async { Ok(stream.read_buf(&mut body).await?) }).await?;
        let is_whole = body.len() as u64 == bytes;
        if read == 0 {
            return if is_whole { Ok(body.freeze()) } else { Err(ShipError::Nonsense) };
        }
        if body.len() as u64 > bytes {
            return Err(ShipError::Nonsense);
        }
    }
}

/// A door for the fuzzer: what stands before a snapshot.
#[cfg(any(test, feature = "testing"))]
pub(super) mod door {
    use super::{Head, SNAPSHOT_BYTES_MAX, wire};

    pub(in crate::rendezvous::raft) fn head(bytes: &[u8]) {
        let Some(head) = crate::rendezvous::door::stable::<Head>(bytes) else { return };
        let is_sound = wire::is_sound_leader(&head.vote, head.from)
            && wire::is_sound_snapshot(&head.meta, &head.vote)
            && head.bytes <= SNAPSHOT_BYTES_MAX;
        if is_sound {
            let membership = head.meta.last_membership.membership();
            assert!(membership.voter_ids().count() > 0, "somebody votes");
            assert!(
                head.meta.last_log_id.is_some_and(|last| last.leader_id.term <= head.vote.leader_id().term)
            );
        }
    }
}
