//! Asking, from threads: requests and their replies, datagrams, probes, and waiting for what is under way.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{ClassSender, Messenger};
#[cfg(feature = "tls")]
use crate::config::tls::{Tls, TlsError};
use crate::limits::JOBS_MAX;
use crate::member::MemberId;
use crate::messenger::{
    DatagramReport, Digest, FlushReport, HandlerError, Outgoing, ProbeReport, Request, RequestError,
    SendError,
};
use crate::wire::Class;

/// A request on its way to its handler's thread. Dropped without a word: the handler panicked.
struct Asked<R: Request> {
    from: MemberId,
    request: R,
    reply: oneshot::Sender<Result<R::Reply, String>>,
}

impl Messenger {
    /// Asks a member and waits for its reply, as [`karere::Messenger::request`](crate::Messenger::request). Fails at once
    /// when the member departs.
    ///
    /// # Errors
    ///
    /// [`RequestError`], which says whether the request may have been handled.
    pub fn request<R: Request>(
        &self,
        request: &R,
        member: MemberId,
        timeout: Duration,
    ) -> Result<R::Reply, RequestError> {
        self.class(Class::Normal).request(request, member, timeout)
    }

    /// Answers requests of type `R`, one after the other, on a thread of its own. An error's text, or that the handler
    /// panicked, is told to whoever asked. Once whoever asked waits no longer, a request that waits here is not handled.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]; nothing has changed.
    pub fn add_request_handler<R, F>(&self, mut handler: F) -> Result<(), HandlerError>
    where
        R: Request,
        F: FnMut(MemberId, R) -> Result<R::Reply, String> + Send + 'static,
    {
        let (asked, mut waiting) = mpsc::channel::<Asked<R>>(JOBS_MAX);
        let work = move || {
            while let Some(Asked { from, request, reply }) = waiting.blocking_recv() {
                if reply.is_closed() {
                    continue;
                }
                // A panic costs this one request: whoever asked is told by the reply that never comes.
                if let Ok(answer) = catch_unwind(AssertUnwindSafe(|| handler(from, request))) {
                    let _waits_no_longer = reply.send(answer);
                }
            }
        };
        let failed = |error: std::io::Error| HandlerError::Thread { why: error.to_string() };
        // If the type is taken, it ends at once.
        self.core.own.spawn_thread("karere-request", work).map_err(failed)?;
        let asked = Arc::new(Mutex::new(Some(asked)));
        let held = Arc::clone(&asked);
        self.core.messenger.add_request_handler(move |from, request: R| {
            let asked = held.lock().clone();
            async move {
                let stopped = || "the messenger has stopped".to_owned();
                let (reply, answer) = oneshot::channel();
                let asked = asked.ok_or_else(stopped)?;
                asked.send(Asked { from, request, reply }).await.map_err(|_| stopped())?;
                drop(asked);
                // It is told as any other panic of a handler, and counted.
                answer.await.unwrap_or_else(|_| resume_unwind(Box::new("the handler's thread panicked")))
            }
        })?;
        self.core.messenger.when_stopped(move || drop(asked.lock().take()));
        Ok(())
    }

    /// Sends best effort, at once or never; as [`karere::Messenger::datagram`](crate::Messenger::datagram).
    ///
    /// # Errors
    ///
    /// [`SendError`]: nothing was sent to anybody.
    pub fn datagram<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        time_to_live: Duration,
    ) -> Result<DatagramReport, SendError> {
        self.core.messenger.datagram(message, recipients, time_to_live)
    }

    /// Asks members whether they are there, and tells who answered within `timeout`; as
    /// [`karere::Messenger::probe`](crate::Messenger::probe).
    pub fn probe(&self, members: impl IntoIterator<Item = MemberId>, timeout: Duration) -> ProbeReport {
        self.wait(self.core.messenger.probe(members, timeout))
    }

    /// What was sent to each member and accepted from each; as [`karere::Messenger::digest`](crate::Messenger::digest).
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.core.messenger.digest()
    }

    /// Waits until what a digest says is handled here; as
    /// [`karere::Messenger::wait_handled`](crate::Messenger::wait_handled).
    pub fn wait_handled(&self, digest: &Digest, timeout: Duration) -> FlushReport {
        self.wait(self.core.messenger.wait_handled(digest, timeout))
    }

    /// Other certificates from now on; as [`karere::Messenger::rotate_tls`](crate::Messenger::rotate_tls).
    ///
    /// # Errors
    ///
    /// [`TlsError`]; the settings of before hold.
    #[cfg(feature = "tls")]
    pub fn rotate_tls(&self, tls: Tls) -> Result<(), TlsError> {
        self.core.messenger.rotate_tls(tls)
    }
}

impl ClassSender<'_> {
    /// As [`Messenger::request`], in this class.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::request`].
    pub fn request<R: Request>(
        &self,
        request: &R,
        member: MemberId,
        timeout: Duration,
    ) -> Result<R::Reply, RequestError> {
        self.messenger.wait(self.sender.request(request, member, timeout))
    }

    /// As [`Messenger::datagram`], in this class.
    ///
    /// # Errors
    ///
    /// As for [`Messenger::datagram`].
    pub fn datagram<M: Outgoing>(
        &self,
        message: &M,
        recipients: impl IntoIterator<Item = MemberId>,
        time_to_live: Duration,
    ) -> Result<DatagramReport, SendError> {
        self.sender.datagram(message, recipients, time_to_live)
    }

    /// What is sent so is dropped when it could not be written within this time; as
    /// [`karere::ClassSender::expires_in`](crate::ClassSender::expires_in).
    #[must_use]
    pub fn expires_in(mut self, time_to_live: Duration) -> Self {
        self.sender = self.sender.expires_in(time_to_live);
        self
    }

    /// Of what is queued so with one key only the newest is kept; as
    /// [`karere::ClassSender::conflate`](crate::ClassSender::conflate).
    #[must_use]
    pub fn conflate(mut self, key: u64) -> Self {
        self.sender = self.sender.conflate(key);
        self
    }
}
