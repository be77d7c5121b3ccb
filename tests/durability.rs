//! What survives: SIGKILL under load, again and again, and bits that flip in the store between two runs.
//!
//! Each test prints its seed. `TRINE_TEST_SEED=N cargo test --test durability` repeats a run's choices.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "these tests run in real time, with files and threads of their own, and fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::people::{block_on, device, driver, give, leave, listener, next, take_all, user};
use support::{Node, NodeArgs, PATIENCE, arg, dir, run};
use tokio::time::timeout;
use trine::client::{ClientEvent, Driver};
use trine::link::UserIdentity;
use trine::wire::{Address, MailboxSeq, ReceiptStatus};

const ROUNDS: usize = 24;
/// Recipients whose mailboxes lie in different lanes.
const RECIPIENTS: usize = 6;
/// Messages under way at once.
const WINDOW: usize = 128;

/// A small generator (splitmix64): the choices of a run follow from its seed.
struct Choices(u64);

impl Choices {
    fn seeded() -> Self {
        let given = std::env::var("TRINE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap();
            now.as_nanos() as u64
        });
        println!("seed {seed}; TRINE_TEST_SEED={seed} repeats these choices");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn recipients() -> Vec<Arc<UserIdentity>> {
    (0..RECIPIENTS).map(|n| user(100 + n as u8)).collect()
}

/// Message `number` goes to recipient `number % RECIPIENTS`.
fn padded(number: u128, padding: usize) -> Vec<u8> {
    let padding = padding.max(number as usize % 700);
    format!("message {number} {}", "x".repeat(padding)).into_bytes()
}

/// Keeps `WINDOW` messages under way and takes down what is acknowledged.
struct Sender {
    driver: Driver,
    to: Vec<Address>,
    next: u128,
    /// Least number of bytes that make a message longer.
    padding: usize,
    /// Where each acknowledged message stands in its mailbox.
    acknowledged: BTreeMap<u128, MailboxSeq>,
}

impl Sender {
    fn new(at: SocketAddr) -> Self {
        let to = recipients().iter().map(|recipient| recipient.address()).collect();
        Self { driver: driver(at, &user(1), None), to, next: 0, padding: 0, acknowledged: BTreeMap::new() }
    }

    fn fill(&mut self) {
        while self.driver.client().unsent() < WINDOW {
            let (number, to) = (self.next, self.to[self.next as usize % RECIPIENTS]);
            give(&mut self.driver, to, number, &padded(number, self.padding));
            self.next += 1;
        }
    }

    async fn step(&mut self) {
        match self.driver.next().await.expect("the node comes back") {
            ClientEvent::Sent(report) => {
                assert_eq!(report.status, ReceiptStatus::Accepted, "{report:?}");
                let seq = self.acknowledged.insert(u128::from_be_bytes(report.id.0), report.seq);
                assert_eq!(seq, None, "one final receipt per message");
            }
            ClientEvent::GaveUp { id, .. } => panic!("no receipt for {id}"),
            _ => {}
        }
    }

    /// Sends for `time`, and not before something was acknowledged.
    async fn send_for(&mut self, time: Duration) {
        let before = self.acknowledged.len();
        let load = async {
            loop {
                self.fill();
                self.step().await;
            }
        };
        let _ = timeout(time, load).await;
        while self.acknowledged.len() == before {
            timeout(PATIENCE, self.step()).await.expect("an answer");
        }
    }

    /// Waits for the receipts of everything that was given to the client.
    async fn settle(&mut self) {
        while self.acknowledged.len() < self.next as usize {
            timeout(PATIENCE, self.step()).await.expect("an answer");
        }
    }
}

/// Everything acknowledged was taken once, unchanged, and in the order of the mailbox.
fn assert_all_arrived(
    acknowledged: &BTreeMap<u128, MailboxSeq>,
    recipient: usize,
    taken: &[(u128, Vec<u8>)],
    padding: usize,
) {
    let mut expected: Vec<_> =
        acknowledged.iter().filter(|(n, _)| **n as usize % RECIPIENTS == recipient).collect();
    expected.sort_by_key(|(_, seq)| **seq);
    let expected: Vec<_> = expected.into_iter().map(|(number, _)| *number).collect();
    let numbers: Vec<_> = taken.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, expected, "recipient {recipient}");
    assert!(numbers.is_sorted(), "one sender's messages keep their order");
    for (number, bytes) in taken {
        assert!(*bytes == padded(*number, padding), "message {number} was changed");
    }
}

