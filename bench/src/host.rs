//! The machine under the benchmark: processors, limits, and what a process has used, read from `/proc`.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, disable_transparent_huge_pages, sched_getaffinity, sched_setaffinity};

use crate::error::{BenchError, Context, Result};

/// File descriptors asked for; as many as a root user may have without touching the kernel's settings.
const FILES_WANTED: u64 = 1 << 20;

/// Which processors the servers and the generator run on.
#[derive(Clone, Debug)]
pub struct Processors {
    /// For the generator: the last one that is left.
    pub generator: usize,
    /// For servers.
    pub server: usize,
    /// All of them.
    pub all: Vec<usize>,
}

impl Processors {
    /// Reads what this process may use. `server` is for the servers if named, else the first.
    pub fn detect(server: Option<usize>) -> Result<Self> {
        let set = sched_getaffinity(None).context("reading the processors of this process")?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        let server = server.or(all.first().copied());
        let generator = all.iter().rev().copied().find(|cpu| Some(*cpu) != server);
        match (server.filter(|cpu| all.contains(cpu)), generator) {
            (Some(server), Some(generator)) => Ok(Self { generator, server, all }),
            _ => Err(BenchError::Missing(
                "a benchmark needs two processors: one for the server, one for the load generator".into(),
            )),
        }
    }

    /// Runs `work` with the calling thread on `cpus`, so that processes and threads it starts inherit them,
    /// and then puts the thread back onto the generator's processor.
    pub fn on<T>(&self, cpus: &[usize], work: impl FnOnce() -> Result<T>) -> Result<T> {
        pin(cpus)?;
        let result = work();
        pin(&[self.generator])?;
        result
    }
}

/// Pins the calling thread.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).context(format!("pinning a thread to the processors {cpus:?}"))
}

/// Raises the limit of open files as far as this user may. Returns the limit.
pub fn raise_file_limit() -> Result<u64> {
    let wanted = Rlimit { current: Some(FILES_WANTED), maximum: Some(FILES_WANTED) };
    if setrlimit(Resource::Nofile, wanted).is_ok() {
        return Ok(FILES_WANTED);
    }
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(FILES_WANTED);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })
        .context("raising the limit of open files")?;
    Ok(most)
}

/// Whether the kernel may give this process huge pages. Clearing one takes milliseconds, which the generator
/// must not lose; programs inherit it, and each server is to have what it chooses itself.
pub fn allow_huge_pages(allow: bool) -> Result<()> {
    disable_transparent_huge_pages(!allow).context("setting the use of huge pages")
}

/// Processor time that all threads of a process have used, in microseconds; user and kernel. The kernel
/// counts it in hundredths of a second.
pub fn process_cpu_us(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/stat", pid = pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).context(format!("reading {path}"))?;
    // The name of the program is in parentheses and may hold anything; fields are counted from behind it.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    // Fields 14 and 15 of proc_pid_stat(5).
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(BenchError::Missing(format!("{path} has an unknown form")));
    };
    Ok((user + system) * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// Processor time that programs which this one started, and which have ended, spent in their own code, in
/// microseconds.
pub fn children_us() -> Result<u64> {
    let path = "/proc/self/stat";
    let text = fs::read_to_string(path).context(format!("reading {path}"))?;
    // Field 16 of proc_pid_stat(5), counted from behind the name.
    let field = text.rsplit(')').next().unwrap_or_default().split_whitespace().nth(13);
    let ticks = field.and_then(|field| field.parse::<u64>().ok());
    ticks
        .map(|ticks| ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
        .ok_or_else(|| BenchError::Missing(format!("{path} has an unknown form")))
}

/// Processor time of the calling thread, in microseconds.
pub fn thread_cpu_us() -> Result<u64> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).context(format!("reading {path}"))?;
    let ns = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
    ns.map(|ns| ns / 1000).ok_or_else(|| BenchError::Missing(format!("{path} has an unknown form")))
}

/// Time of one processor since the machine started, in hundredths of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessorTimes {
    programs: u64,
    idle: u64,
    all: u64,
}

impl ProcessorTimes {
    /// Of processor number `cpu`.
    pub fn of(cpu: usize) -> Result<Self> {
        let path = "/proc/stat";
        let text = fs::read_to_string(path).context(format!("reading {path}"))?;
        let name = format!("cpu{cpu} ");
        let fields = text.lines().find_map(|line| line.strip_prefix(&name));
        let times: Vec<u64> =
            fields.unwrap_or_default().split_whitespace().map_while(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in the first two.
        let Some([user, nice, _, idle, iowait, ..]) = times.get(..8) else {
            return Err(BenchError::Missing(format!("{path} has an unknown form")));
        };
        Ok(Self { programs: user + nice, idle: idle + iowait, all: times[..8].iter().sum() })
    }

    /// Share of the time since then in which the processor ran other programs than the one that used
    /// `own_us` microseconds of it.
    pub fn foreign_until_now(self, cpu: usize, own_us: u64) -> Result<f64> {
        let (all, (_, programs)) = (Self::of(cpu)?.all.saturating_sub(self.all), self.shares_until_now(cpu)?);
        let all_us = (all * 1_000_000 / rustix::param::clock_ticks_per_second()).max(1);
        Ok((programs - own_us as f64 / all_us as f64).max(0.0))
    }

    /// Shares of the time since then, for whomever: in which the processor did anything, and in which it ran
    /// programs' own code.
    pub fn shares_until_now(self, cpu: usize) -> Result<(f64, f64)> {
        let now = Self::of(cpu)?;
        let share = |before: u64, now: u64| now.saturating_sub(before) as f64;
        let all = share(self.all, now.all).max(1.0);
        Ok((1.0 - share(self.idle, now.idle) / all, share(self.programs, now.programs) / all))
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, shared pages counted in part.
    pub pss: u64,
}

/// What a process holds in memory.
pub fn process_memory(pid: Pid) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup", pid = pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).context(format!("reading {path}"))?;
    Ok(Memory { rss: kib_field(&text, "Rss:"), pss: kib_field(&text, "Pss:") })
}

/// Memory of the kernel in slabs and socket buffers, in bytes: of the whole machine, so only differences
/// mean something.
pub fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    Ok(kib_field(&text, "Slab:") + kib_field(&text, "Percpu:"))
}

fn kib_field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// What machine this is, in one line each.
pub fn describe() -> Vec<String> {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or_else(|| line.to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    vec![
        format!("processor: {} ({processors} usable)", first("/proc/cpuinfo", "model name")),
        format!("memory: {}", first("/proc/meminfo", "MemTotal")),
        format!("kernel: {}", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()),
    ]
}
