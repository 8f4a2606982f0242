//! One incoming stream: bytes from the network to a thread that checks, hashes and writes them; then the answer.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use karere::ByteStream;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::node::{self, Broken};
use crate::output;
use crate::pipe::{Decoder, Item, SequenceCounts, Sha, Trailer, Verdict};
use crate::sink::{Outlet, Sink};

/// One hand-over to the thread; a fourth of a stream's window or so.
const CHUNK_BYTES: usize = 128 * 1024;
/// Chunks waiting for a slow disk: half a mebibyte. Then the sender's window closes.
const CHUNKS_AHEAD: usize = 4;
/// How long the sender may take to see the answer and close its half: some dead links long.
const FAREWELL: Duration = Duration::from_secs(30);
/// How long a thread may take to stop after the stream has failed; one stuck in a write is left behind.
const THREAD_STOP: Duration = Duration::from_secs(1);

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
    let (mut notes, why) = match pump(&mut stream, &mut worker, &stop).await {
        Ok(notes) => (notes, None),
        Err(reason) => (worker.end().await, Some(reason)),
    };
    if let Some(reason) = why {
        // What the thread says comes first: it is the cause if it failed.
        notes.error.get_or_insert(reason);
    }
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
    notes.into_report(from.to_string(), started.elapsed())
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
            notes = &mut worker.thread => return notes.map_err(|error| format!("the receiver failed: {error}")),
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

/// Bytes on their way to the thread.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    len: usize,
}

impl Chunk {
    fn new() -> Chunk {
        Chunk { bytes: vec![0; CHUNK_BYTES], len: 0 }
    }
}

/// The thread that checks, hashes and writes.
#[derive(Debug)]
struct Worker {
    chunks: mpsc::Sender<Chunk>,
    spare: mpsc::Receiver<Chunk>,
    thread: JoinHandle<Notes>,
}

impl Worker {
    fn start(outlet: Outlet, from: String) -> Worker {
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        let tag = format!("{from}-{}-{}", std::process::id(), STREAMS.fetch_add(1, Ordering::Relaxed));
        let (chunks, mut chunks_rx) = mpsc::channel::<Chunk>(CHUNKS_AHEAD);
        let (spare_tx, spare) = mpsc::channel(CHUNKS_AHEAD + 2);
        let thread = tokio::task::spawn_blocking(move || {
            let mut intake = Intake::new(outlet, tag);
            while let Some(mut chunk) = chunks_rx.blocking_recv() {
                let taken = intake.take(chunk.bytes.get(..chunk.len).unwrap_or_default());
                match taken {
                    Ok(None) => {}
                    Ok(Some(trailer)) => return intake.conclude(trailer),
                    Err(reason) => return intake.fail(reason),
                }
                chunk.len = 0;
                // If there is more than enough, it is freed.
                let _ = spare_tx.try_send(chunk);
            }
            intake.interrupted()
        });
        Worker { chunks, spare, thread }
    }

    /// No more bytes will come: what the thread has to say, if it is not stuck.
    async fn end(self) -> Notes {
        drop(self.chunks);
        match timeout(THREAD_STOP, self.thread).await {
            Ok(Ok(notes)) => notes,
            // Standard output may hold a part of it.
            Ok(Err(_)) | Err(_) => Notes { stained: true, ..Notes::default() },
        }
    }
}

/// What the thread found out.
#[derive(Debug, Default)]
struct Notes {
    name: Option<String>,
    file: Option<PathBuf>,
    bytes: u64,
    counts: SequenceCounts,
    verdict: Option<Verdict>,
    error: Option<String>,
    stained: bool,
    closed: bool,
}

impl Notes {
    fn into_report(self, from: String, time: Duration) -> Report {
        let ok = self.error.is_none() && self.verdict.is_some();
        Report {
            event: if ok { "received" } else { "failed" },
            ok,
            from,
            name: self.name,
            file: self.file,
            bytes: self.bytes,
            sha256: self.verdict.map(|verdict| verdict.received.sha.to_string()),
            counts: self.counts,
            seconds: output::seconds(time),
            error: self.error,
            stained: self.stained,
            closed: self.closed,
        }
    }
}

/// What the thread works with.
struct Intake {
    outlet: Outlet,
    tag: String,
    decoder: Decoder,
    sink: Option<Sink>,
    hasher: Sha256,
    notes: Notes,
}

impl Intake {
    fn new(outlet: Outlet, tag: String) -> Intake {
        let (decoder, hasher) = (Decoder::new(), Sha256::new());
        Intake { outlet, tag, decoder, sink: None, hasher, notes: Notes::default() }
    }

    /// Takes the next bytes; the trailer once it is there.
    fn take(&mut self, mut bytes: &[u8]) -> Result<Option<Trailer>, String> {
        while let Some(item) = self.decoder.decode(&mut bytes).map_err(|error| error.to_string())? {
            match item {
                Item::Header(header) => {
                    let opened = Sink::open(&self.outlet, header.name.as_deref(), &self.tag);
                    self.notes.name = header.name;
                    self.sink = Some(opened.map_err(|error| self.cannot_write(&error))?);
                }
                Item::Data(data) => {
                    self.hasher.update(data);
                    self.notes.bytes += data.len() as u64;
                    let written = self.sink.as_mut().map_or(Ok(()), |sink| sink.write(data));
                    written.map_err(|error| self.cannot_write(&error))?;
                }
                Item::End(trailer) if bytes.is_empty() => return Ok(Some(trailer)),
                Item::End(_) => return Err("bytes came after the end".to_owned()),
            }
        }
        Ok(None)
    }

    fn cannot_write(&mut self, error: &io::Error) -> String {
        let place = match &self.outlet {
            Outlet::Stdout => {
                self.notes.closed = error.kind() == io::ErrorKind::BrokenPipe;
                "standard output".to_owned()
            }
            Outlet::Directory(dir) => dir.display().to_string(),
        };
        format!("the receiver cannot write to {place}: {error}")
    }

    /// All bytes came: are they right, and are they safe?
    fn conclude(mut self, expected: Trailer) -> Notes {
        let sha = Sha(std::mem::take(&mut self.hasher).finalize().into());
        let received = Trailer { length: self.notes.bytes, sha };
        let counts = self.decoder.counts();
        let mut error = if received.length != expected.length {
            Some(format!("{} bytes were sent, {} were received", expected.length, received.length))
        } else if sha != expected.sha {
            Some(format!("the data sent has SHA-256 {}, the data received {sha}", expected.sha))
        } else if !counts.are_clean() {
            Some(format!("blocks went wrong: {counts:?}"))
        } else {
            None
        };
        if error.is_none() {
            match self.sink.take().map_or(Ok(None), Sink::confirm) {
                Ok(file) => self.notes.file = file,
                Err(failed) => error = Some(self.cannot_write(&failed)),
            }
        }
        self.notes.verdict = Some(Verdict { error, received, counts });
        self.finish()
    }

    fn fail(mut self, reason: String) -> Notes {
        self.notes.error = Some(reason);
        self.finish()
    }

    /// The stream broke; the other side of the channel knows why.
    fn interrupted(self) -> Notes {
        self.finish()
    }

    fn finish(mut self) -> Notes {
        self.notes.counts = self.decoder.counts();
        self.notes.stained = self.sink.take().is_some_and(Sink::discard);
        self.notes
    }
}
