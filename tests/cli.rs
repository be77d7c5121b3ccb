//! The built program as a person or a script meets it: files, messages, formats, exit codes, HTTP and
//! signals.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "these tests run in real time, with files and threads of their own, and fail by panicking"
)]

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Signal, geteuid};
use serde_json::Value as Json;
use support::{Node, NodeArgs, Running, SMALL, User, arg, dir, eventually, plain, run, run_with, start};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A directory with a store in it, made by `trine init`.
fn init(dir: &Path, name: &str) -> NodeArgs {
    let args = NodeArgs { data: dir.join(name), ..NodeArgs::in_dir(dir) };
    let config = dir.join("init.toml");
    std::fs::write(&config, SMALL).unwrap();
    run(&["init", "--data", arg(&args.data), "--config", arg(&config)]).expect(0);
    args
}

#[test]
fn init_makes_private_files_and_refuses_to_overwrite_them() {
    let dir = dir();
    let args = init(dir.path(), "node");
    for name in ["node.key", "store.id"] {
        assert_eq!(mode(&args.data.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&args.data.join("lane-000")), 0o700);
    assert_eq!(mode(&args.data.join("lane-000/00000000.seg")), 0o600);
    let key = std::fs::read_to_string(args.data.join("node.key")).unwrap();
    let again = run(&["init", "--data", arg(&args.data)]).expect(5);
    assert!(again.err.contains(arg(&args.data)), "{}", again.err);
    assert_eq!(std::fs::read_to_string(args.data.join("node.key")).unwrap(), key);
    args.start().stop();
}

#[test]
fn keygen_makes_a_private_key_and_refuses_to_overwrite_it() {
    let dir = dir();
    let user = User::new(dir.path(), "alice");
    assert_eq!(mode(&user.key), 0o600);
    assert!(user.address.starts_with("trine1"), "{}", user.address);
    let key = std::fs::read_to_string(&user.key).unwrap();
    let again = run(&["keygen", "--out", arg(&user.key)]).expect(1);
    assert!(again.err.contains("never overwritten"), "{}", again.err);
    assert_eq!(std::fs::read_to_string(&user.key).unwrap(), key);
}

#[test]
fn a_node_without_a_store_says_how_to_make_one() {
    let dir = dir();
    let data = dir.path().join("nothing");
    let ended =
        run(&["node", "--data", arg(&data), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]).expect(5);
    assert!(ended.err.contains("trine init --data"), "{}", ended.err);
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_store_of_another_node_is_refused_whichever_file_was_copied() {
    let dir = dir();
    let (ours, theirs) = (init(dir.path(), "ours"), init(dir.path(), "theirs"));
    for name in ["node.key", "store.id"] {
        let (file, kept) = (ours.data.join(name), dir.path().join("kept"));
        std::fs::copy(&file, &kept).unwrap();
        std::fs::copy(theirs.data.join(name), &file).unwrap();
        let ended = ours.fails().expect(5);
        assert!(!ended.err.contains("panicked"), "{name}: {}", ended.err);
        std::fs::copy(&kept, &file).unwrap();
    }
    ours.start().stop();
}

#[test]
fn a_second_process_on_one_store_is_told_that_it_is_in_use() {
    let dir = dir();
    let args = NodeArgs::in_dir(dir.path());
    let node = args.start();
    let second = args.fails().expect(5);
    assert!(second.err.contains("another process"), "{}", second.err);
    assert_eq!(node.get("/healthz").0, 200, "the first goes on");
}

#[test]
fn a_changed_number_of_cores_finds_every_message() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        eprintln!("SKIPPED: this machine has one processor");
        return;
    }
    let dir = dir();
    let alice = User::new(dir.path(), "alice");
    // Enough recipients that every lane has one.
    let recipients: Vec<_> = (0..12).map(|n| User::new(dir.path(), &format!("r{n}"))).collect();
    let input = |round: usize| (0..20).map(|line| format!("{round}.{line}\n")).collect::<String>();
    for (round, cores) in [1, 2, 1].into_iter().enumerate() {
        let node = NodeArgs::in_dir(dir.path()).on_cores(cores).start();
        assert_eq!(node.cores, usize::from(cores));
        for recipient in &recipients {
            alice
                .send_lines(node.listen, recipient, &["--lines", "--node-id", &node.id], &input(round))
                .expect(0);
        }
        node.kill();
    }
    let node = NodeArgs::in_dir(dir.path()).on_cores(2).start();
    let expected: Vec<_> =
        (0..3).flat_map(|round| input(round).lines().map(String::from).collect::<Vec<_>>()).collect();
    for recipient in &recipients {
        let got = recipient.listen(node.listen, &["--count", "60", "--node-id", &node.id]).expect(0);
        assert_eq!(got.out, expected);
    }
    eventually("nothing is queued", || (node.total("relay_queued_messages") == 0).then_some(()));
}

