//! The thread of an incoming stream: takes its bytes, checks and hashes them, and writes them where they belong.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::pipe::{Decoder, Item, SequenceCounts, Sha, Trailer, Verdict};
use crate::sink::{Outlet, Sink};

/// One hand-over to the thread; a fourth of a stream's window or so.
const CHUNK_BYTES: usize = 128 * 1024;
/// Chunks waiting for a slow disk: half a mebibyte. Then the sender's window closes.
const CHUNKS_AHEAD: usize = 4;
/// How long a thread may take to stop after the stream has failed; one stuck in a write is left behind.
const THREAD_STOP: Duration = Duration::from_secs(1);

/// Bytes on their way to the thread.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Room for more.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of it that count.
    pub(crate) len: usize,
}

impl Chunk {
    pub(crate) fn new() -> Chunk {
        Chunk { bytes: vec![0; CHUNK_BYTES], len: 0 }
    }
}

/// The thread that checks, hashes and writes.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Bytes for it.
    pub(crate) chunks: mpsc::Sender<Chunk>,
    /// Chunks it is done with.
    pub(crate) spare: mpsc::Receiver<Chunk>,
    /// Its end.
    pub(crate) thread: JoinHandle<Notes>,
}

impl Worker {
    /// Starts it; `from` names the sender in temporary files.
    pub(crate) fn start(outlet: Outlet, from: String) -> Worker {
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
    pub(crate) async fn end(self) -> Notes {
        drop(self.chunks);
        match timeout(THREAD_STOP, self.thread).await {
            Ok(Ok(notes)) => notes,
            Ok(Err(error)) => Notes::of_panic(&error),
            // Standard output may hold a part of it.
            Err(_) => Notes { stained: true, ..Notes::default() },
        }
    }
}

/// What the thread found out.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The file's name as it was sent.
    pub(crate) name: Option<String>,
    /// Where it is now.
    pub(crate) file: Option<PathBuf>,
    /// Data received.
    pub(crate) bytes: u64,
    /// What the numbers of the blocks told.
    pub(crate) counts: SequenceCounts,
    /// The answer to the sender, once all came.
    pub(crate) verdict: Option<Verdict>,
    /// Why nothing more can be taken.
    pub(crate) error: Option<String>,
    /// Part of it remains on standard output.
    pub(crate) stained: bool,
    /// Standard output is closed.
    pub(crate) closed: bool,
}

impl Notes {
    /// The thread failed: a bug. Standard output may hold a part of the stream.
    pub(crate) fn of_panic(error: &JoinError) -> Notes {
        let error = Some(format!("the receiver failed: {error}"));
        Notes { error, stained: true, ..Notes::default() }
    }

    /// The stream broke. What the thread says comes first: a cause of its own, or that all of it had come and was
    /// confirmed before, which is never taken back.
    pub(crate) fn broken(mut self, reason: String) -> Notes {
        if self.verdict.is_none() {
            self.error.get_or_insert(reason);
        }
        self
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::{Header, block_header};

    /// A whole stream that carries `data` in one block.
    fn stream(data: &[u8]) -> Vec<u8> {
        let trailer = Trailer { length: data.len() as u64, sha: Sha(Sha256::digest(data).into()) };
        let header = Header { name: Some("data".to_owned()), size: None };
        [&header.encode()[..], &block_header(1, data.len()), data, &trailer.encode(1)].concat()
    }

    /// What the thread has to say of these bytes when the stream breaks behind them.
    async fn break_behind(bytes: &[u8], dir: &std::path::Path) -> Notes {
        let worker = Worker::start(Outlet::Directory(dir.into()), "test".to_owned());
        worker.chunks.send(Chunk { bytes: bytes.to_vec(), len: bytes.len() }).await.unwrap();
        worker.end().await.broken("the sender gave up".to_owned())
    }

    #[tokio::test]
    async fn a_stream_that_breaks_behind_its_end_is_complete_and_one_that_breaks_before_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let whole = stream(b"hello");
        let cut = break_behind(&whole[..whole.len() - 1], dir.path()).await;
        assert_eq!(cut.error.as_deref(), Some("the sender gave up"));
        assert!(cut.verdict.is_none() && cut.file.is_none());
        let complete = break_behind(&whole, dir.path()).await;
        assert_eq!(complete.error, None, "it is on disk, under its name");
        assert_eq!(std::fs::read(complete.file.unwrap()).unwrap(), b"hello");
    }
}
