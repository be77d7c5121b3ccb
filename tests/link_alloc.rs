//! What a link costs in memory: nothing per record, and little while it is idle.
//!
//! Counts the allocations of the calling thread, so that the test harness does not disturb the count.

// Clippy's leave for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use trine::link::{
    ClientLink, ClientLinkConfig, Expect, LinkCrypto, LinkError, NodeKey, ServerLink, ServerLinkConfig,
};
use zeroize::Zeroizing;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(allocations: u64, bytes: i64) {
    // Fails only while a thread ends, when nothing is measured any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + bytes));
}

// SAFETY: every call is passed on to the system's allocator with its arguments unchanged; counting does not
// allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as for `alloc`.
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: `ptr` came from `alloc` above with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work`; says how many allocations it made and how many bytes it left allocated.
fn measure<T>(work: impl FnOnce() -> T) -> (T, u64, i64) {
    let before = (ALLOCATIONS.get(), LIVE_BYTES.get());
    let result = work();
    (result, ALLOCATIONS.get() - before.0, LIVE_BYTES.get() - before.1)
}

fn configs() -> (Arc<ServerLinkConfig>, Arc<ClientLinkConfig>) {
    let crypto = LinkCrypto::seeded(1);
    let key = NodeKey::from_seed(Zeroizing::new([1; 32])).unwrap();
    let server = ServerLinkConfig::new(&key, &crypto).unwrap();
    let client = ClientLinkConfig::new(Expect::Exactly(key.node_id()), &crypto).unwrap();
    (Arc::new(server), Arc::new(client))
}

fn take_all(plain: &mut [u8]) -> Result<usize, LinkError> {
    Ok(plain.len())
}

/// Both ends after the handshake, and the bytes that the node's end occupies on the heap.
fn established(configs: &(Arc<ServerLinkConfig>, Arc<ClientLinkConfig>)) -> (ClientLink, ServerLink, i64) {
    let (mut up, mut down) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    let mut client = ClientLink::new(&configs.1, &mut up).unwrap();
    let (mut server, _, mut server_bytes) = measure(|| ServerLink::new(&configs.0));
    for _ in 0..2 {
        let (received, _, bytes) = measure(|| server.receive(&mut up, &mut down, &mut take_all));
        received.unwrap();
        server_bytes += bytes;
        up.clear();
        client.receive(&mut down, &mut up, &mut take_all).unwrap();
        down.clear();
    }
    assert!(client.is_established() && server.is_established());
    (client, server, server_bytes)
}

#[test]
fn an_idle_link_of_the_node_takes_at_most_3_kib_in_all() {
    let configs = configs();
    drop(established(&configs));
    let (_client, server, heap_bytes) = established(&configs);
    let total = heap_bytes + size_of_val(&server) as i64;
    println!("idle link: {} bytes inline, {heap_bytes} bytes on the heap", size_of_val(&server));
    assert!((500..=3072).contains(&total), "{total} bytes");
}

#[test]
fn sealing_and_opening_records_allocates_nothing() {
    let configs = configs();
    let (mut client, mut server, _) = established(&configs);
    let (mut out, mut answer) = (Vec::with_capacity(128 * 1024), Vec::with_capacity(1024));
    let frame = [7; 300];
    let mut heard = 0;
    let (_, allocations, bytes) = measure(|| {
        for _ in 0..1000 {
            out.clear();
            let start = client.begin_record(&mut out);
            out.extend_from_slice(&frame);
            client.end_record(&mut out, start).unwrap();
            let mut writer = client.writer(&mut out);
            for _ in 0..100 {
                writer.frame(frame.len(), |out| out.extend_from_slice(&frame)).unwrap();
            }
            writer.frame(60_000, |out| out.resize(out.len() + 60_000, 1)).unwrap();
            writer.finish().unwrap();
            let mut sink = |plain: &mut [u8]| {
                heard += plain.len();
                Ok::<_, LinkError>(plain.len())
            };
            server.receive(&mut out, &mut answer, &mut sink).unwrap();
        }
    });
    assert_eq!(heard, 1000 * (101 * frame.len() + 60_000));
    assert_eq!((allocations, bytes), (0, 0));
}

#[test]
fn a_steady_flow_of_records_across_buffer_ends_keeps_one_buffer_and_gives_it_back() {
    let configs = configs();
    let (mut client, mut server, _) = established(&configs);
    let mut out = Vec::with_capacity(64 * 1024);
    let mut answer = Vec::with_capacity(1024);
    let mut run = |client: &mut ClientLink, server: &mut ServerLink| {
        out.clear();
        for _ in 0..100 {
            let start = client.begin_record(&mut out);
            out.resize(out.len() + 300, 5);
            client.end_record(&mut out, start).unwrap();
        }
        // 322-byte records in pieces that never end between two, but at the very end.
        let last = out.len() - 1;
        for piece in out[..last].chunks_mut(1000) {
            server.receive(piece, &mut answer, &mut take_all).unwrap();
        }
        server.receive(&mut [out[last]], &mut answer, &mut take_all).unwrap();
    };
    run(&mut client, &mut server);
    let (_, allocations, bytes) = measure(|| run(&mut client, &mut server));
    assert!(
        allocations <= 12,
        "{allocations} for 100 records: the buffer grows once and is kept while bytes flow"
    );
    assert_eq!((bytes, server.held_bytes()), (0, 0), "and given back at rest");
}