#[test]
fn a_node_with_another_identity_is_refused_loudly() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let node = NodeArgs::in_dir(dir.path()).start();
    let (at, id) = (node.listen, node.id.clone());
    let trusted = alice.send(at, &bob, &["first"]).expect(0);
    assert!(trusted.err.contains(&id), "the identity that is trusted is shown: {}", trusted.err);
    let known = dir.path().join("alice.key.nodes");
    assert_eq!(std::fs::read_to_string(&known).unwrap(), format!("{at} {id}\n"));
    assert!(alice.send(at, &bob, &["second"]).expect(0).err.is_empty(), "a known node is not worth a word");
    node.stop();

    let other_dir = support::dir();
    let other = NodeArgs::in_dir(other_dir.path()).at(at).start();
    let refused = alice.send(at, &bob, &["secret"]).expect(4);
    assert!(refused.err.contains("IDENTITY") && refused.err.contains("alice.key.nodes"), "{}", refused.err);
    alice.listening(at, &["--count", "1"]).finish().expect(4);
    assert_eq!(other.total("relay_queued_messages"), 0, "nothing was sent to it");
    // Said explicitly, the right identity is taken and a wrong one refused, whatever the file says.
    alice.send(at, &bob, &["third", "--node-id", &other.id]).expect(0);
    bob.send(at, &alice, &["fourth", "--node-id", &id]).expect(4);
}

#[test]
fn what_send_and_listen_print_is_stable_for_people_and_programs() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let node = NodeArgs::in_dir(dir.path()).start();
    let at = node.listen;
    assert_eq!(alice.send(at, &bob, &["hello"]).expect(0).out, ["line 1: accepted as 1"]);
    assert_eq!(bob.listen(at, &["--count", "1"]).expect(0).out, ["hello"]);

    let sent = alice.send_lines(at, &bob, &["--lines", "--json"], "one\ntwo").expect(0).json();
    let got = bob.listen(at, &["--count", "2", "--json"]).expect(0).json();
    for (line, (sent, got)) in sent.iter().zip(&got).enumerate() {
        assert_eq!((&sent["line"], &sent["status"]), (&Json::from(line + 1), &Json::from("accepted")));
        assert_eq!((&sent["id"], &sent["seq"]), (&got["id"], &got["seq"]));
        assert_eq!(sent["seq"], line + 2, "numbers of a mailbox go on");
        assert!(sent.get("reason").is_none() && sent.get("retry_ms").is_none(), "{sent}");
        assert_eq!(got["from"], alice.address.as_str());
        assert!(got["sent_ms"].as_u64().unwrap() > 1_600_000_000_000, "{got}");
        let payload = BASE64_STANDARD.decode(got["payload"].as_str().unwrap()).unwrap();
        assert_eq!(payload, ["one", "two"][line].as_bytes());
    }
    assert_eq!((sent.len(), got.len()), (2, 2));
}

