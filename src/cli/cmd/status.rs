//! `trine status`: asks a node over HTTP how it is.
//!
//! ureq, without TLS, because the question is one short blocking request to a machine nearby: it brings a
//! checked HTTP parser, timeouts and a size limit for the price of a few small crates, where hyper's client
//! would bring an event loop. Proxies of the environment are ignored, since the answer is about this machine.

use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;
use ureq::Error;

use crate::cli::addr::HostPort;
use crate::cli::error::{CliError, Exit};
use crate::cli::human;
use crate::cli::output::Output;

const EXAMPLES: &str = "\
Examples:
  trine status
  trine status --http 10.0.0.7:8081 --json

Ends with 0 if the node serves clients, with 1 if it does not, with 3 if it cannot be reached.";

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// Asks a node how it is
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// Where the node serves HTTP
    #[arg(long, value_name = "HOST:PORT", env = "TRINE_HTTP", default_value = "127.0.0.1:8081")]
    http: HostPort,
    /// Print the node's answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// Which node to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// Where the node serves HTTP.
    pub http: HostPort,
    /// Print JSON.
    pub json: bool,
}

impl StatusArgs {
    pub(in crate::cli) fn validate(self) -> StatusOptions {
        let Self { http, json } = self;
        StatusOptions { http, json }
    }
}

/// Asks, prints, and ends with [`Exit::Ok`] only if the node is ready.
pub fn run(options: &StatusOptions) -> Result<Exit, CliError> {
    let status = fetch(&options.http)?;
    let mut output = Output::stdout();
    if options.json {
        output.json(&status)?;
    } else {
        output.line(&render(&status))?;
    }
    Ok(if status["state"] == "ready" { Exit::Ok } else { Exit::Failed })
}

/// The node's status document.
fn fetch(http: &HostPort) -> Result<Json, CliError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .timeout_global(Some(TIMEOUT))
        .build()
        .into();
    let url = format!("http://{http}/statusz");
    let answered = agent
        .get(&url)
        .call()
        .and_then(|mut response| response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec());
    let foreign = |why: String| {
        let message =
            format!("what answers at {http} is no Trine node ({why}); give the node's address with --http");
        CliError::new(Exit::Failed, message)
    };
    let body = answered.map_err(|error| match error {
        Error::Io(_) | Error::Timeout(_) | Error::HostNotFound | Error::ConnectionFailed => CliError::new(
            Exit::Unreachable,
            format!("no node answers at {http} ({error}); start one with `trine node`, or give --http"),
        ),
        other => foreign(other.to_string()),
    })?;
    let status: Json = serde_json::from_slice(&body).map_err(|error| foreign(error.to_string()))?;
    if status["node_id"].is_string() { Ok(status) } else { Err(foreign("its answer has no node_id".into())) }
}

/// How a number of the table is written.
type Written = fn(u64) -> String;

/// Rows of the table: title, name in the document, how it is written.
const ROWS: &[(&str, &str, Written)] = &[
    ("sessions", "link_sessions_open", human::count),
    ("connections", "link_connections_open", human::count),
    ("received", "link_received_bytes", human::bytes),
    ("sent", "link_sent_bytes", human::bytes),
    ("mailboxes", "relay_mailboxes", human::count),
    ("queued", "relay_queued_messages", human::count),
    ("queued bytes", "relay_queued_bytes", human::bytes),
    ("oldest queued", "relay_oldest_queued_age_ms", |ms| human::uptime(ms / 1_000)),
    ("delivered live", "relay_delivered_live", human::count),
    ("delivered from log", "relay_delivered_from_log", human::count),
    ("in cursor mode", "relay_cursor_mode_sessions", human::count),
    ("log refusals", "log_append_refusals", human::count),
    ("failed writes", "log_writes_failed", human::count),
    ("crossing refusals", "rt_crossing_refusals", human::count),
];
const TITLE_WIDTH: usize = 20;
const NUMBER_WIDTH: usize = 14;
/// Cores beyond these are only in the total, so that a line stays readable.
const CORES_SHOWN_MAX: usize = 6;

