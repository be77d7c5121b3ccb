//! What the machine must offer, checked before anything is started, with the way to fix what is missing.
//!
//! Every check is made whatever the others said, so that one run names everything. A [`Report`] prints as a
//! list and serialises for `/statusz` and for tools.

use std::fmt;
use std::io;
use std::path::Path;

use io_uring::{IoUring, Probe, opcode};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use shards::io::BLOCK_BYTES;

use super::descriptors::DescriptorPlan;
use super::ring::RingConfig;
use super::volume::lanes_in;

/// The oldest kernel that runs a node: the first with `DEFER_TASKRUN`.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The oldest kernel that runs it well.
const KERNEL_ADVISED: (u32, u32) = (6, 12);
/// Locked memory that glommio needs before it starts, in bytes, and what it registers per core on three
/// rings.
const GLOMMIO_MEMLOCK_BYTES: u64 = 512 << 10;
const GLOMMIO_MEMLOCK_PER_CORE_BYTES: u64 = 3 * (64 << 10);

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// The node cannot start.
    Missing,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub fix: String,
}

/// Everything that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks, in the order in which they matter.
    pub checks: Vec<Check>,
}

impl Report {
    /// True if nothing is missing.
    pub fn can_start(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Missing)
    }

    /// What is missing or could be better.
    pub fn problems(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.verdict != Verdict::Ok)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Missing => "MISSING",
        };
        write!(f, "{mark} {}: {}", self.name, self.found)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "\n        -> {}", self.fix) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}

/// Checks the machine for a node of `cores` cores with its data in `data`, if it has any yet. Raises the soft
/// limit of descriptors to the hard one.
pub fn check(cores: u16, ring: &RingConfig, data: Option<&Path>) -> Report {
    let (memlock_limit, exempt) = (getrlimit(Resource::Memlock).current, holds_ipc_lock());
    if memlock_limit.is_some() && !exempt {
        refuse_huge_pages();
    }
    let limit = raise_descriptors();
    // A directory that cannot be read is found missing below.
    let lanes = data.and_then(|data| lanes_in(data).ok()).unwrap_or(0);
    let mut checks = vec![
        kernel(&kernel_release()),
        io_uring_allowed(std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok().as_deref()),
        ring_features(probe()),
        memlock(memlock_limit, cores, ring, exempt),
        descriptors(DescriptorPlan::of(limit, cores, lanes, ring.connections_max)),
    ];
    checks.extend(data.map(|data| direct_io(data, direct_alignment(data))));
    Report { checks }
}

fn ok(name: &'static str, found: String) -> Check {
    Check { name, verdict: Verdict::Ok, found, fix: String::new() }
}

fn warning(name: &'static str, found: String, fix: &str) -> Check {
    Check { name, verdict: Verdict::Warning, found, fix: fix.into() }
}

fn missing(name: &'static str, found: String, fix: &str) -> Check {
    Check { name, verdict: Verdict::Missing, found, fix: fix.into() }
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn kernel(release: &str) -> Check {
    let name = "kernel";
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else {
        return warning(name, format!("{release} (not understood)"), "run Linux 6.1 or later");
    };
    if (major, minor) < KERNEL_MIN {
        return missing(name, release.into(), "run Linux 6.1 or later; 6.12 is advised");
    }
    if (major, minor) < KERNEL_ADVISED {
        return warning(name, release.into(), "6.12 or later is advised");
    }
    ok(name, release.into())
}

fn io_uring_allowed(setting: Option<&str>) -> Check {
    let name = "io_uring sysctl";
    match setting.map(str::trim) {
        // Kernels before 6.6 have no such switch.
        None | Some("0") => ok(name, "enabled".into()),
        Some("1") => warning(
            name,
            "restricted to privileged users and a group (kernel.io_uring_disabled = 1)".into(),
            "sysctl kernel.io_uring_disabled=0, or add the node's user to kernel.io_uring_group",
        ),
        Some(other) => missing(
            name,
            format!("disabled for everybody (kernel.io_uring_disabled = {other})"),
            "sysctl kernel.io_uring_disabled=0",
        ),
    }
}

/// The operations that the driver uses, with the names by which a person finds them.
const OPERATIONS: [(u8, &str); 9] = [
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::RecvMulti::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::MsgRingData::CODE, "MSG_RING"),
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::ReadFixed::CODE, "READ_FIXED"),
    (opcode::WriteFixed::CODE, "WRITE_FIXED"),
];

/// Makes a tiny ring with the driver's flags, and names the operations it lacks.
fn probe() -> io::Result<Vec<&'static str>> {
    let ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(4)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let mut lacking: Vec<_> =
        OPERATIONS.iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name).collect();
    let features = ring.params();
    lacking.extend((!features.is_feature_ext_arg()).then_some("EXT_ARG"));
    lacking.extend((!features.is_feature_nodrop()).then_some("NODROP"));
    Ok(lacking)
}