#[test]
fn thousands_of_lines_are_pipelined_and_arrive_in_order() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let node = NodeArgs::in_dir(dir.path()).start();
    let lines: Vec<_> = (0..5_000).map(|n| format!("line {n}")).collect();
    let listening = bob.listening(node.listen, &["--count", "5000"]);
    let sent = alice.send_lines(node.listen, &bob, &["--lines", "--json"], &lines.join("\n")).expect(0);
    assert_eq!(sent.out.len(), lines.len());
    assert!(sent.json().iter().all(|receipt| receipt["status"] == "accepted"));
    assert_eq!(listening.finish().expect(0).out, lines);
}

#[test]
fn an_ephemeral_message_reaches_who_is_there_and_nobody_else() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let node = NodeArgs::in_dir(dir.path()).start();
    let dropped = alice.send(node.listen, &bob, &["anybody?", "--ephemeral", "--json"]).expect(1).json();
    assert_eq!(
        (dropped[0]["status"].as_str(), dropped[0]["reason"].as_str()),
        (Some("rejected"), Some("NotConnected"))
    );
    let listening = bob.listening(node.listen, &["--count", "1"]);
    // Bob may need a moment to log in.
    let relayed = eventually("bob is connected", || {
        let sent = alice.send(node.listen, &bob, &["now", "--ephemeral", "--json"]);
        (sent.code == Some(0)).then(|| sent.json())
    });
    assert_eq!((&relayed[0]["status"], &relayed[0]["seq"]), (&Json::from("relayed"), &Json::Null));
    assert_eq!(listening.finish().expect(0).out, ["now"]);
    assert_eq!(node.total("relay_queued_messages"), 0);
}

#[test]
fn a_message_expires_when_its_time_is_over() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let node = NodeArgs::in_dir(dir.path()).start();
    alice.send(node.listen, &bob, &["short-lived", "--ttl", "1s"]).expect(0);
    alice.send(node.listen, &bob, &["lasting", "--ttl", "1h"]).expect(0);
    eventually("one has expired", || (node.total("relay_expired") == 1).then_some(()));
    assert_eq!(bob.listen(node.listen, &["--count", "1"]).expect(0).out, ["lasting"]);
    let refused = alice.send(node.listen, &bob, &["x", "--ttl", "31d", "--json"]).expect(1).json();
    assert_eq!(refused[0]["reason"], "BadTtl");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    // Nobody listens on a port that was just let go.
    let at: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = alice.send(at, &bob, &["x", "--give-up", "200ms"]).expect(3);
    assert!(away.err.contains("is it running?"), "{}", away.err);
    run(&["status", "--http", &at.to_string()]).expect(3);
    run(&["send"]).expect(2);
    let node = at.to_string();
    run(&["send", "--node", &node, "--key", arg(&alice.key), "--to", "trine1nonsense", "x"]).expect(2);
    let missing = run(&["listen", "--node", &node, "--key", "missing.key"]).expect(2);
    assert!(missing.err.contains("trine keygen"), "{}", missing.err);
    std::fs::set_permissions(&alice.key, PermissionsExt::from_mode(0o644)).unwrap();
    let open = alice.send(at, &bob, &["x"]).expect(2);
    assert!(open.err.contains("chmod 600"), "{}", open.err);
    let table = run(&["exit-codes"]).expect(0).out.join("\n");
    assert!(table.contains("130"), "{table}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = dir();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let ended = NodeArgs::in_dir(dir.path()).at(at).fails().expect(6);
    assert!(ended.err.contains(&at.to_string()), "{}", ended.err);
}

