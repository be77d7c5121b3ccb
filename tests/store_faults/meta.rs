//! Small files of the store whose system calls fail, or during which the process is killed.
//!
//! A filter in the kernel lets one system call of a child return an error, or end the child. So it does not
//! matter through which library a call is made.

use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::process::Output;

use shards::io::Volume;
use shards::{OpenError, Store, StoreConfig, StoreId};
use trine::rt::volume::FsVolume;

const CHILD: &str = "TRINE_STORE_FAULTS_META";
const FILE: &str = "store.id";
const NODE: [u8; 32] = [7; 32];

/// A system call of the replacement of a small file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Write,
    SyncFile,
    Rename,
    SyncDirectory,
}

const CALLS: [Call; 4] = [Call::Write, Call::SyncFile, Call::Rename, Call::SyncDirectory];
const KILL: i32 = 0;
const FAULTS: [i32; 3] = [libc::EIO, libc::ENOSPC, KILL];

impl Call {
    /// Numbers of the system call, and the descriptor it is for: the next two that will be opened are the new
    /// file and the directory.
    fn numbers(self, next: RawFd) -> (Vec<libc::c_long>, Option<RawFd>) {
        match self {
            Self::Write => (vec![libc::SYS_write], Some(next)),
            Self::SyncFile => (vec![libc::SYS_fsync], Some(next)),
            Self::Rename => {
                let mut numbers = vec![libc::SYS_renameat, libc::SYS_renameat2];
                #[cfg(target_arch = "x86_64")]
                numbers.push(libc::SYS_rename);
                (numbers, None)
            }
            Self::SyncDirectory => (vec![libc::SYS_fsync], Some(next + 1)),
        }
    }
}

/// The number that the next descriptor gets.
fn next_descriptor() -> RawFd {
    std::fs::File::open("/dev/null").unwrap().as_raw_fd()
}

/// Lets this system call of this thread end with an error, or end the process.
fn forbid(call: Call, fault: i32) {
    let (numbers, descriptor) = call.numbers(next_descriptor());
    let action = match fault {
        KILL => libc::SECCOMP_RET_KILL_PROCESS,
        errno => libc::SECCOMP_RET_ERRNO | errno as u32,
    };
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let skip_unless =
        |k: u32, skipped: u8| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 0, skipped);
    let end = |value: u32| instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // The number of the call is the first field of what a filter sees; its first argument the fourth.
    let (number_at, argument_at) = (0, 16);
    let mut program = Vec::new();
    for number in numbers {
        program.push(load(number_at));
        match descriptor {
            Some(descriptor) => {
                program.push(skip_unless(number as u32, 3));
                program.push(load(argument_at));
                program.push(skip_unless(descriptor as u32, 1));
            }
            None => program.push(skip_unless(number as u32, 1)),
        }
        program.push(end(action));
    }
    program.push(end(libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: both calls only read their arguments; the program lives until they return.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
    };
    assert!(!failed, "{}", std::io::Error::last_os_error());
}

fn config() -> StoreConfig {
    StoreConfig {
        lanes: 1,
        segment_bytes: 64 << 10,
        segments_per_lane: 1,
        store_id: StoreId([3; 16]),
        mixing_secret: [5; 32],
        node_id: NODE,
        created_ms: 0,
    }
}

/// Replaces a small file, or formats a store, while a call fails. Run by the tests of both, as a process of
/// its own.
#[test]
fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let mut words = given.splitn(4, ' ');
    let what = words.next().unwrap();
    let call = CALLS[words.next().unwrap().parse::<usize>().unwrap()];
    let fault = words.next().unwrap().parse().unwrap();
    let volume = FsVolume::open(Path::new(words.next().unwrap())).unwrap();
    if what == "replace" {
        forbid(call, fault);
        let error = volume.replace_meta(FILE, b"the new one").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(fault), "{call:?}");
    } else {
        // What is made before the file is not what this is about.
        let error = Store::format(&Until(volume, call, fault), &config()).unwrap_err();
        println!("refused: {error}");
    }
}