fn ring_features(probed: io::Result<Vec<&'static str>>) -> Check {
    let name = "io_uring";
    match probed {
        Ok(lacking) if lacking.is_empty() => ok(name, "all operations present".into()),
        Ok(lacking) => missing(name, format!("without {}", lacking.join(", ")), "run Linux 6.1 or later"),
        Err(error) => {
            let fix = match error.raw_os_error() {
                Some(libc::EPERM) => {
                    "it is forbidden: check kernel.io_uring_disabled, and in a container its seccomp profile \
                     (docker: --security-opt seccomp=unconfined or a profile that allows io_uring_*)"
                }
                Some(libc::ENOSYS) => "the kernel, WSL 1 or gVisor has none: run Linux 6.1 or later",
                Some(libc::EINVAL) => {
                    "the kernel lacks SINGLE_ISSUER or DEFER_TASKRUN: run Linux 6.1 or later"
                }
                Some(libc::ENOMEM) => "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)",
                Some(libc::EMFILE) => "raise the limit of descriptors (ulimit -n, LimitNOFILE=)",
                _ => "see io_uring_setup(2) for the error",
            };
            missing(name, format!("a ring cannot be made: {error}"), fix)
        }
    }
}

/// Keeps this process off huge pages from here on. A pinned buffer counts against the limit of locked memory
/// with the whole page that holds it, so a few buffers of 64 KiB, scattered over huge pages of 2 MiB, would
/// use up 8 MiB.
fn refuse_huge_pages() {
    // SAFETY: the call changes how later page faults are served, and touches no memory.
    let refused = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if refused != 0 {
        tracing::debug!(
            "huge pages cannot be refused; pinned buffers may need more locked memory than they hold"
        );
    }
}

/// True if limits of locked memory do not hold for this process.
fn holds_ipc_lock() -> bool {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps & CAP_IPC_LOCK != 0)
}

fn memlock(limit_bytes: Option<u64>, cores: u16, ring: &RingConfig, exempt: bool) -> Check {
    let name = "locked memory";
    let registered = u64::from(ring.disk_buffers) * ring.disk_buffer_bytes as u64;
    let per_core = registered + GLOMMIO_MEMLOCK_PER_CORE_BYTES;
    let need = (u64::from(cores) * per_core).max(GLOMMIO_MEMLOCK_BYTES);
    // glommio looks at the limit even where it does not hold.
    let have = match limit_bytes {
        None => return ok(name, "no limit".into()),
        Some(have) if exempt && have >= GLOMMIO_MEMLOCK_BYTES => {
            return ok(name, "exempt (CAP_IPC_LOCK)".into());
        }
        Some(have) => have,
    };
    let found = format!("{} KiB allowed, {} KiB needed by {cores} cores", have >> 10, need >> 10);
    if have >= need {
        return ok(name, found);
    }
    missing(name, found, "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit; or fewer disk buffers")
}

/// Raises the soft limit to the hard one and returns what holds then; `None` means no limit.
fn raise_descriptors() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

fn descriptors(plan: DescriptorPlan) -> Check {
    let name = "descriptors";
    let DescriptorPlan { reserved, connections, wanted, is_too_low, .. } = plan;
    let Some(limit) = plan.limit else { return ok(name, "no limit".into()) };
    let kept = format!("{limit} allowed, {reserved} of them kept for files and rings");
    let fix = "ulimit -n, or LimitNOFILE= in the unit; one descriptor per connection";
    if is_too_low {
        return missing(name, format!("{kept}, too few left for connections"), fix);
    }
    let found = format!("{kept}, at most {connections} connections per core");
    if connections < wanted {
        return warning(name, format!("{found} instead of {wanted}"), fix);
    }
    ok(name, found)
}

/// Alignment that direct I/O needs on files of `data`, in bytes: of memory and of offsets. `None` if the
/// kernel does not say, 0 if the file system has none.
fn direct_alignment(data: &Path) -> io::Result<Option<(u32, u32)>> {
    let file =
        rustix::fs::open(data, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
    let wanted = StatxFlags::DIOALIGN;
    let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, wanted)?;
    let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(wanted);
    Ok(told.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align)))
}

fn direct_io(data: &Path, alignment: io::Result<Option<(u32, u32)>>) -> Check {
    let name = "direct I/O";
    let place = data.display();
    let fix = "put the data directory on ext4 or XFS on a local disk";
    match alignment {
        Ok(Some((0, _) | (_, 0))) => missing(name, format!("{place} is on a file system without it"), fix),
        Ok(Some((memory, offset))) if memory as usize > BLOCK_BYTES || offset as usize > BLOCK_BYTES => {
            missing(name, format!("{place} needs blocks of {memory} and {offset} bytes, more than 4096"), fix)
        }
        Ok(Some((memory, offset))) => ok(name, format!("{place}: memory {memory}, offsets {offset} bytes")),
        Ok(None) => {
            warning(name, format!("{place} does not tell its alignment; 4096 bytes are assumed"), fix)
        }
        Err(error) => {
            missing(name, format!("{place} cannot be checked: {error}"), "make it a writable directory")
        }
    }
}

