//! The sender's side of the pipe protocol over a stream: everything out, the verdict in, and how far it has come.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use karere::MemberId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::node::Broken;
use crate::pipe::{SequenceCounts, Trailer, Verdict};
use crate::source::{Piece, Reader, Source};

/// How far it has come; read while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    bytes: AtomicU64,
    blocks: AtomicU64,
    trailer: OnceLock<Trailer>,
    verdict: OnceLock<Verdict>,
}

impl Transfer {
    /// Data handed to the messenger.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Blocks handed to the messenger.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Of all data, once it was read to the end.
    pub(crate) fn sha(&self) -> Option<String> {
        self.trailer.get().map(|trailer| trailer.sha.to_string())
    }

    /// What the receiver saw of the blocks, once it has answered.
    pub(crate) fn seen_by_receiver(&self) -> Option<SequenceCounts> {
        self.verdict.get().map(|verdict| verdict.counts)
    }

    fn add_block(&self, data_len: u64) {
        self.bytes.fetch_add(data_len, Ordering::Relaxed);
        self.blocks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why it ended early.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// This side cannot or must not go on.
    Here(String),
    /// Somebody else is at the address now.
    Replaced(MemberId),
    /// The stream broke.
    Broken(Broken),
    /// The receiver has not got what was sent.
    Verdict(String),
}

impl Trouble {
    /// What to tell the receiver, if it is still there.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Trouble::Here(text) => text,
            Trouble::Replaced(_) => "another process has taken the place of the receiver",
            Trouble::Broken(_) => "the stream broke",
            Trouble::Verdict(_) => "the receiver refused it",
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Broken(Broken::of(&error))
    }
}

/// Sends all of the source and waits for the verdict, which may come early if it is a bad one. Not cancel safe: the
/// stream is to be aborted then.
///
/// # Errors
/// If anything but a confirmation of all that was sent comes of it.
pub(crate) async fn converse(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    source: Source,
    transfer: &Transfer,
) -> Result<(), Trouble> {
    let header = source.header().encode();
    let mut reader = source.start();
    let verdict = {
        let reading = read_verdict(read);
        let writing = write_all(&mut *write, &header, &mut reader, transfer);
        tokio::pin!(reading);
        tokio::select! {
            biased;
            early = &mut reading => {
                let text = early?.error.unwrap_or_else(|| "it confirmed what was not sent yet".to_owned());
                return Err(Trouble::Verdict(text));
            }
            written = writing => written?,
        }
        reading.await?
    };
    let confirmed = judge(&verdict, transfer);
    let _ = transfer.verdict.set(verdict);
    // The end of this half tells the receiver that its answer arrived; nothing depends on it here.
    if let Err(error) = write.shutdown().await {
        tracing::debug!(%error, "the receiver may wait in vain");
    }
    confirmed
}

async fn write_all(
    write: &mut (impl AsyncWrite + Unpin),
    header: &[u8],
    reader: &mut Reader,
    transfer: &Transfer,
) -> Result<(), Trouble> {
    write.write_all(header).await?;
    loop {
        match reader.next().await {
            Piece::Block(block) => {
                write.write_all(block.bytes()).await?;
                transfer.add_block(block.data_len());
                reader.recycle(block);
            }
            Piece::End { trailer, blocks } => {
                debug_assert_eq!((trailer.length, blocks), (transfer.bytes(), transfer.blocks()));
                let _ = transfer.trailer.set(trailer);
                write.write_all(&trailer.encode(blocks)).await?;
                write.flush().await?;
                return Ok(());
            }
            Piece::Failed(reason) => return Err(Trouble::Here(reason)),
        }
    }
}

async fn read_verdict(read: &mut (impl AsyncRead + Unpin)) -> Result<Verdict, Trouble> {
    // Bounded: a verdict with the longest text is complete, a longer one is refused.
    let mut bytes = Vec::new();
    loop {
        match Verdict::decode(&bytes) {
            Ok(Some(verdict)) => return Ok(verdict),
            Ok(None) => {}
            Err(error) => return Err(Trouble::Verdict(error.to_string())),
        }
        if read.read_buf(&mut bytes).await? == 0 {
            let text = "the receiver closed the stream without an answer".to_owned();
            return Err(Trouble::Broken(Broken::Other(text)));
        }
    }
}

/// It counts as received only if both sides say the same.
fn judge(verdict: &Verdict, transfer: &Transfer) -> Result<(), Trouble> {
    let failed = |text: String| Err(Trouble::Verdict(text));
    let Some(sent) = transfer.trailer.get() else { return failed("nothing was sent yet".to_owned()) };
    if let Some(error) = &verdict.error {
        return failed(error.clone());
    }
    if verdict.received != *sent {
        return failed(format!("{sent:?} was sent, {:?} was received", verdict.received));
    }
    if !verdict.counts.are_clean() || verdict.counts.blocks != transfer.blocks() {
        return failed(format!(
            "{} blocks were sent, the receiver saw {:?}",
            transfer.blocks(),
            verdict.counts
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::Sha;

    fn sent() -> (Transfer, Verdict) {
        let transfer = Transfer::default();
        transfer.add_block(10);
        let received = Trailer { length: 10, sha: Sha([1; 32]) };
        transfer.trailer.set(received).unwrap();
        let counts = SequenceCounts { blocks: 1, ..SequenceCounts::default() };
        (transfer, Verdict { error: None, received, counts })
    }

    #[test]
    fn only_the_same_length_and_sum_and_blocks_count_as_received() {
        let (transfer, good) = sent();
        assert!(judge(&good, &transfer).is_ok());
        let spoil: [fn(&mut Verdict); 5] = [
            |verdict| verdict.error = Some("full".to_owned()),
            |verdict| verdict.received.length = 9,
            |verdict| verdict.received.sha = Sha([2; 32]),
            |verdict| verdict.counts.blocks = 2,
            |verdict| verdict.counts.reordered = 1,
        ];
        for spoil in spoil {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(judge(&bad, &transfer).is_err(), "{bad:?}");
        }
        assert!(judge(&good, &Transfer::default()).is_err());
    }
}
