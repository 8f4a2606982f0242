//! The file that is sent, and the place where it all happens.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::output::Failure;
use crate::pipe::Sha;

/// Read and written at once.
const PIECE_BYTES: usize = 1 << 20;

/// A directory for this run only, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Workshop {
    path: PathBuf,
}

impl Workshop {
    pub(super) fn new() -> Result<Workshop, Failure> {
        let name = format!("karere-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.and_then(|()| fs::create_dir(path.join("received"))).map_err(|error| {
            let failure = Failure::new(format!("cannot make {}: {error}", path.display()));
            failure.tries("TMPDIR=... for a directory with room for the file, twice")
        })?;
        Ok(Workshop { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, and says so if it cannot.
    pub(super) fn clear(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "files remain");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The file that is sent.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) path: PathBuf,
    size: u64,
    sha: Sha,
}

/// What arrived, read from the disk again.
#[derive(Debug, Clone)]
pub(super) enum Copy {
    /// The same bytes.
    Same(Sha),
    /// Not the same, and how.
    Differs(String),
}

impl Original {
    /// Writes a file of this size from the seed: the same seed, the same bytes.
    pub(super) async fn make(dir: &Path, size: u64, seed: u64) -> Result<Original, Failure> {
        let path = dir.join("original");
        let made = {
            let path = path.clone();
            blocking(move || write(&path, size, seed)).await
        };
        let sha = made.map_err(|error| {
            let failure = Failure::new(format!("cannot write {}: {error}", path.display()));
            failure.tries("TMPDIR=... for a directory with room for the file, twice")
        })?;
        Ok(Original { path, size, sha })
    }

    /// Reads the copy and compares; the processes' own word does not count here.
    pub(super) async fn compare(&self, copy: Option<&Path>) -> Copy {
        let Some(path) = copy.map(Path::to_path_buf) else {
            return Copy::Differs("there is no copy".to_owned());
        };
        match blocking(move || read(&path)).await {
            Ok(found) if found == (self.size, self.sha) => Copy::Same(self.sha),
            Ok((size, sha)) => {
                Copy::Differs(format!("{size} bytes with {sha}, not {} with {}", self.size, self.sha))
            }
            Err(error) => Copy::Differs(format!("the copy cannot be read: {error}")),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn write(path: &Path, size: u64, seed: u64) -> io::Result<Sha> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut file = File::create_new(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = size;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let (part, _) = piece.split_at_mut(len);
        rng.fill(part);
        hasher.update(&*part);
        file.write_all(part)?;
        left -= len as u64;
    }
    Ok(Sha(hasher.finalize().into()))
}

fn read(path: &Path) -> io::Result<(u64, Sha)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut size = 0;
    loop {
        let len = file.read(&mut piece)?;
        if len == 0 {
            return Ok((size, Sha(hasher.finalize().into())));
        }
        hasher.update(piece.get(..len).unwrap_or_default());
        size += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_seed_makes_the_same_file_and_a_changed_copy_is_seen() {
        let mut workshop = Workshop::new().unwrap();
        let dir = workshop.path().to_owned();
        let original = Original::make(&dir, 3_000_000, 7).await.unwrap();
        let again = dir.join("again");
        write(&again, 3_000_000, 7).unwrap();
        assert!(matches!(original.compare(Some(&again)).await, Copy::Same(_)));
        let mut bytes = fs::read(&again).unwrap();
        bytes[2_999_999] ^= 1;
        fs::write(&again, bytes).unwrap();
        assert!(matches!(original.compare(Some(&again)).await, Copy::Differs(_)));
        assert!(matches!(original.compare(None).await, Copy::Differs(_)));
        workshop.clear();
        assert!(!dir.exists());
    }
}
