//! One incoming stream: bytes from the network to the thread that takes them in, then the answer to the sender.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use karere::ByteStream;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::intake::{Chunk, Notes, Worker};
use crate::node::{self, Broken};
use crate::output;
use crate::pipe::{SequenceCounts, Verdict};
use crate::sink::Outlet;

/// How long the sender may take to see the answer and close its half: some dead links long.
const FAREWELL: Duration = Duration::from_secs(30);

/// What became of a stream.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// `received` or `failed`.
    pub(crate) event: &'static str,
    /// Complete, confirmed and answered.
    pub(crate) ok: bool,
    /// The sender's member id.
    pub(crate) from: String,
    /// The file's name as it was sent.
    pub(crate) name: Option<String>,
    /// Where it is now.
    pub(crate) file: Option<PathBuf>,
    /// Data received.
    pub(crate) bytes: u64,
    /// Of the data received, if all of it came.
    pub(crate) sha256: Option<String>,
    /// What the numbers of the blocks told.
    #[serde(flatten)]
    pub(crate) counts: SequenceCounts,
    /// From the first byte to the answer.
    pub(crate) seconds: f64,
    /// What went wrong.
    pub(crate) error: Option<String>,
    /// Part of a stream that failed remains on standard output.
    pub(crate) stained: bool,
    /// Standard output is closed: nothing more can be received.
    #[serde(skip)]
    pub(crate) closed: bool,
}

/// Receives a stream to its end, or until `stop`. Owns everything it starts, except a thread stuck in a write.
pub(crate) async fn receive(mut stream: ByteStream, outlet: Outlet, stop: CancellationToken) -> Report {
    let from = stream.peer();
    let started = Instant::now();
    let mut worker = Worker::start(outlet, format!("{from:.8}"));
    let mut notes = match pump(&mut stream, &mut worker, &stop).await {
        Ok(notes) => notes,
        Err(reason) => worker.end().await.broken(reason),
    };
    match &notes.verdict {
        Some(verdict) => {
            let unanswered = answer(&mut stream, verdict).await.err();
            if let Some(reason) = unanswered {
                tracing::warn!(%from, %reason, "the sender may not know that its stream is complete");
            }
            notes.error = notes.error.take().or_else(|| verdict.error.clone());
        }
        None => node::abort(stream, notes.error.as_deref().unwrap_or("the receiver failed")),
    }
    Report::new(notes, from.to_string(), started.elapsed())
}

/// Moves bytes to the thread until it is done with them.
async fn pump(
    stream: &mut ByteStream,
    worker: &mut Worker,
    stop: &CancellationToken,
) -> Result<Notes, String> {
    loop {
        let mut chunk = worker.spare.try_recv().unwrap_or_else(|_| Chunk::new());
        tokio::select! {
            biased;
            notes = &mut worker.thread => return Ok(notes.unwrap_or_else(|error| Notes::of_panic(&error))),
            () = stop.cancelled() => return Err("the receiver was stopped".to_owned()),
            done = fill(stream, &mut chunk) => match done {
                Ok(()) if chunk.len == 0 => return Err("the sender ended in mid-stream".to_owned()),
                Ok(()) => {}
                Err(error) => return Err(describe(&error)),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return Err("the receiver was stopped".to_owned()),
            // If the thread has ended, it says why in the next turn.
            _ = worker.chunks.send(chunk) => {}
        }
    }
}

fn describe(error: &io::Error) -> String {
    match Broken::of(error) {
        Broken::Aborted(reason) => format!("the sender gave up: {reason}"),
        Broken::SessionLost(cause) => format!("the session with the sender was lost: {cause}"),
        Broken::Other(text) => text,
    }
}

/// Reads all that is there, at least one byte unless the stream has ended.
async fn fill(stream: &mut ByteStream, chunk: &mut Chunk) -> io::Result<()> {
    poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut chunk.bytes);
        buf.set_filled(chunk.len);
        loop {
            let before = buf.filled().len();
            let polled = Pin::new(&mut *stream).poll_read(cx, &mut buf);
            let after = buf.filled().len();
            match polled {
                Poll::Ready(Ok(())) if after > before && buf.remaining() > 0 => {}
                Poll::Ready(Ok(())) => {
                    chunk.len = after;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if after > 0 => {
                    chunk.len = after;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Tells the sender, and waits until it has closed its half: then it knows.
async fn answer(stream: &mut ByteStream, verdict: &Verdict) -> Result<(), String> {
    let farewell = async {
        stream.write_all(&verdict.encode()).await?;
        stream.shutdown().await?;
        match stream.read(&mut [0; 1]).await? {
            0 => Ok(()),
            _ => Err(io::Error::other("bytes came after the end")),
        }
    };
    match timeout(FAREWELL, farewell).await {
        Ok(done) => done.map_err(|error| describe(&error)),
        Err(_) => Err(format!("no sign of it for {} s", FAREWELL.as_secs())),
    }
}

impl Report {
    fn new(notes: Notes, from: String, time: Duration) -> Report {
        let Notes { name, file, bytes, counts, verdict, error, stained, closed } = notes;
        let ok = error.is_none() && verdict.is_some();
        Report {
            event: if ok { "received" } else { "failed" },
            ok,
            from,
            name,
            file,
            bytes,
            sha256: verdict.map(|verdict| verdict.received.sha.to_string()),
            counts,
            seconds: output::seconds(time),
            error,
            stained,
            closed,
        }
    }
}
