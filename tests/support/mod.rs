//! What the black-box tests share: the built program in processes of its own, which are killed when a test ends however
//! it ends, and waits that are bounded and look for a condition.

#![allow(dead_code, reason = "every test binary uses a part")]

pub mod people;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A small store: four lanes with segments of 4 MiB, made in a moment.
pub const SMALL: &str = "[store]\nlanes = 4\nsegment_bytes = \"4 MiB\"\nmax_bytes = \"256 MiB\"\n";

/// The program, without what this shell happens to have set for it.
pub fn trine() -> Command {
    plain(Path::new(env!("CARGO_BIN_EXE_trine")))
}

/// `program`, without settings from the environment.
pub fn plain(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("TRINE_")) {
            command.env_remove(name);
        }
    }
    command
}

/// A directory that goes when the test ends.
pub fn dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("trine-test-").tempdir().unwrap()
}

/// Looks again and again until `look` finds something; panics with `what` when it never does.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "the pause between two looks; the condition decides")]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: Vec<String>,
    pub err: String,
}

impl Finished {
    /// Panics unless the process ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Every line of standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Vec<Json> {
        self.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A process that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Starts `command` and gives it `input` on standard input.
    #[allow(clippy::disallowed_methods, reason = "a pipe that nobody reads would block the process")]
    pub fn start(mut command: Command, input: impl Into<Vec<u8>>) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.into());
        // A process that ends early does not read all of it.
        std::thread::spawn(move || stdin.write_all(&input));
        let ((out_to, out), (err_to, err)) = (channel(), channel());
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        std::thread::spawn(move || forward(stdout, &out_to));
        std::thread::spawn(move || forward(stderr, &err_to));
        Self { child, out, err, said: Vec::new() }
    }

    /// The next line of standard output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.out.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(error) => panic!("no line ({error}); standard error: {}", self.log()),
        }
    }

    /// What was said on standard error until now.
    pub fn log(&mut self) -> String {
        self.said.extend(self.err.try_iter());
        self.said.join("\n")
    }

    /// Waits until it said `text` on standard error.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        eventually(text, || self.log().contains(text).then_some(()));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let out = drain(&self.out);
        self.said.extend(drain(&self.err));
        let code = self.child.wait().unwrap().code();
        Finished { code, out, err: self.said.join("\n") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(from: impl Read, to: &Sender<String>) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

#[track_caller]
fn drain(from: &Receiver<String>) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    let mut lines = Vec::new();
    loop {
        match from.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => return lines,
            Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said {lines:#?}"),
        }
    }
}

/// Runs the program to its end.
#[track_caller]
pub fn run(args: &[&str]) -> Finished {
    run_with(args, "")
}

/// Runs the program to its end with `input` on standard input.
#[track_caller]
pub fn run_with(args: &[&str], input: impl Into<Vec<u8>>) -> Finished {
    start(args, input).finish()
}

/// Starts the program with `input` on standard input.
pub fn start(args: &[&str], input: impl Into<Vec<u8>>) -> Running {
    let mut command = trine();
    command.args(args);
    Running::start(command, input)
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A node that runs in a process of its own.
pub struct Node {
    pub running: Running,
    pub id: String,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub cores: usize,
}

/// How to start a node.
pub struct NodeArgs {
    pub data: PathBuf,
    /// Text of the configuration file.
    pub config: String,
    /// Where to listen; an unused port by default.
    pub listen: Option<SocketAddr>,
    pub cores: Option<u16>,
}

impl NodeArgs {
    /// A node in `dir/node`, with a small store.
    pub fn in_dir(dir: &Path) -> Self {
        Self { data: dir.join("node"), config: SMALL.into(), listen: None, cores: None }
    }

    /// With more settings.
    pub fn with(mut self, settings: &str) -> Self {
        self.config += settings;
        self
    }

    /// On so many cores.
    pub fn on_cores(mut self, cores: u16) -> Self {
        self.cores = Some(cores);
        self
    }

    /// On an address that was used before.
    pub fn at(mut self, listen: SocketAddr) -> Self {
        self.listen = Some(listen);
        self
    }

    /// Puts the arguments behind `command`.
    pub fn extend(&self, command: &mut Command) {
        let config = self.data.with_extension("toml");
        #[allow(clippy::disallowed_methods, reason = "a file of the test")]
        std::fs::write(&config, &self.config).unwrap();
        let listen = self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))).to_string();
        command.args(["node", "--dev", "--http", "127.0.0.1:0", "--listen", &listen]);
        command.arg("--data").arg(&self.data).arg("--config").arg(config);
        if let Some(cores) = self.cores {
            command.args(["--cores", &cores.to_string()]);
        }
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(&self) -> Node {
        let mut command = trine();
        self.extend(&mut command);
        Node::started(Running::start(command, ""))
    }

    /// Starts it in the expectation that it will not come up.
    #[track_caller]
    pub fn fails(&self) -> Finished {
        let mut command = trine();
        self.extend(&mut command);
        Running::start(command, "").finish()
    }
}

