//! The servers under test: each is started fresh in a directory of its own, pinned, and killed when it is
//! dropped.

pub mod nats;
pub mod redis;
pub mod trine;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tempfile::TempDir;

use crate::error::{BenchError, Context, Result};
use crate::host::{self, Memory, Processors};

/// How long a server may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks at a port that does not answer yet.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the scenarios need to start servers.
#[derive(Debug)]
pub struct Bench {
    /// The node's binary.
    pub trine: PathBuf,
    /// Where servers keep their data during a run.
    pub dir: PathBuf,
    /// Who runs where.
    pub processors: Processors,
}

/// A running server process.
pub struct Server {
    child: Child,
    /// Where it takes connections.
    pub addr: SocketAddr,
    /// Removed after the process has ended.
    _dir: Option<TempDir>,
}

impl Server {
    /// Processor time used so far by all its threads, in microseconds.
    pub fn cpu_us(&self) -> Result<u64> {
        host::process_cpu_us(self.pid())
    }

    /// What it holds in memory.
    pub fn memory(&self) -> Result<Memory> {
        host::process_memory(self.pid())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already if this fails; either way nothing is left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// A fresh directory for one run of one server. What the run before has left to write and to discard is
    /// done first, so that nobody pays for it.
    pub fn fresh_dir(&self, name: &str) -> Result<TempDir> {
        rustix::fs::sync();
        let dir = tempfile::Builder::new().prefix(&format!("bench-{name}-")).tempdir_in(&self.dir);
        dir.context(format!("making a directory in {}", self.dir.display()))
    }

    fn spawn(&self, command: &mut Command, cpus: &[usize]) -> Result<Child> {
        let name = command.get_program().to_string_lossy().into_owned();
        host::allow_huge_pages(true)?;
        let child = self.processors.on(cpus, || command.spawn().context(format!("starting {name}")));
        host::allow_huge_pages(false)?;
        child
    }
}

/// A port that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

/// Waits until something listens.
fn await_port(child: Child, addr: SocketAddr, dir: TempDir) -> Result<Server> {
    let server = Server { child, addr, _dir: Some(dir) };
    let until = Instant::now() + START_WITHIN;
    while TcpStream::connect(addr).is_err() {
        if Instant::now() > until {
            return Err(BenchError::TooLate {
                what: format!("a server on {addr}"),
                seconds: START_WITHIN.as_secs(),
            });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(server)
}

/// The first line on a child's standard output that begins with `mark`.
fn await_line(child: &mut Child, mark: &str) -> Result<String> {
    let stdout = child.stdout.take();
    let lines = stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines);
    let line = lines.map_while(std::result::Result::ok).find(|line| line.starts_with(mark));
    line.ok_or_else(|| {
        BenchError::Missing(format!("the server ended before it said `{mark}`; see its errors above"))
    })
}

/// Finds a program in `PATH` or where Debian puts servers.
pub fn find(program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/bin".into()]);
    places.map(|place| place.join(program)).find(|file| file.is_file()).ok_or_else(|| {
        BenchError::Missing(format!(
            "{program} is not installed: `apt-get install {package}`; going on without it"
        ))
    })
}

fn version_of(program: &Path, flag: &str) -> Result<String> {
    let output = Command::new(program).arg(flag).stderr(Stdio::null()).output();
    let output = output.context(format!("asking {} for its version", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
