//! openraft's way out: votes and appends as datagrams that expire, snapshots as byte streams.

use std::future::Future;
use std::sync::Arc;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, RaftLogId, Snapshot, Vote};

use super::house::{Counts, House, Unanswered};
use super::log::{APPEND_BYTES_MAX, APPEND_HEAD_BYTES};
use super::ship;
use super::types::{Server, ServerId, Types};
use super::wire::{self, AppendReply, AppendRequest, Question, Reply};

type Failed = RPCError<ServerId, Server, RaftError<ServerId>>;

/// Makes a way to each server.
#[derive(Debug)]
pub(super) struct Ways(pub(super) Arc<House>);

/// The way to one server.
#[derive(Debug)]
pub(super) struct Way {
    house: Arc<House>,
    to: ServerId,
    address: String,
}

impl RaftNetworkFactory<Types> for Ways {
    type Network = Way;

    async fn new_client(&mut self, to: ServerId, server: &Server) -> Way {
        let _room = self.0.peers.keep(&server.address);
        Way { house: Arc::clone(&self.0), to, address: server.address.clone() }
    }
}

impl Way {
    async fn ask(&self, what: Question, option: &RPCOption) -> Result<Reply, Failed> {
        let asked = self.house.ask(&self.address, Some(self.to), what, option.hard_ttl()).await;
        asked.map_err(|why| self.failed(why))
    }

    /// Always as unreachable: openraft waits before it tries again, and a peer that refuses at once is not asked in a loop.
    fn failed(&self, why: Unanswered) -> Failed {
        if let Unanswered::Refused(refusal) = why {
            tracing::warn!(address = self.address, "asked {:016x}: {refusal}", self.to);
        }
        RPCError::Unreachable(Unreachable::new(&why))
    }

    fn nonsense(&self) -> Failed {
        Counts::add(&self.house.counts.nonsense);
        RPCError::Unreachable(Unreachable::new(&Unanswered::Nonsense))
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        mut rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendReply, Failed> {
        let was_cut = cut(&mut rpc);
        let (vote, before) = (rpc.vote, rpc.prev_log_id);
        let upto = rpc.entries.last().map(|entry| *entry.get_log_id()).or(before);
        match self.ask(Question::Append(rpc), &option).await? {
            Reply::Append(reply) if !wire::is_sound_append_reply(&reply, &vote, before.as_ref()) => {
                Err(self.nonsense())
            }
            // The rest follows at once.
            Reply::Append(AppendReply::Success) if was_cut => Ok(AppendReply::PartialSuccess(upto)),
            Reply::Append(reply) => Ok(reply),
            Reply::Who(_) | Reply::Poll { .. } | Reply::Vote(_) | Reply::Refused(_) => Err(self.nonsense()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<ServerId>,
        option: RPCOption,
    ) -> Result<VoteResponse<ServerId>, Failed> {
        let ours = rpc.vote;
        match self.ask(Question::Vote(rpc), &option).await? {
            Reply::Vote(reply) => {
                if !wire::is_sound_vote_reply(&reply, &ours) {
                    return Err(self.nonsense());
                }
                Ok(reply)
            }
            Reply::Who(_) | Reply::Poll { .. } | Reply::Append(_) | Reply::Refused(_) => Err(self.nonsense()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<ServerId>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<ServerId>, StreamingError<Types, Fatal<ServerId>>> {
        let sending = ship::send(&self.house, &self.address, self.to, vote, snapshot);
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = tokio::time::timeout(option.hard_ttl(), sending) => sent,
        };
        let unreachable = |why: &ship::ShipError| {
            tracing::warn!(address = self.address, "snapshot for {:016x}: {why}", self.to);
            StreamingError::Unreachable(Unreachable::new(why))
        };
        let theirs = match sent {
            Ok(Ok(theirs)) => theirs,
            Ok(Err(why)) => return Err(unreachable(&why)),
            Err(_) => return Err(unreachable(&ship::ShipError::Late)),
        };
        if theirs != vote && !wire::is_higher(&theirs, &vote) {
            return Err(StreamingError::Network(NetworkError::new(&Unanswered::Nonsense)));
        }
        Ok(SnapshotResponse::new(theirs))
    }

    /// As often as it would send a sign of life.
    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.house.config.heartbeat))
    }
}

/// Takes away what does not fit into one datagram. The first entry always does.
fn cut(rpc: &mut AppendRequest) -> bool {
    let mut bytes = APPEND_HEAD_BYTES;
    let fits = rpc.entries.iter().take_while(|entry| {
        let size = postcard::serialize_with_flavor(*entry, postcard::ser_flavors::Size::default());
        bytes = bytes.saturating_add(size.unwrap_or(usize::MAX));
        bytes <= APPEND_BYTES_MAX
    });
    let fits = fits.count().max(1);
    let was_cut = fits < rpc.entries.len();
    rpc.entries.truncate(fits);
    was_cut
}
