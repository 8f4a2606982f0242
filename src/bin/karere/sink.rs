//! Where received data goes: standard output, or a file that appears under its name only when it is confirmed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file name with suffix fits into 255 bytes (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 200;
/// Names tried with a suffix until one is free.
const SUFFIXES_MAX: u32 = 10_000;

/// Where streams go.
#[derive(Debug, Clone)]
pub(crate) enum Outlet {
    /// Standard output, one stream after the other.
    Stdout,
    /// A file each in this directory.
    Directory(Arc<Path>),
}

/// Where one stream goes. Dropped without [`Sink::confirm`] it is as if nothing had been received, where that is
/// possible.
#[derive(Debug)]
pub(crate) enum Sink {
    /// See [`Outlet::Stdout`].
    Stdout(StdoutSink),
    /// See [`Outlet::Directory`].
    File(FileSink),
}

impl Sink {
    /// Begins a stream; `tag` keeps the temporary files of several streams apart.
    ///
    /// # Errors
    /// If there is no place for it.
    pub(crate) fn open(outlet: &Outlet, name: Option<&str>, tag: &str) -> io::Result<Sink> {
        match outlet {
            Outlet::Stdout => StdoutSink::open().map(Sink::Stdout),
            Outlet::Directory(dir) => FileSink::open(dir, name, tag).map(Sink::File),
        }
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout(sink) => sink.write(data),
            Sink::File(sink) => sink.file.write_all(data),
        }
    }

    /// All of it is there and right: on disk, under its name. Returns the path.
    pub(crate) fn confirm(self) -> io::Result<Option<PathBuf>> {
        match self {
            Sink::Stdout(mut sink) => sink.file.flush().map(|()| None),
            Sink::File(sink) => sink.confirm().map(Some),
        }
    }

    /// Takes back what was written; true if some of it remains where others may have read it.
    pub(crate) fn discard(self) -> bool {
        match self {
            Sink::Stdout(sink) => sink.discard(),
            Sink::File(_) => false,
        }
    }
}

/// Standard output, without the buffer of `Stdout`.
#[derive(Debug)]
pub(crate) struct StdoutSink {
    file: File,
    written: u64,
    /// Where this stream began, if standard output is a file that ends there.
    start: Option<u64>,
}

impl StdoutSink {
    fn open() -> io::Result<StdoutSink> {
        let mut file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let length = file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
        let start = length.filter(|length| file.stream_position().is_ok_and(|at| at == *length));
        Ok(StdoutSink { file, written: 0, start })
    }

    fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match self.file.write(data) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.written += len as u64;
                    data = data.get(len..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A file is cut back to where the stream began, if nobody else has written to it since; a pipe cannot be.
    fn discard(mut self) -> bool {
        self.written > 0 && !self.cut_back().unwrap_or(false)
    }

    fn cut_back(&mut self) -> io::Result<bool> {
        let Some(start) = self.start else { return Ok(false) };
        if self.file.metadata()?.len() != start + self.written {
            return Ok(false);
        }
        self.file.set_len(start)?;
        self.file.seek(SeekFrom::Start(start))?;
        Ok(true)
    }
}

/// A temporary file that becomes the real one.
#[derive(Debug)]
pub(crate) struct FileSink {
    file: File,
    temporary: Temporary,
    dir: Arc<Path>,
    name: String,
}

impl FileSink {
    fn open(dir: &Arc<Path>, name: Option<&str>, tag: &str) -> io::Result<FileSink> {
        let name = sanitize(name.unwrap_or_default());
        let path = dir.join(format!(".{name}.{tag}.part"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(FileSink { file, temporary: Temporary(path), dir: Arc::clone(dir), name })
    }

    fn confirm(self) -> io::Result<PathBuf> {
        let FileSink { file, temporary, dir, name } = self;
        file.sync_all()?;
        for suffix in 0..SUFFIXES_MAX {
            let path = dir.join(with_suffix(&name, suffix));
            match place(&temporary.0, &path) {
                Ok(()) => {
                    drop(temporary);
                    // The name is on disk, too.
                    File::open(&dir)?.sync_all()?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("no name like {name} is free")))
    }
}

/// Gives a file its name, and never overwrites: a link fails if the name is taken.
fn place(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // No hard links on this file system: take the name first, then replace the empty file.
            OpenOptions::new().write(true).create_new(true).open(path)?;
            fs::rename(temporary, path)
        }
        done => done,
    }
}

/// Removed when it is dropped. After a rename there is nothing to remove.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "temporary file remains");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A plain file name out of what a stranger sent: no path, not hidden, no control characters.
fn sanitize(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let visible = base.trim().trim_start_matches('.');
    let plain: String = visible.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let name = crate::pipe::clip(&plain, NAME_BYTES_MAX);
    if name.is_empty() { "stream".to_owned() } else { name.to_owned() }
}

/// `report.pdf`, `report-1.pdf`, ...
fn with_suffix(name: &str, suffix: u32) -> String {
    match (suffix, name.rsplit_once('.')) {
        (0, _) => name.to_owned(),
        (_, Some((stem, extension))) if !stem.is_empty() => format!("{stem}-{suffix}.{extension}"),
        (_, _) => format!("{name}-{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_no_path_and_hides_nothing() {
        for (given, expected) in [
            ("a.txt", "a.txt"),
            ("/etc/passwd", "passwd"),
            ("../../x", "x"),
            ("..\\..\\x", "x"),
            ("..", "stream"),
            ("a/", "stream"),
            ("", "stream"),
            (".bashrc", "bashrc"),
            ("a\0b\nc", "a_b_c"),
        ] {
            assert_eq!(sanitize(given), expected, "{given:?}");
        }
        assert!(sanitize(&"ä".repeat(500)).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn a_confirmed_file_never_overwrites_and_an_unconfirmed_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let outlet = Outlet::Directory(dir.path().into());
        let store = |data: &[u8]| {
            let mut sink = Sink::open(&outlet, Some("x/a.txt"), "1").unwrap();
            sink.write(data).unwrap();
            sink
        };
        assert_eq!(store(b"one").confirm().unwrap(), Some(dir.path().join("a.txt")));
        assert_eq!(store(b"two").confirm().unwrap(), Some(dir.path().join("a-1.txt")));
        assert!(!store(b"three").discard());
        drop(store(b"four"));
        assert_eq!(fs::read(dir.path().join("a.txt")).unwrap(), b"one");
        assert_eq!(fs::read(dir.path().join("a-1.txt")).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
