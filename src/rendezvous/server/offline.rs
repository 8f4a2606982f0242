//! What is done to a data directory while no server runs on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use bytes::Bytes;

use super::builder::{ServerBuilder, ServerError};
use super::machine::Applied;
use crate::rendezvous::raft::{
    Alone, Identity, Place, SnapshotFile, StoreError, copy, recover, restore, survey,
};
use crate::rendezvous::state::{Op, encode};
use crate::{Endpoint, Messenger};

/// A server that is the only one of its cluster from its next start on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnlyServer {
    /// Where nodes and servers that are added will reach it.
    pub address: String,
    /// The servers of the cluster of before, which have no place in this one: their data directories are worth nothing any more.
    pub lost: Vec<String>,
}

impl ServerBuilder {
    /// Instead of a start: makes the server of the data directory the only one of its cluster, for when more than half of the servers are
    /// lost for good. What reached this disk is kept; history goes on in a higher generation. Others are added as new ones then.
    ///
    /// Never while a majority lives: two clusters would decide.
    ///
    /// # Errors
    ///
    /// [`ServerError::Data`]: there is no server's directory, a server runs on it, or the disk fails. Nothing has changed.
    pub async fn recover(mut self) -> Result<OnlyServer, ServerError> {
        let names = self.names();
        let found = survey(self.disk()?, &names).await.map_err(data)?;
        let me = found.identity.server;
        let known = found.servers.get(&me).map(|place| place.address.clone());
        let address = match (&self.advertised(), known) {
            (Some(address), _) => address.clone(),
            (None, Some(known)) => known,
            (None, None) => self.of_bind()?,
        };
        let others = found.servers.iter().filter(|(id, _)| **id != me);
        let lost = others.map(|(_, place)| place.address.clone()).collect();
        let alone = alone(&address).await?;
        recover(self.disk()?, &names, alone).await.map_err(data)?;
        Ok(OnlyServer { address, lost })
    }

    /// Instead of a start: writes all that the data directory holds into a snapshot file, also what was not decided; nothing in the directory
    /// changes. Returns up to which place of the log that is.
    ///
    /// # Errors
    ///
    /// [`ServerError::Data`]: there is no server's directory, a server runs on it, or a disk fails. What stood at `file` before
    /// stands there still.
    pub async fn copy_to(mut self, file: impl AsRef<Path>) -> Result<u64, ServerError> {
        let names = self.names();
        let copied = copy(self.disk()?, &names, Applied::default()).await.map_err(data)?;
        // Nobody else waits for this process.
        copied.write(file.as_ref()).map_err(data)?;
        Ok(copied.upto().index)
    }

    /// Instead of a start: puts a snapshot into the data directory, which must be empty, of a server that is the only one of a new
    /// cluster. History goes on from the snapshot in a higher generation.
    ///
    /// # Errors
    ///
    /// [`ServerError::Data`]: the file is no snapshot, or of another network; the directory is not empty, or the disk fails. Nothing
    /// has changed.
    pub async fn restore(mut self, snapshot: impl AsRef<Path>) -> Result<OnlyServer, ServerError> {
        // A file of a snapshot's size is read at once; nobody else waits for this process.
        let file = SnapshotFile::read(snapshot.as_ref()).map_err(data)?;
        let address = match self.advertised() {
            Some(address) => address,
            None => self.of_bind()?,
        };
        let chance = chance().await?;
        let (alone, names) = (alone(&address).await?, self.names());
        // Numbers of servers have 64 bits.
        let fresh_id = (chance ^ (chance >> 64)) as u64;
        restore(self.disk()?, &names, file, fresh_id, alone).await.map_err(data)?;
        Ok(OnlyServer { address, lost: Vec::new() })
    }

    /// Where it is reached if nobody says so: alone, it need not be reached from other machines.
    fn of_bind(&self) -> Result<String, ServerError> {
        match self.any_host() {
            Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()),
            None => Ok(self.bound().parse::<Endpoint>()?.to_string()),
        }
    }
}

fn data(why: StoreError) -> ServerError {
    ServerError::Data(why.to_string())
}

/// 128 bits that no other run has: what a messenger draws as its id. It binds nothing.
async fn chance() -> Result<u128, ServerError> {
    let messenger = Messenger::builder().start().await?;
    let id = messenger.id();
    messenger.close().await;
    Ok(u128::from_be_bytes(id.to_bytes()))
}

async fn alone(address: &str) -> Result<Alone<impl FnOnce(&Identity) -> Bytes + use<>>, ServerError> {
    let me = Place { address: address.to_owned() };
    let command = |_: &Identity| encode(&[Op::Recover { above: 0 }]);
    Ok(Alone { me, cluster: chance().await?, command })
}
