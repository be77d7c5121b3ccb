//! The driver over real sockets: no hot loop, and an attempt that outlives its caller.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Rig;
use crate::client::{Driver, DriverError};
use crate::rt::clock::Clock;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Accepts and closes for ever; returns how often when the driver has ended.
async fn turned_away(give_up: Duration) -> (u32, DriverError) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let mut driver = Driver::new(addr, Rig::new().client, Clock::start(), give_up);
    let mut accepted = 0;
    loop {
        tokio::select! {
            ended = driver.next() => return (accepted, ended.expect_err("nobody logs in here")),
            connection = listener.accept() => {
                drop(connection.unwrap());
                accepted += 1;
            }
        }
    }
}

#[test]
fn a_node_that_accepts_and_closes_is_not_called_in_a_hot_loop_and_is_given_up() {
    let patience = Duration::from_secs(30);
    let ended = block_on(async { timeout(patience, turned_away(Duration::from_secs(1))).await });
    let (accepted, error) = ended.expect("an end in time");
    // Pauses of at least 25, 50, 100, 200, 400 and 800 ms.
    assert!((2..=7).contains(&accepted), "{accepted} connections in a second");
    assert!(matches!(error, DriverError::Unreachable { .. }), "{error}");
}

#[test]
fn an_attempt_survives_that_next_is_dropped_again_and_again() {
    let connections = block_on(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let mut driver = Driver::new(addr, Rig::new().client, Clock::start(), Duration::from_secs(60));
        for _ in 0..50 {
            tokio::select! {
                biased;
                ended = driver.next() => panic!("{ended:?}"),
                () = yield_now() => {}
            }
        }
        std::iter::from_fn(|| listener.accept().ok()).count()
    });
    assert_eq!(connections, 1);
}