/// The directory that `path` will be in: itself, or its nearest ancestor that exists. For checks before a
/// store is made.
pub fn nearest_existing(path: &Path) -> &Path {
    let exists =
        |path: &&Path| rustix::fs::accessat(CWD, *path, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok();
    let found = path.ancestors().filter(|path| !path.as_os_str().is_empty()).find(exists);
    found.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(check: &Check) -> Verdict {
        assert_eq!(check.verdict == Verdict::Ok, check.fix.is_empty(), "a problem has a fix: {check}");
        check.verdict
    }

    #[test]
    fn this_machine_passes_and_its_report_prints_and_serialises() {
        let report = check(1, &RingConfig::default(), Some(Path::new(env!("CARGO_MANIFEST_DIR"))));
        assert!(report.can_start(), "{report}");
        assert_eq!(report.checks.len(), 6);
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(json["checks"][0]["name"], "kernel");
        assert_eq!(report.to_string().lines().count(), 6 + report.problems().count());
    }

    #[test]
    fn kernels_are_judged_by_their_first_two_numbers() {
        let table = [
            ("5.15.0-100-generic", Verdict::Missing),
            ("6.0.19", Verdict::Missing),
            ("6.1.0", Verdict::Warning),
            ("6.12.1-arch", Verdict::Ok),
            ("10.0", Verdict::Ok),
            ("odd", Verdict::Warning),
        ];
        for (release, expected) in table {
            assert_eq!(verdict(&kernel(release)), expected, "{release}");
        }
    }

    #[test]
    fn a_forbidden_or_lacking_ring_says_what_to_do() {
        assert_eq!(verdict(&io_uring_allowed(Some("2\n"))), Verdict::Missing);
        assert_eq!(verdict(&io_uring_allowed(Some("1\n"))), Verdict::Warning);
        assert_eq!(verdict(&io_uring_allowed(None)), Verdict::Ok);
        for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL, libc::ENOMEM, libc::EMFILE, libc::EIO] {
            assert_eq!(verdict(&ring_features(Err(io::Error::from_raw_os_error(errno)))), Verdict::Missing);
        }
        let lacking = ring_features(Ok(vec!["MSG_RING"]));
        assert!(verdict(&lacking) == Verdict::Missing && lacking.found.contains("MSG_RING"));
    }

    #[test]
    fn limits_are_judged_by_what_the_configuration_needs() {
        let ring = RingConfig::default();
        assert_eq!(
            verdict(&memlock(Some(8 << 20), 2, &ring, false)),
            Verdict::Ok,
            "the usual limit of 8 MiB"
        );
        assert_eq!(
            verdict(&memlock(Some(64 << 10), 1, &ring, true)),
            Verdict::Missing,
            "glommio looks at it"
        );
        let pinned = RingConfig { disk_buffers: 64, ..ring };
        assert_eq!(verdict(&memlock(Some(8 << 20), 1, &pinned, false)), Verdict::Missing);
        assert_eq!(verdict(&memlock(Some(8 << 20), 1, &pinned, true)), Verdict::Ok);
        let with = |limit| descriptors(DescriptorPlan::of(Some(limit), 2, 16, ring.connections_max));
        assert_eq!(verdict(&with(1_024)), Verdict::Missing);
        assert_eq!(verdict(&with(20_000)), Verdict::Warning);
        assert_eq!(verdict(&with(1 << 20)), Verdict::Ok);
    }

    #[test]
    fn file_systems_are_judged_by_their_alignment() {
        let at = |alignment| verdict(&direct_io(Path::new("/data"), Ok(alignment)));
        assert_eq!(at(Some((512, 512))), Verdict::Ok);
        assert_eq!(at(Some((4_096, 4_096))), Verdict::Ok);
        assert_eq!(at(Some((512, 16_384))), Verdict::Missing);
        assert_eq!(at(Some((0, 0))), Verdict::Missing);
        assert_eq!(at(None), Verdict::Warning);
        let gone = direct_alignment(Path::new("/nonexistent"));
        assert_eq!(verdict(&direct_io(Path::new("/nonexistent"), gone)), Verdict::Missing);
    }

    #[test]
    fn the_place_of_a_store_to_be_is_its_nearest_ancestor() {
        assert_eq!(nearest_existing(Path::new("/tmp/no/such/place")), Path::new("/tmp"));
        assert_eq!(nearest_existing(Path::new("no-such-place")), Path::new("."));
    }
}
