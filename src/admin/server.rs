//! The HTTP server, bounded in connections, bytes and time.
//!
//! axum's own `serve` sets no bound on how long a client may take over its request, so the connections are
//! driven here with hyper directly. A client beyond [`Bounds::connections_max`] waits in the kernel's backlog
//! until another one ends, which each does within [`Bounds::lifetime`]. A failed accept (no file descriptors
//! left) is tried again after a pause.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{AdminState, routes};

/// What clients of the HTTP surface may use.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at once.
    connections_max: usize,
    /// Time to send the head of a request; also how long a connection may idle between two.
    head_timeout: Duration,
    /// Time until a connection is asked to end.
    lifetime: Duration,
    /// Time to end after being asked.
    grace: Duration,
    /// Pause after a failed accept.
    accept_pause: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections_max: 32,
    head_timeout: Duration::from_secs(5),
    lifetime: Duration::from_secs(30),
    grace: Duration::from_secs(1),
    accept_pause: Duration::from_millis(100),
};
/// Most bytes of a request that are buffered.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;

/// Serves `state` on `listener` until `shutdown` completes; then lets open requests finish for at most one
/// second.
///
/// Must run on a tokio runtime with I/O and time enabled.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: impl Future<Output = ()>) {
    serve_bounded(listener, routes::router(state), shutdown, BOUNDS).await;
}

async fn serve_bounded(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    bounds: Bounds,
) {
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = tokio::select! {
            () = &mut shutdown => break,
            next = accept(&listener, &slots) => next,
        };
        match next {
            Ok((stream, slot)) => {
                connections.spawn(connection(stream, router.clone(), stopped.clone(), slot, bounds));
            }
            Err(error) => {
                tracing::warn!(%error, "the HTTP listener could not accept a connection");
                sleep(bounds.accept_pause).await;
            }
        }
        // Forget those that ended, so that the set never holds more than `connections_max` and a few.
        while connections.try_join_next().is_some() {}
    }
    drop((listener, stop));
    // Each of them ends within `grace`; the second one is for the scheduler.
    let _ = timeout(2 * bounds.grace, async { while connections.join_next().await.is_some() {} }).await;
}

/// Waits for a free slot first, so that a connection is taken from the kernel only when it can be served.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// Serves one connection. `slot` is given back at the end.
async fn connection(
    stream: TcpStream,
    router: Router,
    mut stopped: watch::Receiver<()>,
    slot: OwnedSemaphorePermit,
    bounds: Bounds,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(REQUEST_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    let ended = tokio::select! {
        result = served.as_mut() => Some(result),
        // The channel carries nothing; it closes when the server stops.
        _ = stopped.changed() => None,
        () = sleep(bounds.lifetime) => None,
    };
    let result = match ended {
        Some(result) => Ok(result),
        None => {
            served.as_mut().graceful_shutdown();
            timeout(bounds.grace, served).await
        }
    };
    if let Ok(Err(error)) = result {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    drop(slot);
}

#[cfg(test)]
mod tests {
    use super::super::{Readiness, testing};
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::{JoinHandle, spawn};

    const QUICK: Bounds = Bounds {
        connections_max: 2,
        head_timeout: Duration::from_millis(100),
        lifetime: Duration::from_millis(300),
        grace: Duration::from_millis(50),
        accept_pause: Duration::from_millis(1),
    };

    struct Server {
        addr: SocketAddr,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn start(state: AdminState, bounds: Bounds) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let task = spawn(serve_bounded(listener, routes::router(state), shutdown, bounds));
        Server { addr, stop, task }
    }

    /// Sends `request` as it is and reads until the server closes.
    async fn exchange(addr: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as a close.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(addr: SocketAddr, path: &str) -> String {
        exchange(addr, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
    }

    #[test]
    fn the_page_of_limits_tells_the_bounds() {
        let page = include_str!("../../docs/LIMITS.md").replace('\n', " ");
        let told = format!(
            "{} connections, {} KiB and {HEADERS_MAX} headers per request, {} s to send them, {} s",
            BOUNDS.connections_max,
            REQUEST_BYTES_MAX / 1024,
            BOUNDS.head_timeout.as_secs(),
            BOUNDS.lifetime.as_secs()
        );
        assert!(page.contains(&told), "{told}");
    }

    #[tokio::test]
    async fn readiness_follows_the_state_and_names_the_reason() {
        let state = testing::state(1);
        let readiness = Arc::clone(&state.readiness);
        let server = start(state, BOUNDS).await;
        for (set, status, body) in [
            (Readiness::Starting, "503", r#"{"ready":false,"reason":"starting"}"#),
            (Readiness::Recovering, "503", r#"{"ready":false,"reason":"recovering"}"#),
            (Readiness::Ready, "200", r#"{"ready":true}"#),
            (Readiness::StoreReadOnly, "503", r#"{"ready":false,"reason":"store_read_only"}"#),
            (Readiness::Draining, "503", r#"{"ready":false,"reason":"draining"}"#),
        ] {
            readiness.set(set);
            let answer = get(server.addr, "/readyz").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(body), "{answer}");
        }
        assert!(get(server.addr, "/healthz").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn metrics_have_the_content_type_of_openmetrics() {
        let server = start(testing::state(1), BOUNDS).await;
        let answer = get(server.addr, "/metrics").await;
        assert!(answer.contains(&format!("content-type: {}\r\n", super::super::metrics::CONTENT_TYPE)));
        assert!(answer.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn wrong_requests_are_refused() {
        let server = start(testing::state(1), BOUNDS).await;
        let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(2 * REQUEST_BYTES_MAX));
        let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        for (request, status) in [
            ("GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "405"),
            ("\x16\x03\x01 this is no HTTP\r\n\r\n", "400"),
            (&long, "431"),
            (&headers, "431"),
        ] {
            let answer = exchange(server.addr, request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        }
    }

    #[tokio::test]
    async fn slow_clients_cannot_keep_others_out() {
        let server = start(testing::state(1), QUICK).await;
        let mut slow = Vec::new();
        for _ in 0..3 * QUICK.connections_max {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
            slow.push(stream);
        }
        let answer = timeout(Duration::from_secs(10), get(server.addr, "/healthz")).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections_too() {
        let server = start(testing::state(1), BOUNDS).await;
        let mut idle = TcpStream::connect(server.addr).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 8];
        idle.read_exact(&mut first).await.unwrap();
        server.stop.send(()).unwrap();
        timeout(Duration::from_secs(10), server.task).await.unwrap().unwrap();
        assert!(TcpStream::connect(server.addr).await.is_err());
    }
}