#[test]
fn no_acknowledged_message_is_lost_or_repeated_by_kills_under_load() {
    let dir = dir();
    let mut choices = Choices::seeded();
    let args = || NodeArgs::in_dir(dir.path()).with(GENEROUS).with_space("2 GiB");
    let node = args().start();
    let at = node.listen;
    block_on(async {
        let mut sender = Sender::new(at);
        // One recipient is online all the time, and sees every death of the node.
        let mut online = listener(at, &recipients()[0]);
        let mut live = Vec::new();
        let mut node = Some(node);
        for round in 0..ROUNDS {
            let load = Duration::from_millis(5 + choices.below(120));
            let receive = async {
                loop {
                    live.extend(take_one(&mut online).await);
                }
            };
            tokio::select! {
                () = sender.send_for(load) => {}
                () = receive => {}
            }
            node.take().expect("it runs").kill();
            let cores = 1 + choices.below(max_cores()) as u16;
            println!("round {round}: {} acknowledged, next on {cores} cores", sender.acknowledged.len());
            node = Some(args().on_cores(cores).at(at).start());
        }
        sender.settle().await;
        let node = node.expect("it runs");
        let to_first = |number: &&u128| (**number as usize).is_multiple_of(RECIPIENTS);
        let expected = sender.acknowledged.keys().filter(to_first).count();
        let quiet = Instant::now() + PATIENCE;
        while live.len() < expected && Instant::now() < quiet {
            live.extend(take_one(&mut online).await);
        }
        leave(online).await;
        assert_all_arrived(&sender.acknowledged, 0, &live, 0);
        for (recipient, identity) in recipients().iter().enumerate().skip(1) {
            let mut driver = listener(at, identity);
            let taken = take_all(&mut driver).await;
            leave(driver).await;
            assert_all_arrived(&sender.acknowledged, recipient, &taken, 0);
        }
        // Once the recipients' acknowledgements are on disk, what they took does not come again. A stop in
        // order puts them there; without one, the last of them may be lost with the process, and the messages
        // come once more.
        node.stop();
        args().at(at).start().kill();
        let _node = args().at(at).start();
        for identity in recipients() {
            assert_eq!(take_all(&mut listener(at, &identity)).await, []);
        }
    });
}

fn max_cores() -> u64 {
    std::thread::available_parallelism().unwrap().get().min(4) as u64
}

async fn take_one(driver: &mut Driver) -> Option<(u128, Vec<u8>)> {
    match next(driver).await {
        ClientEvent::Received(message) => {
            driver.client().done(message.key());
            Some((u128::from_be_bytes(message.id.0), message.payload))
        }
        ClientEvent::EpochChanged => panic!("a kill loses nothing, so no mailbox may say that it did"),
        _ => None,
    }
}

/// Limits under which a test may send and store as much as it likes.
const GENEROUS: &str = "[limits]\nmailbox_messages_max = 1000000\nmailbox_bytes_max = \"1 GiB\"\n\
                        identity_messages_per_s = 10000000\nidentity_messages_burst = 10000000\n\
                        identity_bytes_per_s = \"1 GiB\"\nidentity_bytes_burst = \"1 GiB\"\n";

/// A segment file, and which of its blocks were written, the header first.
struct Segment {
    file: PathBuf,
    blocks: Vec<u64>,
}

/// The written segments of each lane, the fullest first.
fn lanes(data: &Path) -> Vec<Vec<Segment>> {
    let paths = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = entries.collect();
        paths.sort();
        paths
    };
    let lanes = paths(data).into_iter().filter(|path| path.is_dir());
    lanes
        .map(|lane| {
            let mut segments: Vec<_> = paths(&lane).into_iter().map(Segment::read).collect();
            segments.retain(|segment| segment.blocks.len() > 1);
            segments.sort_by_key(|segment| std::cmp::Reverse(segment.blocks.len()));
            segments
        })
        .collect()
}

impl Segment {
    fn read(file: PathBuf) -> Self {
        let bytes = std::fs::read(&file).unwrap();
        let written =
            |(number, block): (usize, &[u8])| block.iter().any(|b| *b != 0).then_some(number as u64);
        let blocks = bytes.chunks(4096).enumerate().filter_map(written).collect();
        Self { file, blocks }
    }

    /// Flips a bit somewhere in a block. True if it is one of a message's text: what fills a batch up to a
    /// whole block, and its header, may be damaged without any record being lost.
    fn flip(&self, block: u64, choices: &mut Choices) -> bool {
        let (offset, bit) = (block * 4096 + choices.below(4096), choices.below(8));
        println!("flipping bit {bit} of byte {offset} in {}", self.file.display());
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&self.file).unwrap();
        // Nothing but a text has so many of these in a row.
        let mut around = [0; 9];
        file.read_at(&mut around, offset - 4).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << bit], offset).unwrap();
        around == [b'x'; 9]
    }

    /// A written block behind the header.
    fn any_block(&self, choices: &mut Choices) -> u64 {
        self.blocks[1 + choices.below(self.blocks.len() as u64 - 1) as usize]
    }
}

/// For each recipient a device that only wants to know whether the past was lost.
async fn watchers(at: SocketAddr) -> Vec<Driver> {
    let mut watchers = Vec::new();
    for recipient in 0..RECIPIENTS {
        let mut watcher = driver(at, &device(100 + recipient as u8, 1), None);
        assert!(!hears_of_a_loss(&mut watcher).await, "a new device has no past");
        watchers.push(watcher);
    }
    watchers
}