impl Node {
    /// Waits until the node in `running` is ready.
    #[track_caller]
    pub fn started(mut running: Running) -> Self {
        let line = running.line();
        let parse = || {
            let (id, rest) = line.strip_prefix("ready: node ")?.split_once(" on ")?;
            let mut parts = rest.split(", ");
            let listen = parts.next()?.parse().ok()?;
            let cores = parts.next()?.strip_suffix(" cores")?.parse().ok()?;
            let http = parts.next()?.strip_prefix("http ")?.parse().ok()?;
            Some((id.to_owned(), listen, cores, http))
        };
        let (id, listen, cores, http) = parse().unwrap_or_else(|| panic!("{line}"));
        Self { running, id, listen, http, cores }
    }

    /// Ends it with SIGKILL.
    pub fn kill(self) {
        drop(self);
    }

    /// Asks it to drain; it must end well.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.running.signal(Signal::TERM);
        self.running.finish().expect(0)
    }

    /// Status and body of a page.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String, String) {
        let config = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(PATIENCE)).build().into();
        let mut answer = agent.get(format!("http://{}{path}", self.http)).call().unwrap();
        let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        (answer.status().as_u16(), kind.unwrap_or_default(), answer.body_mut().read_to_string().unwrap())
    }

    /// A number of the whole node from `/statusz`.
    #[track_caller]
    pub fn total(&self, name: &str) -> u64 {
        let status: Json = serde_json::from_str(&self.get("/statusz").2).unwrap();
        status["total"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {status}"))
    }
}

/// A user with a key file.
pub struct User {
    pub key: PathBuf,
    pub address: String,
}

impl User {
    /// Makes a key in `dir`.
    #[track_caller]
    pub fn new(dir: &Path, name: &str) -> Self {
        let key = dir.join(format!("{name}.key"));
        let made = run(&["keygen", "--out", arg(&key)]).expect(0);
        Self { key, address: made.out[0].clone() }
    }

    fn command(&self, what: &str, at: SocketAddr, rest: &[&str]) -> Command {
        let mut command = trine();
        command.args([what, "--node", &at.to_string(), "--key", arg(&self.key)]).args(rest);
        command
    }

    /// `trine send` to its end.
    #[track_caller]
    pub fn send(&self, at: SocketAddr, to: &Self, rest: &[&str]) -> Finished {
        self.send_lines(at, to, rest, "")
    }

    /// `trine send` to its end with `input` on standard input.
    #[track_caller]
    pub fn send_lines(&self, at: SocketAddr, to: &Self, rest: &[&str], input: &str) -> Finished {
        let mut command = self.command("send", at, &["--to", &to.address]);
        command.args(rest);
        Running::start(command, input).finish()
    }

    /// `trine listen` until it ends by itself.
    #[track_caller]
    pub fn listen(&self, at: SocketAddr, rest: &[&str]) -> Finished {
        self.listening(at, rest).finish()
    }

    /// `trine listen`, running.
    pub fn listening(&self, at: SocketAddr, rest: &[&str]) -> Running {
        Running::start(self.command("listen", at, rest), "")
    }
}
