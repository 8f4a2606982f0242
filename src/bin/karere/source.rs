//! Where the data of `send` comes from: a thread that reads, numbers and hashes blocks ahead of the network.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::output::Failure;
use crate::pipe::{BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, Header, Sha, Trailer, block_header};

/// Blocks read ahead: half a mebibyte, a few milliseconds of a fast network.
const BLOCKS_AHEAD: usize = 8;

/// Data of one block: with its header two full messages of a byte stream (32 KiB each).
const DATA_BYTES: usize = BLOCK_BYTES_MAX - BLOCK_HEADER_BYTES;

/// What to send.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    /// For errors.
    name: String,
    header: Header,
}

/// One block as it goes into the stream.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    data_len: usize,
}

impl Block {
    /// Header and data.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..BLOCK_HEADER_BYTES + self.data_len).unwrap_or(&self.bytes)
    }

    /// Bytes of data.
    pub(crate) fn data_len(&self) -> u64 {
        self.data_len as u64
    }
}

/// What comes from the reading thread.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The next block.
    Block(Block),
    /// The end, after so many blocks.
    End { trailer: Trailer, blocks: u64 },
    /// It cannot be read on.
    Failed(String),
}

impl Source {
    /// A file, or standard input for none and for `-`.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(path: Option<&PathBuf>) -> Result<Source, Failure> {
        match path.filter(|path| path.as_path() != Path::new("-")) {
            Some(path) => Source::open_file(path),
            None => {
                // Without the buffer of `Stdin`: blocks are large enough.
                let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
                let file = file.map_err(|error| Failure::new(format!("no standard input: {error}")))?;
                Ok(Source { file, name: "standard input".to_owned(), header: Header::default() })
            }
        }
    }

    fn open_file(path: &Path) -> Result<Source, Failure> {
        let name = path.display().to_string();
        let failed = |error: io::Error| Failure::new(format!("cannot read {name}: {error}"));
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            let failure = Failure::new(format!("cannot read {name}: it is a directory"));
            return Err(failure.tries(format!("tar c {name} | karere send ...")));
        }
        let base = path.file_name().map(|base| base.to_string_lossy().into_owned());
        // Of a pipe or a device nobody knows the size.
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Source { file, name, header: Header { name: base, size } })
    }

    /// What to tell the receiver first.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Starts to read. The thread ends when the [`Reader`] is dropped, at its next block; one that is stuck in a read
    /// of an open pipe keeps nobody waiting.
    pub(crate) fn start(self) -> Reader {
        let (pieces_tx, pieces) = mpsc::channel(BLOCKS_AHEAD);
        let (spare, spare_rx) = mpsc::channel(BLOCKS_AHEAD + 2);
        let thread = tokio::task::spawn_blocking(move || self.read_all(&pieces_tx, spare_rx));
        Reader { pieces, spare, _thread: thread }
    }

    fn read_all(mut self, pieces: &mpsc::Sender<Piece>, mut spare: mpsc::Receiver<Vec<u8>>) {
        let mut hasher = Sha256::new();
        let (mut length, mut blocks) = (0_u64, 0_u64);
        loop {
            let mut bytes = spare.try_recv().unwrap_or_default();
            bytes.resize(BLOCK_HEADER_BYTES + DATA_BYTES, 0);
            let (head, data) = bytes.split_at_mut(BLOCK_HEADER_BYTES);
            let data_len = match read(&mut self.file, data) {
                Ok(0) => break,
                Ok(data_len) => data_len,
                Err(error) => {
                    let reason = format!("cannot read {} after {length} bytes: {error}", self.name);
                    // If nobody listens any more, nobody needs it.
                    let _ = pieces.blocking_send(Piece::Failed(reason));
                    return;
                }
            };
            blocks += 1;
            length += data_len as u64;
            head.copy_from_slice(&block_header(blocks, data_len));
            hasher.update(data.get(..data_len).unwrap_or(data));
            if pieces.blocking_send(Piece::Block(Block { bytes, data_len })).is_err() {
                return;
            }
        }
        let trailer = Trailer { length, sha: Sha(hasher.finalize().into()) };
        let _ = pieces.blocking_send(Piece::End { trailer, blocks });
    }
}

/// What is there now, at most a block: a slow pipe is not held up.
fn read(file: &mut File, data: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(data) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The blocks, in order.
#[derive(Debug)]
pub(crate) struct Reader {
    pieces: mpsc::Receiver<Piece>,
    spare: mpsc::Sender<Vec<u8>>,
    _thread: JoinHandle<()>,
}

impl Reader {
    /// The next piece. Cancel safe.
    pub(crate) async fn next(&mut self) -> Piece {
        let ended = || Piece::Failed("the reading thread ended".to_owned());
        self.pieces.recv().await.unwrap_or_else(ended)
    }

    /// Gives the memory of a block back for a later one.
    pub(crate) fn recycle(&self, block: Block) {
        // If there is more than enough of it, it is freed.
        let _ = self.spare.try_send(block.bytes);
    }
}
