//! A store's directory on a real file system.
//!
//! ```text
//! DIR/LOCK                    held with flock for as long as the volume is open
//! DIR/<name>                  small files of the root, replaced atomically
//! DIR/<name>.new              what replaces one; never read, made anew after a crash
//! DIR/lane-000/00000000.seg   segments; the number is hexadecimal
//! DIR/lane-000/00000000.new   a segment under preparation; never read, made anew after a crash
//! ```
//!
//! *Promise.* One process per directory. A segment appears under its name only when all of it is written and
//! durable. Data is read and written with direct I/O.
//!
//! *Callers.* Format, recovery and offline tools through [`Volume`]; the driver opens segments here and its
//! helper thread prepares them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, pread, pwrite};
use shards::AlignedBuf;
use shards::io::{BLOCK_BYTES, LaneId, SegmentFile, SegmentId, Volume};

/// Largest single direct write or read, in bytes. Larger ones are split by devices and may come back with
/// `EAGAIN`.
const CHUNK_BYTES: usize = 512 << 10;
/// Largest small file of the root, in bytes.
const META_BYTES_MAX: usize = 16 << 20;

/// Why a directory could not be opened as a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The system refused.
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Another process has it.
    #[error(
        "{} is in use by another process; stop that one, or give this one a directory of its own",
        path.display()
    )]
    InUse { path: PathBuf },
}

/// An open, locked directory of a store.
#[derive(Debug)]
pub struct FsVolume {
    root: PathBuf,
    _lock: OwnedFd,
}

impl FsVolume {
    /// Opens and locks the directory `root`, which must exist.
    pub fn open(root: &Path) -> Result<Self, VolumeError> {
        let failed =
            |action| move |errno: Errno| VolumeError::Io { action, path: root.into(), source: errno.into() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = fs::open(root.join("LOCK"), flags, Mode::from_raw_mode(0o600)).map_err(failed("open"))?;
        fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => VolumeError::InUse { path: root.into() },
            other => failed("lock")(other),
        })?;
        Ok(Self { root: root.into(), _lock: lock })
    }

    /// As [`FsVolume::open`], and makes the directory first if it is missing.
    pub fn create(root: &Path) -> Result<Self, VolumeError> {
        let failed = |source| VolumeError::Io { action: "create", path: root.into(), source };
        std::fs::create_dir_all(root).map_err(failed)?;
        Self::open(root)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Lanes that have a directory here.
    pub fn lanes(&self) -> io::Result<usize> {
        lanes_in(&self.root)
    }

    fn lane_dir(&self, lane: LaneId) -> PathBuf {
        self.root.join(format!("lane-{:03}", lane.0))
    }

    fn segment_path(&self, lane: LaneId, segment: SegmentId) -> PathBuf {
        self.lane_dir(lane).join(format!("{:08x}.seg", segment.0))
    }

    /// Opens a segment for direct reading and writing. (A file opened for writing only cannot be probed for
    /// polled I/O, and a device that fails the probe is remembered as not capable.)
    pub fn open_segment(&self, lane: LaneId, segment: SegmentId) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        Ok(fs::open(self.segment_path(lane, segment), flags, Mode::empty())?)
    }

    /// Makes a segment as [`Volume::create_segment`] and returns it open, for [`FsVolume::open_segment`]'s
    /// uses. To be asked only for numbers that the lane does not use: a blank file of that name and size is
    /// what an attempt left that failed after it had named its file, and is made anew, because a directory
    /// that could not be made durable once must not be believed to be so later.
    pub fn prepare_segment(&self, lane: LaneId, segment: SegmentId, bytes: u64) -> io::Result<OwnedFd> {
        match self.is_left_blank(lane, segment, bytes) {
            Ok(true) => fs::unlink(self.segment_path(lane, segment))?,
            Ok(false) => return Err(Errno::EXIST.into()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.make_segment(lane, segment, bytes)
    }

    /// True if the file of this segment has the size and is zero throughout, so that nothing is lost with it.
    fn is_left_blank(&self, lane: LaneId, segment: SegmentId, bytes: u64) -> Result<bool, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = fs::open(self.segment_path(lane, segment), flags, Mode::empty())?;
        if fs::fstat(&file)?.st_size as u64 != bytes {
            return Ok(false);
        }
        let mut chunk = AlignedBuf::zeroed(CHUNK_BYTES);
        let mut at = 0;
        while at < bytes {
            let got = retry(|| pread(&file, &mut chunk[..], at))?;
            if got == 0 || chunk[..got].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += got as u64;
        }
        Ok(true)
    }

    fn make_segment(&self, lane: LaneId, segment: SegmentId, bytes: u64) -> io::Result<OwnedFd> {
        if !bytes.is_multiple_of(BLOCK_BYTES as u64) || bytes == 0 {
            return Err(io::Error::from(Errno::INVAL));
        }
        // Before the file gets its name, so that a lack of descriptors cannot come in between.
        let dir = open_dir(&self.lane_dir(lane))?;
        let path = self.segment_path(lane, segment);
        let unfinished = path.with_extension("new");
        let filled = fill(&unfinished, bytes).and_then(|file| {
            fs::renameat_with(fs::CWD, &unfinished, fs::CWD, &path, RenameFlags::NOREPLACE)?;
            Ok(file)
        });
        // The error matters more than what becomes of the remains: the next attempt takes them away.
        let file = filled.inspect_err(|_| {
            let _ = fs::unlink(&unfinished);
        })?;
        fs::fsync(&dir).inspect_err(|_| {
            let _ = fs::unlink(&path);
        })?;
        Ok(file)
    }
}

