//! One question to any server, or to the leader.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::LOOK;
use super::error::AdminError;
use crate::rendezvous::words::{Ask, Told};
use crate::{Contact, ContactError, Messenger, RequestError};

/// A server that is up answers a dial far sooner.
const MEET: Duration = Duration::from_secs(3);
/// The next server is asked after this if the one before has not answered yet.
const STAGGER: Duration = Duration::from_millis(250);
/// Nobody leads: how soon somebody is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// A server that was met.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) address: String,
    contact: Contact,
}

impl Met {
    /// # Errors
    ///
    /// Why it was not, for people.
    async fn at(messenger: &Messenger, address: &str) -> Result<Self, String> {
        match timeout(MEET, messenger.contact_once(address)).await {
            Ok(Ok(contact)) => Ok(Self { address: address.to_owned(), contact }),
            Ok(Err(ContactError::Refused { why, .. })) => Err(format!("it refuses: {why}")),
            Ok(Err(ContactError::GaveUp { last, .. })) => Err(last),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_late) => Err(format!("nobody is met there within {} s", MEET.as_secs())),
        }
    }

    /// # Errors
    ///
    /// It does not answer, or could not do it.
    pub(super) async fn ask(
        &self,
        messenger: &Messenger,
        ask: &Ask,
        patience: Duration,
    ) -> Result<Told, AdminError> {
        match messenger.request(ask, self.contact.id(), patience).await {
            Ok(Told::Failed(why)) => Err(AdminError::Refused { server: self.address.clone(), why }),
            Ok(Told::Denied(why)) => Err(AdminError::Denied { server: self.address.clone(), why }),
            Ok(told) => Ok(told),
            Err(RequestError::NotUnderstood) => Err(self.broken("it does not know the question")),
            Err(error) if error.may_have_been_handled() => {
                Err(AdminError::Unknown { server: self.address.clone(), why: error.to_string() })
            }
            Err(error) => Err(AdminError::Nobody { tried: vec![(self.address.clone(), error.to_string())] }),
        }
    }

    pub(super) fn unexpected(&self, told: &Told) -> AdminError {
        let text = format!("{told:?}");
        self.broken(text.split(['(', ' ', '{']).next().unwrap_or_default())
    }

    pub(super) fn broken(&self, why: &str) -> AdminError {
        AdminError::NoServer { server: self.address.clone(), why: why.to_owned() }
    }
}

/// Asks one after the other, each a little later, and takes the first answer; a refusal is one.
pub(super) async fn any(
    messenger: &Messenger,
    servers: &[String],
    ask: &Ask,
) -> Result<(Met, Told), AdminError> {
    let one = |(at, address): (u32, &String)| {
        let (messenger, address, ask) = (messenger.clone(), address.clone(), ask.clone());
        async move {
            sleep(STAGGER * at).await;
            let tried = |why| (address.clone(), why);
            let met = Met::at(&messenger, &address).await.map_err(tried)?;
            match met.ask(&messenger, &ask, LOOK).await {
                Ok(told) => Ok(Ok((met, told))),
                Err(error) => match error.of_one() {
                    Some(why) => Err(tried(why.to_owned())),
                    None => Ok(Err(error)),
                },
            }
        }
    };
    let asked = (0..).zip(servers).map(one);
    first(asked).await.unwrap_or_else(|tried| Err(AdminError::Nobody { tried }))
}

/// The first that ends well; if none does, how each ended.
async fn first<T, E>(futures: impl Iterator<Item = impl Future<Output = Result<T, E>>>) -> Result<T, Vec<E>> {
    let mut running: Vec<Option<Pin<Box<_>>>> = futures.map(|future| Some(Box::pin(future))).collect();
    let mut failed = Vec::new();
    poll_fn(|cx| {
        for slot in &mut running {
            match slot.as_mut().map(|future| future.as_mut().poll(cx)) {
                Some(Poll::Ready(Ok(value))) => return Poll::Ready(Ok(value)),
                Some(Poll::Ready(Err(error))) => {
                    failed.push(error);
                    *slot = None;
                }
                Some(Poll::Pending) | None => {}
            }
        }
        let all = running.iter().all(Option::is_none);
        if all { Poll::Ready(Err(std::mem::take(&mut failed))) } else { Poll::Pending }
    })
    .await
}

/// Tells the leader, whoever that is; asks around for it until the time is over.
pub(super) async fn leader(
    messenger: &Messenger,
    servers: &[String],
    ask: &Ask,
    patience: Duration,
) -> Result<(), AdminError> {
    let end = messenger.now() + patience;
    let mut round = servers.iter().cycle();
    let mut hint: Option<String> = None;
    // What came of each server at last; those that were hinted at are among them.
    let mut tried: Vec<(String, String)> = Vec::new();
    let mut answered = false;
    let mut note = |address: String, why: String| match tried.iter_mut().find(|(known, _)| *known == address)
    {
        Some((_, last)) => *last = why,
        None => tried.push((address, why)),
    };
    while messenger.now() < end {
        let hinted = hint.is_some();
        let Some(address) = hint.take().or_else(|| round.next().cloned()) else { break };
        let met = match Met::at(messenger, &address).await {
            Ok(met) => met,
            Err(why) => {
                note(address, why);
                // It may have been refused at once.
                sleep(AGAIN).await;
                continue;
            }
        };
        let left = end.saturating_duration_since(messenger.now());
        match met.ask(messenger, ask, left.max(LOOK)).await {
            Ok(Told::Done) => return Ok(()),
            Ok(Told::NotLeader { leader }) => {
                answered = true;
                let why =
                    leader.as_ref().map_or("it knows of no leader".to_owned(), |at| format!("{at} leads"));
                note(address, why);
                if leader.is_none() || hinted {
                    sleep(AGAIN).await;
                }
                hint = leader;
            }
            Ok(other) => return Err(met.unexpected(&other)),
            Err(AdminError::Nobody { tried: one }) => one.into_iter().for_each(|(at, why)| note(at, why)),
            Err(error) => return Err(error),
        }
    }
    if answered { Err(AdminError::NoLeader { tried }) } else { Err(AdminError::Nobody { tried }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_counts_and_if_there_is_none_each_failure_is_told() {
        let after = |secs, outcome: Result<u8, u8>| async move {
            sleep(Duration::from_secs(secs)).await;
            outcome
        };
        assert_eq!(first([after(3, Ok(3)), after(1, Err(1)), after(2, Ok(2))].into_iter()).await, Ok(2));
        assert_eq!(first([after(3, Err(3)), after(1, Err(1))].into_iter()).await, Err(vec![1, 3]));
        let nothing = std::iter::empty::<std::future::Ready<Result<u8, u8>>>();
        assert_eq!(first(nothing).await, Err(Vec::new()));
    }
}
