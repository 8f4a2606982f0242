//! The first beginning of a cluster, by servers that know nothing but a list of addresses.
//!
//! Each draws its number once. When one with an empty store has met all that are on its list, all of them are empty as well and have
//! a list as long, the one with the lowest number draws the cluster's and begins the log with all of them. All, not a majority: a
//! majority that does not know of the rest cannot know that the rest is not of a cluster already.
//!
//! Two can only think that they are the lowest if one of them was given an empty disk between two looks. Both then begin a log,
//! with memberships that differ; each of the others joins the first that asks for its vote, and answers the other that it is of
//! another cluster. So one of them gets a majority at most, and the other never leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::house::House;
use super::types::{Server, ServerId};
use super::wire::{Introduction, Question, Reply};

/// Between two rounds of questions, and for each.
const ROUND: Duration = Duration::from_millis(200);

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Founding {
    /// These are missing, each with what is wrong with it.
    Waits(Vec<String>),
    /// There is a cluster, or this server is not to found one: it waits to be added.
    WaitsToBeAdded,
    /// It is of a cluster.
    Over,
}

/// What a round came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This server begins.
    Found(BTreeMap<ServerId, Server>),
    /// Another does, or it is not time yet.
    Wait(Founding),
}

/// Who was met at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Met {
    Nobody,
    /// The address is ours, under another name.
    Oneself,
    Server(Introduction),
}

/// Looks at who was met at the other addresses of the list.
pub(super) fn decide(me: &Introduction, address: &str, others: &BTreeMap<String, Met>) -> Verdict {
    if me.joins {
        return Verdict::Wait(Founding::WaitsToBeAdded);
    }
    let mut servers = BTreeMap::from([(me.server, Server { address: address.to_owned() })]);
    let mut missing = Vec::new();
    let mut is_founded = false;
    for (place, met) in others {
        match wrong(me, met) {
            Some(why) => missing.push(format!("{place}: {why}")),
            None => {
                if let Met::Server(other) = met {
                    is_founded |= other.cluster.is_some();
                    if servers.insert(other.server, Server { address: place.clone() }).is_some() {
                        missing
                            .push(format!("{place}: another has its number: one data directory is a copy"));
                    }
                }
            }
        }
    }
    if is_founded {
        return Verdict::Wait(Founding::WaitsToBeAdded);
    }
    if !missing.is_empty() {
        return Verdict::Wait(Founding::Waits(missing));
    }
    match servers.first_key_value() {
        Some((lowest, _)) if *lowest == me.server => Verdict::Found(servers),
        Some((_, lowest)) => Verdict::Wait(Founding::Waits(vec![format!("{}: it founds", lowest.address)])),
        None => Verdict::Wait(Founding::Waits(Vec::new())),
    }
}

fn wrong(me: &Introduction, met: &Met) -> Option<String> {
    match met {
        Met::Nobody => Some("not met".to_owned()),
        Met::Oneself => Some("this server itself: give it as its own address".to_owned()),
        Met::Server(other) if other.cluster.is_some() => None,
        Met::Server(other) if other.joins => Some("waits to be added, and founds nothing".to_owned()),
        Met::Server(other) if other.listed != me.listed => {
            Some(format!("lists {} servers, not {}", other.listed, me.listed))
        }
        Met::Server(other) if other.server == me.server => {
            Some("has the number of this server: one data directory is a copy of the other".to_owned())
        }
        Met::Server(_) => None,
    }
}

/// Asks the others until there is a cluster.
pub(super) async fn run(house: Arc<House>) {
    let others = house.config.others();
    others.iter().for_each(|address| {
        house.peers.keep(address);
    });
    let mut said = None;
    while house.cluster().is_none() {
        let began = house.messenger.now();
        let met = meet(&house, &others).await;
        match decide(&house.introduction(), &house.config.address, &met) {
            Verdict::Found(servers) => {
                if let Err(why) = found(&house, servers).await {
                    tracing::error!("the cluster is not founded: {why}");
                    return;
                }
            }
            Verdict::Wait(state) => {
                if said.as_ref() != Some(&state) {
                    tracing::info!(address = house.config.address, "{}", text(&state));
                    said = Some(state.clone());
                }
                let is_waiting = house.cluster().is_none();
                house
                    .founding
                    .send_if_modified(|now| is_waiting && std::mem::replace(now, state.clone()) != state);
            }
        }
        tokio::time::sleep_until((began + ROUND).into()).await;
    }
}

fn text(state: &Founding) -> String {
    match state {
        Founding::Waits(missing) => {
            format!("a cluster is founded when these are there: {}", missing.join("; "))
        }
        Founding::WaitsToBeAdded => "waits to be added to a cluster that exists".to_owned(),
        Founding::Over => "of a cluster".to_owned(),
    }
}

/// Asks all of them, one after the other: an answer takes as long as the way.
async fn meet(house: &House, others: &[String]) -> BTreeMap<String, Met> {
    let mut met = BTreeMap::new();
    for address in others {
        let who = if house.peers.at(address) == Some(house.messenger.id()) {
            Met::Oneself
        } else {
            match house.ask(address, None, Question::Who(house.introduction()), ROUND).await {
                Ok(Reply::Who(who)) => Met::Server(who),
                Ok(_) | Err(_) => Met::Nobody,
            }
        };
        met.insert(address.clone(), who);
    }
    met
}

/// Begins the log. It is on the disk before the cluster is, and no vote leaves before both are: who crashes between has told nobody,
/// and draws another.
async fn found(house: &House, servers: BTreeMap<ServerId, Server>) -> Result<(), String> {
    let _alone = house.joining.lock().await;
    let Some(raft) = house.raft().filter(|_| house.cluster().is_none()) else { return Ok(()) };
    let cluster = draw(house);
    tracing::info!(cluster = format_args!("{cluster:032x}"), servers = servers.len(), "founds a cluster");
    raft.initialize(servers).await.map_err(|why| why.to_string())?;
    house.store.set_cluster(cluster).await.map_err(|why| why.to_string())?;
    house.founding.send_replace(Founding::Over);
    Ok(())
}

/// A cluster's number.
pub(super) fn draw(house: &House) -> u128 {
    house.context.chance(|chance| chance.u128(1..))
}