/// A new file of `bytes` zeros at `path`, durable but for its name.
fn fill(path: &Path, bytes: u64) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::from_raw_mode(0o600))?;
    match fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) | Ok(()) => {}
        Err(errno) => return Err(errno),
    }
    write_zeros(&file, bytes)?;
    fs::fdatasync(&file)?;
    Ok(file)
}

/// Overwrites all of `file` with zeros, so that later writes find written extents and need no journal commit.
fn write_zeros(file: impl AsFd, bytes: u64) -> Result<(), Errno> {
    let zeros = AlignedBuf::zeroed(CHUNK_BYTES);
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(CHUNK_BYTES as u64) as usize;
        match pwrite(&file, &zeros[..len], at) {
            // A disk that is full in the middle of a block reports what fitted; the next write tells why.
            Ok(written) if written > 0 && written.is_multiple_of(BLOCK_BYTES) => at += written as u64,
            Ok(_) => return Err(Errno::NOSPC),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn open_dir(dir: &Path) -> Result<OwnedFd, Errno> {
    fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn sync_dir(dir: &Path) -> Result<(), Errno> {
    fs::fsync(open_dir(dir)?)
}

/// Lanes that have a directory in `root`, which need not be open as a volume.
pub(super) fn lanes_in(root: &Path) -> io::Result<usize> {
    let mut lanes = 0;
    for entry in fs::Dir::read_from(open_dir(root)?)? {
        let entry = entry?;
        let number = entry.file_name().to_bytes().strip_prefix(b"lane-");
        lanes += usize::from(number.is_some_and(|digits| digits.iter().all(u8::is_ascii_digit)));
    }
    Ok(lanes)
}

/// The number in `0000002a.seg`; `None` for every other name.
fn segment_number(name: &[u8]) -> Option<SegmentId> {
    let digits = name.strip_suffix(b".seg").filter(|digits| digits.len() == 8)?;
    let lower_hex = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| lower_hex)?;
    u32::from_str_radix(digits, 16).ok().map(SegmentId)
}

/// What a small file is called until it is whole; added to its name, so that no two share one.
const UNFINISHED_META: &str = ".new";

/// Refuses names that would leave the root, hide in it, or collide with its own entries.
fn meta_path(root: &Path, name: &str) -> io::Result<PathBuf> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if !plain || name == "LOCK" || name.starts_with("lane-") || name.ends_with(UNFINISHED_META) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is no name for a small file"),
        ));
    }
    Ok(root.join(name))
}

impl Volume for FsVolume {
    fn segments(&self, lane: LaneId) -> io::Result<Vec<SegmentFile>> {
        let dir = open_dir(&self.lane_dir(lane))?;
        let mut found = Vec::new();
        for entry in fs::Dir::read_from(&dir)? {
            let entry = entry?;
            if let Some(segment) = segment_number(entry.file_name().to_bytes()) {
                let stat = fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                found.push(SegmentFile { segment, bytes: stat.st_size as u64 });
            }
        }
        Ok(found)
    }