/// The document as a table for people. What is missing is shown as `-`.
fn render(status: &Json) -> String {
    let text = |value: &Json| value.as_str().map_or_else(|| "-".to_owned(), printable);
    let written = |value: &Json, write: Written| value.as_u64().map_or_else(|| "-".to_owned(), write);
    let (store, latency) = (&status["store"], &status["commit_latency_us"]);
    let mut lines = vec![
        format!("node     {} (version {})", text(&status["node_id"]), text(&status["version"])),
        format!("state    {}, up {}", text(&status["state"]), written(&status["uptime_s"], human::uptime)),
        format!(
            "store    {} of {} used",
            written(&store["used_bytes"], human::bytes),
            written(&store["limit_bytes"], human::bytes)
        ),
        format!(
            "commits  p50 {}, p99 {}, p99.9 {} over {} records",
            written(&latency["p50"], human::micros),
            written(&latency["p99"], human::micros),
            written(&latency["p999"], human::micros),
            written(&latency["count"], human::count)
        ),
        String::new(),
    ];
    let cores = status["per_core"].as_array().map_or(&[][..], Vec::as_slice);
    let cores = &cores[..cores.len().min(CORES_SHOWN_MAX)];
    let mut heading = format!("{:TITLE_WIDTH$}{:>NUMBER_WIDTH$}", "", "total");
    for number in 0..cores.len() {
        heading += &format!("{:>NUMBER_WIDTH$}", format!("core {number}"));
    }
    lines.push(heading);
    for &(title, key, write) in ROWS {
        let mut line =
            format!("{title:TITLE_WIDTH$}{:>NUMBER_WIDTH$}", written(&status["total"][key], write));
        for core in cores {
            line += &format!("{:>NUMBER_WIDTH$}", written(&core[key], write));
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// `text` without what could steer a terminal: it comes from the network.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers one request with `answer`, from a thread of its own.
    fn answering(answer: &'static str) -> HostPort {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        #[allow(clippy::disallowed_methods, reason = "the client under test blocks its thread")]
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        HostPort { host: "127.0.0.1".into(), port }
    }

    /// The status document of a node with one core, asked for over HTTP.
    fn of_a_real_server() -> Json {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let state = crate::admin::testing::state(1);
        std::thread::scope(|scope| {
            let shutdown = async { _ = stopped.await };
            scope.spawn(|| runtime.block_on(crate::admin::serve(listener, state, shutdown)));
            let status = fetch(&HostPort { host: "127.0.0.1".into(), port });
            stop.send(()).unwrap();
            status.unwrap()
        })
    }

    #[test]
    fn every_row_of_the_table_is_in_the_document_of_a_node() {
        let status = of_a_real_server();
        for (title, key, _) in ROWS {
            assert!(status["total"][key].is_u64(), "{title}: {key} is not in {status}");
            assert!(status["per_core"][0][key].is_u64(), "{title}: {key}");
        }
        let table = render(&status);
        assert!(
            table.starts_with("node     node1test (version 1.2.3)\nstate    starting, up 1 min 0 s\n"),
            "{table}"
        );
    }

    #[test]
    fn the_table_shows_totals_and_cores_and_survives_missing_values() {
        let status = serde_json::json!({
            "node_id": "node1x\u{1b}[2J", "version": "1", "state": "ready", "uptime_s": 61,
            "store": {"used_bytes": 1024, "limit_bytes": 2048},
            "commit_latency_us": {"count": 5, "p50": 210, "p99": 1500, "p999": null},
            "total": {"link_sessions_open": 1234},
            "per_core": [{"link_sessions_open": 1230}, {"link_sessions_open": 4}],
        });
        let table = render(&status);
        let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap();
        assert_eq!(line("node"), "node     node1x[2J (version 1)");
        assert_eq!(line("state"), "state    ready, up 1 min 1 s");
        assert_eq!(line("store"), "store    1.0 KiB of 2.0 KiB used");
        assert_eq!(line("commits"), "commits  p50 210 µs, p99 1.50 ms, p99.9 - over 5 records");
        assert_eq!(
            line("sessions").split_whitespace().collect::<Vec<_>>(),
            ["sessions", "1", "234", "1", "230", "4"]
        );
        assert_eq!(line("queued").split_whitespace().collect::<Vec<_>>(), ["queued", "-", "-", "-"]);
    }

    #[test]
    fn a_port_where_nobody_listens_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = fetch(&HostPort { host: "127.0.0.1".into(), port }).unwrap_err();
        assert_eq!(error.exit(), Exit::Unreachable, "{error}");
    }

    #[test]
    fn something_else_that_answers_is_told_from_a_node() {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "220 mail.example ESMTP\r\n",
        ] {
            let error = fetch(&answering(answer)).unwrap_err();
            assert!(error.to_string().contains("no Trine node"), "{answer}: {error}");
            assert_eq!(error.exit(), Exit::Failed);
        }
    }

    #[test]
    fn a_node_that_answers_is_read() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"node_id\":\"n\"}";
        assert_eq!(fetch(&answering(answer)).unwrap()["node_id"], "n");
    }
}