#[test]
fn the_node_shows_over_http_how_it_is() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let node = NodeArgs::in_dir(dir.path()).start();
    alice.send_lines(node.listen, &bob, &["--lines"], "a\nb\nc").expect(0);
    assert_eq!(node.get("/healthz").0, 200);
    assert_eq!(node.get("/readyz").0, 200);
    assert_eq!(node.get("/nothing").0, 404);
    eventually("the gauge shows three", || (node.total("relay_queued_messages") == 3).then_some(()));

    let http = node.http.to_string();
    let status = &run(&["status", "--http", &http, "--json"]).expect(0).json()[0];
    assert_eq!((&status["state"], &status["node_id"]), (&Json::from("ready"), &Json::from(node.id.as_str())));
    assert_eq!(status["per_core"].as_array().unwrap().len(), node.cores);
    let table = run(&["status", "--http", &http]).expect(0).out.join("\n");
    assert!(table.contains(&node.id) && table.contains("queued"), "{table}");

    let (code, kind, text) = node.get("/metrics");
    assert_eq!(code, 200);
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert_is_open_metrics(&text);
    let accepted: f64 =
        text.lines().filter(|line| line.contains("accepted") && line.contains("durable")).map(value).sum();
    assert_eq!(accepted, 3.0, "{text}");
    for measured in ["rt_turn_time", "log_commit_latency", "log_batch_records"] {
        let counts = text.lines().filter(|line| line.contains(measured) && line.contains("_count"));
        assert!(counts.map(value).sum::<f64>() > 0.0, "{measured} measures nothing: {text}");
    }
}

fn value(sample: &str) -> f64 {
    let (_, rest) = sample.rsplit_once('}').unwrap_or_else(|| sample.split_once(' ').unwrap());
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// Families are declared once, before their samples, and the text ends as it must.
fn assert_is_open_metrics(text: &str) {
    let mut families: Vec<&str> = Vec::new();
    let (body, end) = text.split_at(text.len() - "# EOF\n".len());
    assert_eq!(end, "# EOF\n");
    for line in body.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "info", "unknown"].contains(&kind), "{line}");
            assert!(!families.contains(&name), "declared twice: {line}");
            families.push(name);
        } else if !line.starts_with("# ") {
            let family = families.last().unwrap();
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} under {family}"));
            assert!(["", "_total", "_bucket", "_sum", "_count", "_info"].contains(&suffix), "{line}");
            assert!(value(line) >= 0.0, "{line}");
        }
    }
    assert!(families.len() > 20, "only {} families", families.len());
}

#[test]
fn a_signal_drains_the_node_and_keeps_what_it_accepted() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    for signal in [Signal::TERM, Signal::INT] {
        let node = NodeArgs::in_dir(dir.path()).start();
        let waiting = alice.listening(node.listen, &["--node-id", &node.id]);
        eventually("alice is connected", || (node.total("link_sessions_open") == 1).then_some(()));
        bob.send(node.listen, &bob, &["kept", "--node-id", &node.id]).expect(0);
        node.running.signal(signal);
        let ended = node.running.finish().expect(0);
        assert!(ended.err.contains("draining"), "{}", ended.err);
        drop(waiting);
    }
    let node = NodeArgs::in_dir(dir.path()).start();
    let got = bob.listen(node.listen, &["--count", "2", "--node-id", &node.id]).expect(0);
    assert_eq!(got.out, ["kept", "kept"]);
}

#[test]
fn send_and_listen_outlive_a_node_that_goes_away_and_comes_back() {
    let dir = dir();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let node = NodeArgs::in_dir(dir.path()).start();
    let at = node.listen;
    let mut listening = bob.listening(at, &["--count", "2"]);
    alice.send(at, &bob, &["before"]).expect(0);
    assert_eq!(listening.line(), "before");
    node.kill();
    let sending = start(
        &["send", "--node", &at.to_string(), "--key", arg(&alice.key), "--to", &bob.address, "after"],
        "",
    );
    let _node = NodeArgs::in_dir(dir.path()).at(at).start();
    assert_eq!(sending.finish().expect(0).out, ["line 1: accepted as 2"]);
    assert_eq!(listening.finish().expect(0).out, ["after"]);
}

