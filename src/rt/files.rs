//! Small files outside the store: keys, which only their owner may read and nothing may overwrite.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstat, fsync, open};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A file is in the way.
    #[error("{} exists and is never overwritten; choose another name or move it away", path.display())]
    Exists { path: PathBuf },
    /// Others may read the secret.
    #[error("{} may be read by others (mode {mode:o}); run `chmod 600` on it", path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    /// The file is not what it should be.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: usize },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> FileError {
    move |errno| FileError::Io { action, path: path.into(), source: errno.into() }
}

/// Reads a file of at most `limit` bytes.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    read_checked(path, limit, |_| Ok(()))
}

/// Reads a secret of at most `limit` bytes; refuses one that its group or others may read.
pub fn read_secret(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    read_checked(path, limit, |mode| {
        let private = mode & 0o077 == 0;
        if private { Ok(()) } else { Err(FileError::TooOpen { path: path.into(), mode: mode & 0o777 }) }
    })
}

fn read_checked(
    path: &Path,
    limit: usize,
    check: impl FnOnce(u32) -> Result<(), FileError>,
) -> Result<Vec<u8>, FileError> {
    let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open", path))?;
    check(fstat(&fd).map_err(failed("inspect", path))?.st_mode)?;
    let mut bytes = Vec::new();
    let taken = File::from(fd).take(limit as u64 + 1).read_to_end(&mut bytes);
    taken.map_err(|source| FileError::Io { action: "read", path: path.into(), source })?;
    if bytes.len() > limit { Err(FileError::TooLarge { path: path.into(), limit }) } else { Ok(bytes) }
}

/// Writes a new secret with mode 0600, durable on return. Refuses if anything of that name exists.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::from_raw_mode(0o600)).map_err(|errno| match errno {
        rustix::io::Errno::EXIST => FileError::Exists { path: path.into() },
        other => failed("create", path)(other),
    })?;
    let mut file = File::from(fd);
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|source| FileError::Io { action: "write", path: path.into(), source })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    dir.and_then(fsync).map_err(failed("sync the directory of", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_private_comes_back_whole_and_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        write_secret(&path, b"secret").expect("a new file");
        let mode = std::fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(write_secret(&path, b"other"), Err(FileError::Exists { .. })));
        assert_eq!(read_secret(&path, 6).expect("readable"), b"secret");
        assert!(matches!(read_secret(&path, 5), Err(FileError::TooLarge { limit: 5, .. })));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_its_mode() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        write_secret(&path, b"secret").expect("a new file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("chmod");
        let refused = read_secret(&path, 64).expect_err("too open");
        assert!(refused.to_string().contains("mode 640"), "{refused}");
        assert_eq!(read(&path, 64).expect("no secret is asked for"), b"secret");
    }
}