/// Waits for the next login, and tells whether the node said that it lost part of the past.
async fn hears_of_a_loss(watcher: &mut Driver) -> bool {
    let mut lost = false;
    loop {
        match next(watcher).await {
            ClientEvent::EpochChanged => lost = true,
            ClientEvent::Ready { .. } => return lost,
            _ => {}
        }
    }
}

/// Fills a node with so many messages that each lane seals segments, and stops it in order.
async fn fill_and_stop(node: Node) -> BTreeMap<u128, MailboxSeq> {
    let mut sender = Sender::new(node.listen);
    sender.padding = 16_000;
    while sender.next < 2_400 {
        sender.fill();
        timeout(PATIENCE, sender.step()).await.expect("an answer");
    }
    sender.settle().await;
    leave(sender.driver).await;
    node.stop();
    sender.acknowledged
}

/// What `trine store check` says of a store whose node is stopped.
fn is_healthy(data: &Path) -> bool {
    let checked = run(&["store", "check", "--json", "--data", arg(data)]);
    let report = &checked.json()[0];
    let healthy = report["healthy"].as_bool().expect("a verdict");
    assert_eq!(checked.code, Some(if healthy { 0 } else { 5 }), "{}", checked.err);
    assert_eq!(report["lost"].as_array().expect("ranges").is_empty(), healthy);
    healthy
}

/// Damages a store, and checks that the node says what it lost and keeps everything else. `damage` tells
/// whether what it did is of a kind that cannot go unnoticed.
fn survives(damage: impl Fn(&[Vec<Segment>], &mut Choices) -> bool) {
    let dir = dir();
    let mut choices = Choices::seeded();
    let args = NodeArgs::in_dir(dir.path()).with(GENEROUS);
    let node = args.start();
    let at = node.listen;
    block_on(async {
        let mut watchers = watchers(at).await;
        let acknowledged = fill_and_stop(node).await;
        let lanes = lanes(&args.data);
        assert!(lanes.iter().any(|lane| lane.len() > 1), "no lane sealed a segment");
        let must_lose = damage(&lanes, &mut choices);
        let healthy = is_healthy(&args.data);

        let args = args.at(at);
        let mut node = args.start();
        let mut told = Vec::new();
        for watcher in &mut watchers {
            told.push(hears_of_a_loss(watcher).await);
        }
        let logged = node.running.log().contains("acknowledged records are lost");
        assert_eq!(logged, told.contains(&true), "log and epochs agree: {told:?} {}", node.running.log());
        assert!(logged || !must_lose, "the damage went unnoticed");
        assert_eq!(healthy, !logged, "`trine store check` says what the start says");
        assert!(told.contains(&false), "one lane was damaged, but everybody is told of a loss");
        for (recipient, told) in told.iter().enumerate() {
            let mut device = listener(at, &recipients()[recipient]);
            let taken = take_all(&mut device).await;
            leave(device).await;
            if *told {
                let expected = |number: &u128| acknowledged.contains_key(number);
                assert!(
                    taken.iter().all(|(number, bytes)| expected(number) && *bytes == padded(*number, 16_000))
                );
                assert!(taken.is_sorted_by(|a, b| a.0 < b.0), "what is left keeps its order");
            } else {
                assert_all_arrived(&acknowledged, recipient, &taken, 16_000);
            }
        }
        // What is damaged stays readable as far as it goes, also for the next process.
        node.stop();
        let node = args.start();
        for watcher in &mut watchers {
            assert!(!hears_of_a_loss(watcher).await, "a loss is told of once");
        }
        node.stop();
    });
}

/// A lane that has messages.
fn any_lane<'a>(lanes: &'a [Vec<Segment>], choices: &mut Choices) -> &'a [Segment] {
    let used: Vec<_> = lanes.iter().filter(|lane| lane.len() > 1).collect();
    used[choices.below(used.len() as u64) as usize]
}

#[test]
fn a_bit_that_flips_in_a_sealed_segment_costs_its_lane_only_and_is_told() {
    survives(|lanes, choices| {
        let sealed = &any_lane(lanes, choices)[0];
        sealed.flip(sealed.any_block(choices), choices)
    });
}

#[test]
fn a_bit_that_flips_in_the_segment_being_written_costs_its_lane_only_and_is_told() {
    survives(|lanes, choices| {
        let Some(active) = any_lane(lanes, choices).last() else { panic!("a lane has a segment") };
        active.flip(active.any_block(choices), choices)
    });
}

#[test]
fn a_bit_that_flips_in_the_header_of_a_segment_does_not_keep_the_node_down() {
    survives(|lanes, choices| {
        let lane = any_lane(lanes, choices);
        lane[choices.below(lane.len() as u64) as usize].flip(0, choices);
        false
    });
}

#[test]
fn many_bits_that_flip_in_one_lane_do_not_keep_the_node_down() {
    survives(|lanes, choices| {
        let lane = any_lane(lanes, choices);
        let flips = (0..12).map(|_| {
            let segment = &lane[choices.below(lane.len() as u64) as usize];
            segment.flip(segment.any_block(choices), choices)
        });
        flips.filter(|hit| *hit).count() > 0
    });
}
