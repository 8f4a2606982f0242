//! A server of openraft's without others, over a store.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, ClientWriteResponse, SnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{AnyError, Config, OptionalSend, Raft, Vote};

use super::{Diary, Disk, ME, Store, StoreError, names};
use crate::Messenger;
use crate::rendezvous::raft::tasks::Context;
use crate::rendezvous::raft::types::{Command, Server, ServerId, Types};

/// How long a test waits for what is certain to come.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

/// Nobody is there.
#[derive(Clone, Copy, Debug)]
struct Nobody;

type RpcError = RPCError<ServerId, Server, RaftError<ServerId>>;

fn nobody() -> Unreachable {
    Unreachable::new(&AnyError::error("nobody is there"))
}

impl RaftNetworkFactory<Types> for Nobody {
    type Network = Self;

    async fn new_client(&mut self, _target: ServerId, _node: &Server) -> Self {
        *self
    }
}

impl RaftNetwork<Types> for Nobody {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<ServerId>, RpcError> {
        Err(nobody().into())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<ServerId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<ServerId>, RpcError> {
        Err(nobody().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote<ServerId>,
        _snapshot: Snapshot<Types>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<ServerId>, StreamingError<Types, Fatal<ServerId>>> {
        Err(nobody().into())
    }
}

pub(super) struct Single {
    /// Its tasks run on this messenger's.
    _messenger: Messenger,
    pub(super) store: Store,
    pub(super) diary: Diary,
    pub(super) raft: Raft<Types>,
}

pub(super) fn me() -> Server {
    Server { address: "here:7500".to_owned() }
}

impl Single {
    pub(super) async fn start(disk: Disk) -> Result<Self, StoreError> {
        let store = Store::open(disk, &names(), ME).await?;
        let diary = Diary::default();
        let (log, machine) = store.clone().into_parts(diary.clone()).await?;
        let config = Config {
            heartbeat_interval: 20,
            election_timeout_min: 50,
            election_timeout_max: 90,
            max_in_snapshot_log_to_keep: 5,
            ..Config::default()
        };
        let messenger = Messenger::builder().start().await.unwrap();
        let context = Context::new(messenger.spawner(), 1);
        let raft = Raft::new(store.server(), Arc::new(config), Nobody, log, machine);
        let raft = context.scope(raft).await.unwrap();
        Ok(Self { _messenger: messenger, store, diary, raft })
    }

    /// The first of its cluster.
    pub(super) async fn found(&self) {
        self.raft.initialize(BTreeMap::from([(self.store.server(), me())])).await.unwrap();
    }

    pub(super) async fn leads(&self) {
        let id = self.store.server();
        self.raft.wait(PATIENCE).metrics(|seen| seen.current_leader == Some(id), "it leads").await.unwrap();
    }

    pub(super) async fn write(
        &self,
        command: Vec<u8>,
    ) -> Result<ClientWriteResponse<Types>, Option<Fatal<ServerId>>> {
        let written = self.raft.client_write(Command(Bytes::from(command))).await;
        written.map_err(|error| error.into_fatal())
    }

    pub(super) async fn snapshot_upto(&self, index: u64) {
        self.raft.trigger().snapshot().await.unwrap();
        let taken = move |seen: &openraft::RaftMetrics<ServerId, Server>| {
            seen.snapshot.is_some_and(|at| at.index >= index)
        };
        self.raft.wait(PATIENCE).metrics(taken, "a snapshot").await.unwrap();
    }

    pub(super) async fn stop(self) {
        self.raft.shutdown().await.unwrap();
    }
}
