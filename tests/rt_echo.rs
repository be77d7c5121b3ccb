//! The driver and the executor on the real kernel: connections, hand-overs, shutdown.

mod rt_common;

use std::io::Read;
use std::net::Shutdown;
use std::sync::atomic::Ordering;

use rt_common::*;
use trine::rt::ring::RingConfig;

/// One test of this binary at a time: they count descriptors of the process.
#[allow(clippy::disallowed_types, reason = "tests of one binary share a process")]
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

macro_rules! alone {
    () => {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    };
}

#[test]
fn many_connections_get_back_what_they_sent_however_it_was_split() {
    alone!();
    let before = open_descriptors();
    for cores in [1, 2] {
        let Some((node, seen)) = start_echo(cores, RingConfig::default()) else { continue };
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let node = &node;
                scope.spawn(move || {
                    for round in 0..25 {
                        let stream = connect(node);
                        let seed = worker * 100 + round;
                        let piece = [1, 7, 1_000, 4_096, 100_000][round % 5];
                        let len = if piece == 1 { 300 } else { 20_000 * (round + 1) };
                        round_trip(&stream, &pattern(seed, len), piece);
                    }
                });
            }
        });
        eventually("all are closed", || seen.closed.load(Ordering::Relaxed) == 100);
        assert_eq!(seen.accepted.load(Ordering::Relaxed), 100);
        stop(node);
    }
    assert_eq!(open_descriptors(), before + 3 * GLOMMIO_LEAKS_PER_CORE, "descriptors leaked");
}

#[test]
fn a_connection_that_moves_between_cores_with_bytes_in_flight_keeps_order_and_loses_nothing() {
    alone!();
    let before = open_descriptors();
    let Some((node, seen)) = start_echo(2, RingConfig::default()) else { return };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let node = &node;
            scope.spawn(move || {
                let stream = connect(node);
                for round in 0..50 {
                    // Moves on the first byte, with the rest behind it on its way to the old core.
                    let mut data = pattern(worker * 50 + round, 50_000);
                    data[0] = b'>';
                    round_trip(&stream, &data, 1 + round * 97);
                }
            });
        }
    });
    let adopted = seen.adopted.load(Ordering::Relaxed);
    assert!(adopted >= 100, "only {adopted} moves");
    eventually("all are closed", || seen.closed.load(Ordering::Relaxed) == 4);
    stop(node);
    assert_eq!(open_descriptors(), before + 2 * GLOMMIO_LEAKS_PER_CORE, "descriptors leaked");
}

#[test]
fn a_connection_that_is_closed_as_soon_as_the_logic_hears_of_it_ends_though_its_peer_is_silent() {
    alone!();
    let before = open_descriptors();
    for (cores, moves) in [(1, 0), (2, 1), (2, 4)] {
        let Some((node, seen)) = start_restless(cores, moves, false) else { continue };
        let mut stream = connect(&node);
        assert_eq!(stream.read(&mut [0; 8]).expect("an orderly end"), 0, "{moves} moves");
        eventually("the logic hears of it", || seen.closed.load(Ordering::Relaxed) == 1);
        assert_eq!(seen.adopted.load(Ordering::Relaxed), moves);
        stop(node);
    }
    assert_eq!(open_descriptors(), before + 5 * GLOMMIO_LEAKS_PER_CORE, "descriptors leaked");
}

#[test]
fn what_a_connection_received_before_it_moved_on_at_once_arrives_where_it_stays() {
    alone!();
    let Some((node, seen)) = start_restless(2, 5, true) else { return };
    for _ in 0..20 {
        round_trip(&connect(&node), b"sent before anybody answered", 28);
    }
    eventually("all are closed", || seen.closed.load(Ordering::Relaxed) == 20);
    assert_eq!(seen.adopted.load(Ordering::Relaxed), 100);
    stop(node);
}

#[test]
fn shutdown_closes_the_connections_that_are_open_and_drains_the_kernel() {
    alone!();
    let before = open_descriptors();
    let Some((node, seen)) = start_echo(2, RingConfig::default()) else { return };
    let mut streams: Vec<_> = (0..20).map(|_| connect(&node)).collect();
    streams.iter().for_each(|stream| round_trip(stream, b"here", 4));
    stop(node);
    assert_eq!(seen.closed.load(Ordering::Relaxed), 20);
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0; 8]).expect("an orderly end"), 0);
    }
    drop(streams);
    assert_eq!(open_descriptors(), before + 2 * GLOMMIO_LEAKS_PER_CORE, "descriptors leaked");
}

#[test]
fn the_end_of_a_connection_reaches_the_peer_and_the_logic_in_both_directions() {
    alone!();
    let Some((node, seen)) = start_echo(1, RingConfig::default()) else { return };
    let mut stream = connect(&node);
    round_trip(&stream, b"hello", 5);
    stream.shutdown(Shutdown::Write).expect("half of it");
    assert_eq!(stream.read(&mut [0; 8]).expect("the end"), 0);
    eventually("the logic hears of it", || seen.closed.load(Ordering::Relaxed) == 1);
    stop(node);
}

#[test]
fn a_second_node_on_the_same_address_is_refused() {
    alone!();
    let Some((node, _)) = start_echo(1, RingConfig::default()) else { return };
    let mut second = setup(RingConfig::default());
    second.listen = node.address();
    let factory = |context| Ok::<_, std::convert::Infallible>(Echo::new(context, Default::default()));
    let Err(error) = trine::rt::executor::run(second, vec![factory]) else { panic!("two nodes on one port") };
    assert!(error.to_string().contains("is another node running there"), "{error}");
    stop(node);
}

#[test]
fn a_core_whose_logic_cannot_be_made_stops_the_start_with_its_reason() {
    alone!();
    let before = open_descriptors();
    let factories: Vec<_> = (0..2)
        .map(|core| {
            move |context| {
                if core == 1 { Err("lane 7 is missing") } else { Ok(Echo::new(context, Default::default())) }
            }
        })
        .collect();
    let Err(error) = trine::rt::executor::run(setup(RingConfig::default()), factories) else {
        panic!("it started")
    };
    assert_eq!(error.to_string(), "core 1 did not start: lane 7 is missing");
    eventually("everything is given back", || open_descriptors() == before + 2 * GLOMMIO_LEAKS_PER_CORE);
}

#[test]
fn more_cores_than_processors_are_refused_with_both_numbers() {
    alone!();
    let factories: Vec<_> = (0..200)
        .map(|_| |context| Ok::<_, std::convert::Infallible>(Echo::new(context, Default::default())))
        .collect();
    let Err(error) = trine::rt::executor::run(setup(RingConfig::default()), factories) else {
        panic!("it started")
    };
    assert!(error.to_string().contains("200 cores were asked for"), "{error}");
}
