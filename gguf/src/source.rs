//! Bytes with a length, read at positions: the only way this crate touches a file, so that a file
//! truncated while it is open is an error and not a signal.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::{Error, Result};

/// Bytes of a known length that can be read at any position, from several threads at once.
pub trait Source: Send + Sync {
    /// The length in bytes.
    fn len(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// An end before `out` is full is an error of kind `UnexpectedEof`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// What to call this source in a message: a path.
    fn name(&self) -> &str;

    /// The path to map into memory, where the source is a file.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// Whether every tensor repeats one stretch of blocks, the same for all of a format: a model made up for
    /// measurements, of which a loader need read no more than that.
    fn repeats(&self) -> bool {
        false
    }

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file, read by positioned reads.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
    path: std::path::PathBuf,
    name: String,
}

impl FileSource {
    /// Opens the file at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let io = |error| Error::Io { file: name.clone(), error };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(Error::Folder { looks: crate::strange::in_folder(path), folder: name });
        }
        Ok(Self { file, len: metadata.len(), path: path.to_path_buf(), name })
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        use std::os::windows::fs::FileExt;
        while !out.is_empty() {
            let n = self.file.seek_read(out, offset)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += n as u64;
            out = &mut out[n..];
        }
        Ok(())
    }

    #[cfg(not(any(unix, windows)))]
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// Bytes in memory.
#[derive(Debug, Clone)]
pub struct BytesSource {
    bytes: Vec<u8>,
    name: String,
}

impl BytesSource {
    /// Wraps `bytes`; `name` appears in messages.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { bytes, name: name.into() }
    }
}

impl Source for BytesSource {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = start
            .checked_add(out.len())
            .and_then(|end| self.bytes.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}