/// Prints why a test cannot run here, instead of passing in silence.
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[test]
fn a_user_without_privileges_and_8_mib_of_locked_memory_can_run_a_node() {
    let dir = dir();
    let args = NodeArgs::in_dir(dir.path());
    // The program may stand where only its owner can reach it.
    let program = dir.path().join("trine");
    std::fs::copy(env!("CARGO_BIN_EXE_trine"), &program).unwrap();
    let mut command = plain(Path::new("prlimit"));
    command.args(["--memlock=8388608:8388608", "--"]);
    if geteuid().is_root() {
        let nobody = 65_534;
        if Command::new("setpriv").arg("--version").output().is_err() {
            return skipped("setpriv is not installed");
        }
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(&args.data).unwrap();
        chown(&args.data, Some(nobody), Some(nobody)).unwrap();
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        command.arg("--bounding-set=-all");
    }
    if Command::new("prlimit").arg("--version").output().is_err() {
        return skipped("prlimit is not installed");
    }
    command.arg(&program);
    args.extend(&mut command);
    let node = Node::started(Running::start(command, ""));
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    alice.send(node.listen, &bob, &["hello"]).expect(0);
    assert_eq!(bob.listen(node.listen, &["--count", "1"]).expect(0).out, ["hello"]);
    node.stop();
}

#[test]
fn the_demonstration_holds_on_its_own_text_and_on_a_given_one() {
    let dir = dir();
    let report = &run(&["demo", "--json"]).expect(0).json()[0];
    assert_eq!(report["ok"], true, "{report}");
    assert!(report["under_way_at_kill"].as_u64().unwrap() > 0, "the kill hit nothing: {report}");

    let file = dir.path().join("lines.txt");
    let text: String = (0..4_500).map(|n| format!("{n}\n")).collect();
    std::fs::write(&file, text).unwrap();
    let told = run(&["demo", "--input", arg(&file)]).expect(0);
    assert!(told.out.iter().any(|line| line.contains("4 500 acknowledged, 0 lost")), "{told:#?}");
    assert!(told.out.last().unwrap().contains("HELD"), "{told:#?}");
    assert!(run_with(&["demo", "--input", "missing"], "").expect(2).err.contains("missing"));
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    let dir = dir();
    let mut command = support::trine();
    command.arg("demo").env("TMPDIR", dir.path());
    let mut demo = Running::start(command, "");
    while !demo.line().contains("node ") {}
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    demo.signal(Signal::INT);
    let ended = demo.finish();
    // It may have been done a moment before the signal.
    assert!(matches!(ended.code, Some(0 | 130)), "{ended:#?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_store_is_checked_while_its_node_is_stopped_and_not_while_it_runs() {
    let dir = dir();
    let args = init(dir.path(), "node");
    let node = args.start();
    let (alice, bob) = (User::new(dir.path(), "alice"), User::new(dir.path(), "bob"));
    let at = node.listen.to_string();
    for text in ["one", "two", "three"] {
        run(&["send", "--node", &at, "--key", arg(&alice.key), "--to", &bob.address, text]).expect(0);
    }
    let check = ["store", "check", "--data", arg(&args.data)];
    let refused = run(&check).expect(5);
    assert!(refused.err.contains("process"), "it says that the store is in use: {}", refused.err);
    node.stop();

    let checked = run(&check).expect(0);
    let shown = checked.out.join("\n");
    assert!(shown.contains("healthy") && shown.contains("4 lanes"), "{shown}");
    let stats = &run(&["store", "stats", "--json", "--data", arg(&args.data)]).expect(0).json()[0];
    assert_eq!((&stats["total"]["messages"], &stats["healthy"]), (&3.into(), &true.into()));
    assert_eq!(stats["lanes"].as_array().unwrap().len(), 4);
    let again = args.start();
    let listen = ["listen", "--node", &again.listen.to_string(), "--key", arg(&bob.key), "--count", "3"];
    assert_eq!(run(&listen).expect(0).out.len(), 3, "checking changed nothing");
    again.stop();
}

#[test]
fn more_cores_than_the_store_has_lanes_are_refused_with_what_to_do() {
    let dir = dir();
    let args = init(dir.path(), "node");
    let refused = run(&["node", "--cores", "8", "--data", arg(&args.data)]).expect(5);
    assert!(refused.err.contains("at most 4 cores"), "{}", refused.err);
}
