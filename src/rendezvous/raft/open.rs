//! How a log begins.

use std::sync::Arc;

use openraft::Raft;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::config::{ConfigFault, LogConfig};
use super::founding::{self, Founding};
use super::house::{ANSWERING_MAX, Counts, House, PROPOSING_MAX};
use super::lease::Leases;
use super::log::Log;
use super::machine::Machine;
use super::network::Ways;
use super::peers::Peers;
use super::standing::Standing;
use super::store::{Store, StoreError};
use super::tasks::Context;
use super::{elections, serving, ship, watch as watching};
use crate::{HandlerError, Messenger};

/// Why a log did not begin. Nothing is left running; the store is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigFault),
    /// The disk failed, or the machine does not understand its snapshot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The messenger serves a log already.
    #[error(transparent)]
    Handlers(#[from] HandlerError),
    /// What is in the store does not fit together.
    #[error("the log does not begin: {0}")]
    Raft(String),
}

impl Log {
    /// Takes part in a log, with what the store holds, or nothing. The messenger should install no view, and take no byte streams but those of
    /// the log. `seed` is all its chance.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is left running.
    pub(crate) async fn open<M: Machine>(
        messenger: &Messenger,
        store: Store,
        machine: M,
        config: LogConfig,
        seed: u64,
    ) -> Result<Self, OpenError> {
        config.check()?;
        let house = house(messenger, store, config, seed);
        // Dropped on the way, it ends what it began.
        let log = Self { house };
        let house = &log.house;
        let (entries, machine) = house.store.clone().into_parts(machine).await?;
        let name = format!("{:016x}", house.me);
        let config = house.config.for_openraft(name).map_err(OpenError::Raft)?;
        let ways = Ways(Arc::clone(house));
        let raft = Raft::new(house.me, Arc::new(config), ways, entries, machine);
        let raft = house.context.scope(raft).await.map_err(|why| OpenError::Raft(why.to_string()))?;
        let is_initialized = raft.is_initialized().await.map_err(|why| OpenError::Raft(why.to_string()))?;
        if is_initialized && house.cluster().is_none() {
            // It crashed while it founded one, and nobody knows of it.
            house.store.set_cluster(founding::draw(house)).await?;
            house.founding.send_replace(Founding::Over);
        }
        let _first = house.raft.set(raft.clone());
        serving::listen(house)?;
        house.context.spawn(watching::run(Arc::clone(house), raft.metrics()));
        house.context.spawn(elections::run(Arc::clone(house)));
        house.context.spawn(ship::accept(Arc::clone(house)));
        house.context.spawn(founding::run(Arc::clone(house)));
        Ok(log)
    }
}

fn house(messenger: &Messenger, store: Store, config: LogConfig, seed: u64) -> Arc<House> {
    let context = Context::new(messenger.spawner(), seed);
    let me = store.server();
    let waits = match (store.identity().cluster, config.join) {
        (Some(_), _) => Founding::Over,
        (None, true) => Founding::WaitsToBeAdded,
        (None, false) => Founding::Waits(config.others()),
    };
    let standing = match &waits {
        Founding::Over => Standing::Follower { term: 0, leader: None },
        Founding::WaitsToBeAdded => Standing::NotMember,
        Founding::Waits(missing) => Standing::Founding { missing: missing.clone() },
    };
    Arc::new(House {
        me,
        leases: Mutex::new(Leases::new(me, config.lease())),
        peers: Peers::new(messenger.clone(), context.clone()),
        messenger: messenger.clone(),
        config,
        context,
        store,
        raft: std::sync::OnceLock::new(),
        questions: Mutex::default(),
        leaders: Mutex::default(),
        standing: watch::Sender::new(standing),
        founding: watch::Sender::new(waits),
        joining: tokio::sync::Mutex::default(),
        changing: tokio::sync::Mutex::default(),
        answering: Arc::new(Semaphore::new(ANSWERING_MAX)),
        proposing: Semaphore::new(PROPOSING_MAX),
        counts: Counts::default(),
    })
}