/// A volume on which calls fail from the small file on.
struct Until(FsVolume, Call, i32);

impl Volume for Until {
    fn segments(&self, lane: shards::io::LaneId) -> std::io::Result<Vec<shards::io::SegmentFile>> {
        self.0.segments(lane)
    }

    fn read_at(
        &self,
        lane: shards::io::LaneId,
        segment: shards::io::SegmentId,
        offset: u64,
        buf: &mut [u8],
    ) -> std::io::Result<usize> {
        self.0.read_at(lane, segment, offset, buf)
    }

    fn sync_segment(&self, lane: shards::io::LaneId, segment: shards::io::SegmentId) -> std::io::Result<()> {
        self.0.sync_segment(lane, segment)
    }

    fn create_segment(
        &self,
        lane: shards::io::LaneId,
        segment: shards::io::SegmentId,
        bytes: u64,
    ) -> std::io::Result<()> {
        self.0.create_segment(lane, segment, bytes)
    }

    fn create_lane(&self, lane: shards::io::LaneId) -> std::io::Result<()> {
        self.0.create_lane(lane)
    }

    fn read_meta(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        self.0.read_meta(name)
    }

    fn replace_meta(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        forbid(self.1, self.2);
        self.0.replace_meta(name, bytes)
    }
}

fn run(what: &str, call: usize, fault: i32, dir: &Path) -> Output {
    let given = format!("{what} {call} {fault} {}", dir.display());
    let output = super::again("meta::child", CHILD, &given).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    match fault {
        KILL => assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(31), "{out}"),
        _ => assert!(output.status.success(), "{out}"),
    }
    output
}

fn each_fault(mut test: impl FnMut(usize, i32, &Path)) {
    for call in 0..CALLS.len() {
        for fault in FAULTS {
            let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            test(call, fault, dir.path());
        }
    }
}

#[test]
fn a_small_file_whose_replacement_fails_or_dies_is_the_old_one_or_the_new_one() {
    each_fault(|call, fault, dir| {
        let volume = FsVolume::open(dir).unwrap();
        volume.replace_meta(FILE, b"the old one").unwrap();
        drop(volume);
        run("replace", call, fault, dir);
        let volume = FsVolume::open(dir).unwrap();
        let expected: &[u8] =
            if CALLS[call] == Call::SyncDirectory { b"the new one" } else { b"the old one" };
        assert_eq!(volume.read_meta(FILE).unwrap().as_deref(), Some(expected), "{:?} {fault}", CALLS[call]);
        volume.replace_meta(FILE, b"a third one, once the disk is well").unwrap();
        let read = volume.read_meta(FILE).unwrap();
        assert_eq!(read.as_deref(), Some(&b"a third one, once the disk is well"[..]));
    });
}

#[test]
fn a_store_whose_format_fails_or_dies_is_none_or_a_whole_one_and_the_error_says_what_to_do() {
    each_fault(|call, fault, dir| {
        let output = run("format", call, fault, dir);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if fault != KILL {
            let refused = out.lines().find(|line| line.contains("refused: ")).unwrap();
            let says = ["writing the store's file", &format!("(os error {fault})"), "try again"];
            assert!(says.iter().all(|part| refused.contains(part)), "{refused}");
        }
        let volume = FsVolume::open(dir).unwrap();
        let opened = Store::open(&volume, &NODE);
        match (CALLS[call], &opened) {
            (Call::SyncDirectory, Ok(store)) => assert_eq!(store.id(), StoreId([3; 16])),
            (Call::Write | Call::SyncFile | Call::Rename, Err(OpenError::Missing)) => {}
            unexpected => panic!("{unexpected:?}"),
        }
        if matches!(opened, Err(OpenError::Missing)) {
            std::fs::remove_dir_all(dir.join("lane-000")).unwrap();
            Store::format(&volume, &config()).unwrap();
        }
    });
}