    fn sync_segment(&self, lane: LaneId, segment: SegmentId) -> io::Result<()> {
        Ok(fs::fdatasync(self.open_segment(lane, segment)?)?)
    }

    fn read_at(&self, lane: LaneId, segment: SegmentId, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self.open_segment(lane, segment)?;
        let mut bounce: Option<AlignedBuf> = None;
        let mut done = 0;
        while done < buf.len() {
            let part = (buf.len() - done).min(CHUNK_BYTES);
            let target = &mut buf[done..done + part];
            let aligned =
                target.as_ptr().addr().is_multiple_of(BLOCK_BYTES) && part.is_multiple_of(BLOCK_BYTES);
            let at = offset + done as u64;
            let got = if aligned {
                retry(|| pread(&file, &mut *target, at))?
            } else {
                let bounce = bounce.get_or_insert_with(|| AlignedBuf::zeroed(CHUNK_BYTES));
                let whole = part.next_multiple_of(BLOCK_BYTES);
                let got = retry(|| pread(&file, &mut bounce[..whole], at))?.min(part);
                target[..got].copy_from_slice(&bounce[..got]);
                got
            };
            done += got;
            if got < part {
                break;
            }
        }
        Ok(done)
    }

    fn create_segment(&self, lane: LaneId, segment: SegmentId, bytes: u64) -> io::Result<()> {
        self.make_segment(lane, segment, bytes).map(drop)
    }

    fn create_lane(&self, lane: LaneId) -> io::Result<()> {
        match fs::mkdir(self.lane_dir(lane), Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Ok(sync_dir(&self.root)?),
            Err(errno) => Err(errno.into()),
        }
    }

