//! SIGKILL at random moments while a partition fills, seals, compacts and uses its segments again.
//!
//! The child says on its standard output what it asks for and what was stored; whatever it said before it
//! died reaches the parent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use shards::keyed::{Event, Ticket};

use super::partition::{Answer, Partition, START_S, body, shard};

const ROUNDS: u64 = 20;
const KEYS: u64 = 40;
const SEGMENTS_MAX: u32 = 14;
const CHILD: &str = "TRINE_STORE_FAULTS_CHILD";

/// What a key holds: sequence number, length of the body, hours from the start after which it is gone.
type Value = Option<(u64, usize, u64)>;

struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    if said.is_err() {
        // Nobody is left to kill it.
        std::process::exit(1);
    }
}

/// Changes keys until it is killed. Run by the test of kills, as a process of its own.
#[test]
fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let mut words = given.splitn(3, ' ');
    let round: u64 = words.next().unwrap().parse().unwrap();
    let seed: u64 = words.next().unwrap().parse().unwrap();
    let dir = words.next().unwrap();
    let mut choices = Choices(seed ^ round);
    let mut partition = Partition::open(Path::new(dir), SEGMENTS_MAX, START_S + round * 3_600);
    let mut sequence = round << 32;
    // What the harness says of this test stands before it.
    say("\nbegun");
    loop {
        let mut under_way: BTreeMap<Ticket, u64> = BTreeMap::new();
        for _ in 0..1 + choices.below(4) {
            sequence += 1;
            under_way.extend(change(&mut partition, &mut choices, round, sequence));
        }
        while !under_way.is_empty() {
            partition.turn();
            for event in std::mem::take(&mut partition.events) {
                match event {
                    Event::Stored { ticket } => {
                        say(&format!("stored {}", under_way.remove(&ticket).unwrap()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        if choices.below(100) == 0 {
            say(&format!("copied {}", partition.store.compacted_bytes()));
        }
    }
}

fn change(
    partition: &mut Partition,
    choices: &mut Choices,
    round: u64,
    sequence: u64,
) -> Option<(Ticket, u64)> {
    let key = choices.below(KEYS);
    let (hold, existing) = partition.hold(shard(key));
    partition.store.release(hold);
    let kept = (u64::from(existing.expires_s()).saturating_sub(START_S)) / 3_600;
    let asked = if choices.below(4) == 0 {
        say(&format!("delete {sequence} {key}"));
        partition.ask_delete(key, sequence)
    } else {
        let bytes = [100, 3_000, 20_000, 60_000][choices.below(4) as usize];
        let hours = round + [2, 30, 3_000][choices.below(3) as usize];
        say(&format!("put {sequence} {key} {bytes} {}", hours.max(kept)));
        partition.ask_put(key, sequence, bytes, START_S + hours * 3_600)
    };
    if asked.is_err() {
        say(&format!("refused {sequence}"));
    }
    asked.ok().map(|ticket| (ticket, sequence))
}

/// What the parent knows.
#[derive(Default)]
struct Model {
    stored: BTreeMap<u64, Value>,
    asked: BTreeMap<u64, (u64, Value)>,
    count: u64,
    copied: u64,
}

impl Model {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "put" => {
                let value = Some((number(1), number(3) as usize, number(4)));
                self.asked.insert(number(1), (number(2), value));
            }
            "delete" => drop(self.asked.insert(number(1), (number(2), None))),
            "stored" => {
                let (key, value) = self.asked.remove(&number(1)).unwrap();
                self.stored.insert(key, value);
                self.count += 1;
            }
            "refused" => drop(self.asked.remove(&number(1))),
            "copied" => self.copied = self.copied.max(number(1)),
            _ => {}
        }
    }

    /// Each key holds what was stored last, or what was under way when the child died.
    fn check(&mut self, partition: &mut Partition, hours: u64) {
        assert_eq!(partition.losses, 0);
        let asked = std::mem::take(&mut self.asked);
        for key in 0..KEYS {
            let before = self.stored.get(&key).copied().flatten();
            let under_way = asked.values().filter(|(of, _)| *of == key).map(|(_, value)| *value);
            let answer = partition.get(key);
            let is_it = |value: &Value| match value.filter(|(_, _, until)| *until > hours) {
                Some((sequence, bytes, _)) => answer == Answer::Record(sequence, body(key, sequence, bytes)),
                None => answer == Answer::Absent,
            };
            let found = std::iter::once(before).chain(under_way).find(is_it);
            let what = match &answer {
                Answer::Record(sequence, body) => format!("{sequence} of {} bytes", body.len()),
                other => format!("{other:?}"),
            };
            let Some(value) = found else { panic!("key {key} at {hours}: {what}, stored {before:?}") };
            self.stored.insert(key, value);
        }
    }
}

#[test]
fn what_a_killed_process_said_was_stored_is_stored() {
    let seed = super::seed();
    let mut choices = Choices(seed);
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    Partition::format(dir.path());
    let mut model = Model::default();
    for round in 0..ROUNDS {
        let given = format!("{round} {seed} {}", dir.path().display());
        let mut child = super::again("kills::child", CHILD, &given).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out.lines().map(|line| line.unwrap());
        assert!(lines.any(|line| line == "begun"), "it died by itself");
        // How long it may go on is left to chance, and is the point of it: SIGKILL comes from another thread.
        let (load, id) = (Duration::from_millis(1 + choices.below(900)), child.id());
        let killer = std::thread::spawn(move || {
            std::thread::sleep(load);
            let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        lines.for_each(|line| model.hear(&line));
        killer.join().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        let mut partition = Partition::open(dir.path(), SEGMENTS_MAX, START_S + round * 3_600);
        model.check(&mut partition, round);
    }
    println!("{} changes stored, {} bytes copied in one life", model.count, model.copied);
    assert!(model.count > 100 && model.copied > 0, "{} {}", model.count, model.copied);
}