    fn read_meta(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match super::files::read(&meta_path(&self.root, name)?, META_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(super::files::FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(super::files::FileError::Io { source, .. }) => Err(source),
            Err(other) => Err(io::Error::new(io::ErrorKind::InvalidData, other)),
        }
    }

    fn replace_meta(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = meta_path(&self.root, name)?;
        let new = self.root.join(format!("{name}{UNFINISHED_META}"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(fs::open(&new, flags, Mode::from_raw_mode(0o600))?);
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        Ok(sync_dir(&self.root)?)
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(3);

    fn volume() -> (tempfile::TempDir, FsVolume) {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let volume = FsVolume::open(dir.path()).expect("nobody else has it");
        volume.create_lane(LANE).expect("a new lane");
        (dir, volume)
    }

    #[test]
    fn a_directory_in_use_is_refused_until_its_user_is_gone() {
        let (dir, volume) = volume();
        let refused = FsVolume::open(dir.path()).expect_err("locked");
        assert!(matches!(refused, VolumeError::InUse { .. }), "{refused}");
        drop(volume);
        FsVolume::open(dir.path()).expect("free again");
    }

    #[test]
    fn a_segment_is_zero_listed_and_readable_at_any_alignment_of_the_target() {
        let (dir, volume) = volume();
        volume.create_segment(LANE, SegmentId(0x2a), 1 << 20).expect("there is room");
        assert!(dir.path().join("lane-003/0000002a.seg").exists());
        let expected = SegmentFile { segment: SegmentId(0x2a), bytes: 1 << 20 };
        assert_eq!(volume.segments(LANE).expect("readable"), [expected]);
        let mut buf = vec![1_u8; (1 << 20) + 1 + BLOCK_BYTES];
        let got = volume.read_at(LANE, SegmentId(0x2a), 0, &mut buf[1..]).expect("readable");
        assert_eq!(got, 1 << 20);
        assert!(buf[1..=1 << 20].iter().all(|byte| *byte == 0));
        let mut aligned = AlignedBuf::zeroed(2 * BLOCK_BYTES);
        let end = (1 << 20) - BLOCK_BYTES as u64;
        let short = volume.read_at(LANE, SegmentId(0x2a), end, &mut aligned).expect("readable");
        assert_eq!(short, BLOCK_BYTES);
    }

    #[test]
    fn a_segment_that_exists_is_not_made_again_and_loses_nothing() {
        let (dir, volume) = volume();
        let file = volume.prepare_segment(LANE, SegmentId(0), BLOCK_BYTES as u64).expect("there is room");
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
        block.fill(7);
        assert_eq!(pwrite(&file, &block, 0), Ok(BLOCK_BYTES));
        let again = [
            volume.create_segment(LANE, SegmentId(0), BLOCK_BYTES as u64),
            volume.prepare_segment(LANE, SegmentId(0), BLOCK_BYTES as u64).map(drop),
        ];
        for refused in again {
            assert_eq!(refused.expect_err("exists").kind(), io::ErrorKind::AlreadyExists);
        }
        let mut read = AlignedBuf::zeroed(BLOCK_BYTES);
        volume.read_at(LANE, SegmentId(0), 0, &mut read).expect("readable");
        assert_eq!(read[..], block[..]);
        assert!(!dir.path().join("lane-003/00000000.new").exists());
    }

    #[test]
    fn a_blank_segment_that_an_attempt_named_and_gave_up_is_prepared_again_but_only_if_it_has_the_size() {
        let (_dir, volume) = volume();
        let bytes = CHUNK_BYTES as u64 + BLOCK_BYTES as u64;
        volume.create_segment(LANE, SegmentId(0), bytes).expect("there is room");
        volume.prepare_segment(LANE, SegmentId(0), bytes).expect("nothing is lost with it");
        let listed = volume.segments(LANE).expect("readable");
        assert_eq!(listed, [SegmentFile { segment: SegmentId(0), bytes }]);
        let other = volume.prepare_segment(LANE, SegmentId(0), BLOCK_BYTES as u64).expect_err("another size");
        assert_eq!(other.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_segment_of_which_one_late_block_holds_something_is_kept() {
        let (_dir, volume) = volume();
        let bytes = 2 * CHUNK_BYTES as u64;
        let file = volume.prepare_segment(LANE, SegmentId(0), bytes).expect("there is room");
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
        block[BLOCK_BYTES - 1] = 1;
        assert_eq!(pwrite(&file, &block, bytes - BLOCK_BYTES as u64), Ok(BLOCK_BYTES));
        let refused = volume.prepare_segment(LANE, SegmentId(0), bytes).expect_err("it holds something");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_a_crash_left_of_a_preparation_is_no_segment_and_not_in_the_way() {
        let (dir, volume) = volume();
        let any = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        std::fs::copy(any, dir.path().join("lane-003/00000000.new")).expect("a remnant");
        for foreign in ["1.seg", "0000000A.seg", "00000000.seg.bak", "notes"] {
            std::fs::copy(any, dir.path().join("lane-003").join(foreign)).expect("a foreign file");
        }
        assert_eq!(volume.segments(LANE).expect("readable"), []);
        volume.create_segment(LANE, SegmentId(0), BLOCK_BYTES as u64).expect("not in the way");
    }

    #[test]
    fn a_small_file_is_absent_then_replaced_whole_and_cannot_leave_the_root() {
        let (_dir, volume) = volume();
        for name in ["super", "store.id"] {
            assert_eq!(volume.read_meta(name).expect("readable"), None);
            volume.replace_meta(name, b"one").expect("writable");
            volume.replace_meta(name, b"two").expect("writable");
            assert_eq!(volume.read_meta(name).expect("readable").as_deref(), Some(&b"two"[..]));
        }
        for name in ["", ".", "..", ".id", "../super", "a/b", "LOCK", "lane-000", "store.id.new"] {
            assert!(volume.replace_meta(name, b"x").is_err(), "{name:?}");
            assert!(volume.read_meta(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_a_crash_left_of_a_replacement_is_not_read_and_not_in_the_way() {
        let (dir, volume) = volume();
        volume.replace_meta("store.id", b"whole").expect("writable");
        let any = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        std::fs::copy(any, dir.path().join("store.id.new")).expect("a remnant");
        assert_eq!(volume.read_meta("store.id").expect("readable").as_deref(), Some(&b"whole"[..]));
        volume.replace_meta("store.id", b"next").expect("not in the way");
        assert_eq!(volume.read_meta("store.id").expect("readable").as_deref(), Some(&b"next"[..]));
        assert!(!dir.path().join("store.id.new").exists());
    }
}
