//! Clients that break the rules, against a node on which two others exchange messages and must not notice.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "these tests run in real time, with files and threads of their own, and fail by panicking"
)]

mod support;

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use support::peer::{Peer, Undisturbed, connect, kind, read_to_close};
use support::people::{block_on, give, listener, next, user};
use support::{Node, NodeArgs, Running, dir, eventually, plain};
use trine::client::ClientEvent;
use trine::wire::{
    Address, Capabilities, ClientFrame, CloseCode, MessageClass, MessageId, RejectReason, RequestId, Send,
    SendOptions, Subscribe,
};

/// A node, and two on it who are not to be disturbed.
struct Scene {
    node: Node,
    others: Undisturbed,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(settings: &str) -> Self {
        let dir = dir();
        let node = NodeArgs::in_dir(dir.path()).with(settings).start();
        let others = Undisturbed::start(node.listen);
        Self { node, others, _dir: dir }
    }

    fn at(&self) -> SocketAddr {
        self.node.listen
    }

    /// The others never noticed, nothing panicked, and the node drains.
    fn end(self) {
        self.others.end();
        let ended = self.node.stop();
        assert!(!ended.err.contains("panicked"), "{}", ended.err);
    }
}

fn message(to: Address, request: u64, payload: &[u8]) -> ClientFrame<'_> {
    ClientFrame::Send(Send {
        request: RequestId(request),
        to,
        id: MessageId(u128::from(request).to_be_bytes()),
        ttl_s: 3600,
        class: MessageClass::Durable,
        options: SendOptions::default(),
        sent_ms: 0,
        payload,
    })
}

/// The header of a frame, whatever it claims.
fn header(length: u32, kind: u8, flags: u8, request: u64) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend([kind, flags, 0, 0]);
    bytes.extend(request.to_be_bytes());
    bytes
}

fn encoded(frame: &ClientFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

const PING: [u8; 8] = *b"are you?";

fn ping(request: u64) -> ClientFrame<'static> {
    ClientFrame::Ping { request: RequestId(request), opaque: PING }
}

#[test]
fn what_is_no_tls_is_closed() {
    let scene = Scene::new("");
    let mut noise = 0x9e37_79b9_u32;
    let mut random = |bytes: usize| -> Vec<u8> {
        let next = |_| {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            noise as u8
        };
        (0..bytes).map(next).collect()
    };
    let mut garbage = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        // Records that claim more than a record may have, of every type.
        vec![0x16, 3, 1, 0xff, 0xff, 0],
        vec![0x17, 3, 3, 0x40, 0x00, 0],
        vec![0; 64],
        vec![0xff; 64],
    ];
    // The first byte is that of no record, so that the node need not wait for the rest of one.
    garbage.extend((1..20).map(|n| [vec![0x80], random(n * 97)].concat()));
    for bytes in garbage {
        let mut stream = connect(scene.at());
        // The node may close before it has read everything.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        read_to_close(&mut stream);
    }
    // Gone without a word, or in the middle of one.
    for _ in 0..50 {
        let mut stream = connect(scene.at());
        let _ = stream.write_all(&[0x16, 3, 1, 2, 0, 1]);
    }
    scene.end();
}

/// Believes everybody; what is tested is the node.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Shakes hands with these protocols on offer.
fn offer(at: SocketAddr, protocols: &[&str]) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut connection = ClientConnection::new(Arc::new(config), "node".try_into().unwrap()).unwrap();
    let mut stream = connect(at);
    while connection.is_handshaking() {
        match connection.complete_io(&mut stream) {
            Ok(_) => {}
            Err(error) => return Err(error.downcast::<rustls::Error>().unwrap()),
        }
    }
    Ok(())
}

#[test]
fn a_client_of_another_protocol_is_told_so_by_tls() {
    let scene = Scene::new("");
    let refused = Err(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol));
    assert_eq!(offer(scene.at(), &["trine/1"]), Ok(()), "a stock TLS client is served");
    assert_eq!(offer(scene.at(), &["h2", "http/1.1"]), refused);
    assert_eq!(offer(scene.at(), &[]), refused);
    scene.end();
}

#[test]
fn who_dawdles_before_the_handshake_is_closed_at_the_deadline() {
    let scene = Scene::new("[deadlines]\ntls = \"500ms\"\n");
    let begin = Instant::now();
    let mut silent = connect(scene.at());
    let mut dribbling = connect(scene.at());
    // A hello of 512 bytes, byte by byte, for as long as the node listens.
    let mut bytes = [0x16, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1));
    dribbling.set_nonblocking(true).unwrap();
    eventually("the node closes", || {
        let closed = is_closed(&dribbling);
        let _ = dribbling.write(&[bytes.next().unwrap()]);
        closed.then_some(())
    });
    read_to_close(&mut silent);
    assert!(begin.elapsed() >= Duration::from_millis(500), "not before the deadline");
    scene.end();
}

fn is_closed(stream: &std::net::TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn who_dawdles_before_the_login_is_closed_at_the_deadline_with_a_code() {
    let scene = Scene::new("[deadlines]\nlogin = \"500ms\"\n");
    let mut silent = Peer::shake_hands(scene.at());
    let mut dribbling = Peer::shake_hands(scene.at());
    let login = encoded(&ClientFrame::Login(dribbling.login(&user(1))));
    for byte in &login[..100] {
        dribbling.send_bytes(&[*byte]);
    }
    assert_eq!(silent.closed_with(), CloseCode::LoginTimeout);
    assert_eq!(dribbling.closed_with(), CloseCode::LoginTimeout);
    scene.end();
}

#[test]
fn a_wrong_first_frame_is_closed_with_its_code() {
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let scene = Scene::new("");
    let login = |change: Change<'_>| {
        let peer = Peer::shake_hands(scene.at());
        let mut bytes = encoded(&ClientFrame::Login(peer.login(&user(1))));
        change(&mut bytes);
        (peer, bytes)
    };
    // Offsets behind the header of 16 bytes: magic 0, versions 4 and 6, time 16, grant's end 88, proof 160.
    let cases: [(&str, CloseCode, Change<'_>); 12] = [
        ("wrong magic", CloseCode::Magic, &|bytes| bytes[16] = b'X'),
        ("later versions only", CloseCode::Version, &|bytes| bytes[20..24].copy_from_slice(&[0, 9, 0, 10])),
        ("bad proof", CloseCode::AuthFailed, &|bytes| bytes[16 + 160] ^= 1),
        ("bad grant", CloseCode::AuthFailed, &|bytes| bytes[16 + 96] ^= 1),
        ("a later end of the grant", CloseCode::AuthFailed, &|bytes| bytes[16 + 88] ^= 1),
        ("another time than was signed", CloseCode::AuthFailed, &|bytes| bytes[16 + 23] ^= 1),
        ("a key of small order", CloseCode::AuthFailed, &|bytes| bytes[16 + 24..][..32].fill(0)),
        ("a claim of 4 GiB", CloseCode::TooLarge, &|bytes| *bytes = header(u32::MAX, 1, 0, 0)),
        ("a claim of 513 bytes", CloseCode::TooLarge, &|bytes| *bytes = header(513 - 16, 1, 0, 0)),
        ("a ping", CloseCode::UnexpectedFrame, &|bytes| *bytes = encoded(&ping(1))),
        ("an unknown frame", CloseCode::UnexpectedFrame, &|bytes| *bytes = header(0, 0x66, 0, 0)),
        ("a reserved bit", CloseCode::Protocol, &|bytes| bytes[5] = 2),
    ];
    for (what, code, change) in cases {
        let (mut peer, bytes) = login(change);
        peer.send_bytes(&bytes);
        assert_eq!(peer.closed_with(), code, "{what}");
    }
    scene.end();
}

#[test]
fn a_wrong_frame_of_a_user_is_closed_with_its_code() {
    let scene = Scene::new("");
    let subscribe = |messages, bytes| {
        encoded(&ClientFrame::Subscribe(Subscribe { window_messages: messages, window_bytes: bytes }))
    };
    let cases: [(&str, CloseCode, Vec<u8>); 10] = [
        ("a claim of 4 GiB", CloseCode::TooLarge, header(u32::MAX, 0x10, 0, 1)),
        ("one byte too many", CloseCode::TooLarge, header(65_536 - 16 + 1, 0x10, 0, 1)),
        ("an unknown frame", CloseCode::UnexpectedFrame, header(0, 0x66, 0, 0)),
        ("a frame of the node's", CloseCode::UnexpectedFrame, header(0, 0x90, 0, 0)),
        ("flags that are not defined", CloseCode::Protocol, header(8, 0x13, 0x82, 1)),
        ("a SEND without its fields", CloseCode::Protocol, [header(10, 0x10, 0, 1), vec![0; 10]].concat()),
        ("a PING that is too long", CloseCode::Protocol, [header(9, 0x13, 0, 1), vec![0; 9]].concat()),
        ("an empty window", CloseCode::Protocol, subscribe(0, 0)),
        ("a request where there is none", CloseCode::Protocol, header(0, 0x14, 0, 7)),
        ("an ACK whose list is not there", CloseCode::Protocol, {
            let mut ack = header(18, 0x12, 0, 0);
            ack.extend([0; 16]);
            ack.extend([0, 200]);
            ack
        }),
    ];
    for (what, code, bytes) in cases {
        let mut peer = Peer::log_in(scene.at(), &user(1));
        peer.send_bytes(&bytes);
        assert_eq!(peer.closed_with(), code, "{what}");
    }
    let mut again = Peer::log_in(scene.at(), &user(1));
    let login = again.login(&user(1));
    again.send(&[ClientFrame::Login(login)]);
    assert_eq!(again.closed_with(), CloseCode::UnexpectedFrame, "a second login");
    // A frame that may be skipped is.
    let mut peer = Peer::log_in(scene.at(), &user(1));
    peer.send_bytes(&[header(3, 0x66, 1, 9), vec![1, 2, 3]].concat());
    peer.send(&[ping(4)]);
    let pong = peer.expect();
    assert_eq!((pong.kind, pong.request, &pong.payload[..]), (kind::PONG, 4, &PING[..]));
    scene.end();
}

#[test]
fn a_login_that_was_overheard_is_worth_nothing_on_another_link() {
    let scene = Scene::new("");
    let mut first = Peer::shake_hands(scene.at());
    let login = first.login(&user(1));
    assert_eq!(login.capabilities, Capabilities::SUPPORTED);
    first.send(&[ClientFrame::Login(login)]);
    assert_eq!(first.expect().kind, kind::WELCOME);
    let mut second = Peer::shake_hands(scene.at());
    second.send(&[ClientFrame::Login(login)]);
    assert_eq!(second.closed_with(), CloseCode::AuthFailed);
    // Nor did it displace the first.
    first.send(&[ping(1)]);
    assert_eq!(first.expect().kind, kind::PONG);
    scene.end();
}

#[test]
fn records_that_are_no_records_end_the_link_only() {
    let scene = Scene::new("");
    let mut peer = Peer::log_in(scene.at(), &user(1));
    let mut sealed = peer.seal(&encoded(&ping(1)));
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    peer.stream.write_all(&sealed).unwrap();
    assert!(!read_to_close(&mut peer.stream).is_empty(), "an alert says why");
    for cut in [1, 5, 10, last] {
        let mut peer = Peer::log_in(scene.at(), &user(1));
        let sealed = peer.seal(&encoded(&ping(1)));
        peer.stream.write_all(&sealed[..cut]).unwrap();
        peer.stream.shutdown(Shutdown::Write).unwrap();
        read_to_close(&mut peer.stream);
    }
    scene.end();
}

#[test]
fn frames_may_come_one_byte_at_a_time() {
    let scene = Scene::new("");
    let mut peer = Peer::shake_hands(scene.at());
    // One byte per record, one record per write.
    for byte in encoded(&ClientFrame::Login(peer.login(&user(1)))) {
        peer.send_bytes(&[byte]);
    }
    assert_eq!(peer.expect().kind, kind::WELCOME);
    // A frame and a half per record, and every record cut at each of its bytes.
    let frames: Vec<u8> = (1..=20).flat_map(|n| encoded(&message(user(2).address(), n, b"cut"))).collect();
    for chunk in frames.chunks(123) {
        for byte in peer.seal(chunk) {
            peer.stream.write_all(&[byte]).unwrap();
        }
    }
    for _ in 1..=20 {
        assert_eq!(peer.receipt(), None);
    }
    scene.end();
}

#[test]
fn a_frame_cut_off_by_a_close_has_no_effect() {
    let scene = Scene::new("");
    let (alice, bob) = (user(1), user(2));
    for cut in [1, 15, 16, 50, 79] {
        let mut peer = Peer::log_in(scene.at(), &alice);
        let frame = encoded(&message(bob.address(), cut, b"never whole, never sent"));
        peer.send_bytes(&frame[..cut as usize]);
        peer.stream.shutdown(Shutdown::Write).unwrap();
        while peer.frame().is_some() {}
    }
    let taken = block_on(async { support::people::take_all(&mut listener(scene.at(), &bob)).await });
    assert_eq!(taken, []);
    scene.end();
}

#[test]
fn who_never_reads_is_closed_and_slows_nobody_down() {
    let settings = "[deadlines]\nstall = \"1s\"\n[limits]\nidentity_bytes_burst = \"1 GiB\"\n";
    let scene = Scene::new(settings);
    let (lazy, busy) = (user(1), user(2));
    let mut deaf = Peer::log_in(scene.at(), &lazy);
    let window = Subscribe { window_messages: u32::MAX, window_bytes: u32::MAX };
    deaf.send(&[ClientFrame::Subscribe(window)]);
    // It asks for far more than any socket holds, and reads nothing of it.
    let payload = vec![7; 60_000];
    block_on(async {
        let mut sender = support::people::driver(scene.at(), &busy, None);
        for number in 1..=400 {
            give(&mut sender, lazy.address(), number, &payload);
        }
        let mut accepted = 0;
        while accepted < 400 {
            accepted += u32::from(matches!(next(&mut sender).await, ClientEvent::Sent(_)));
        }
    });
    // Pings it sends without end, until the answers to them fill every buffer on the way.
    deaf.stream.set_nonblocking(true).unwrap();
    let pings: Vec<u8> = (0..600).flat_map(|n| encoded(&ping(n))).collect();
    let (mut unsent, mut taken_bytes) = (Vec::new(), 0);
    eventually("it is closed as stalled", || {
        if unsent.is_empty() {
            unsent = deaf.seal(&pings);
        }
        while let Ok(sent) = deaf.stream.write(&unsent) {
            unsent.drain(..sent);
            taken_bytes += sent;
            assert!(taken_bytes < 1 << 30, "the node takes without end what it cannot answer");
            if unsent.is_empty() {
                unsent = deaf.seal(&pings);
            }
        }
        let metrics = scene.node.get("/metrics").2;
        let stalled = metrics.lines().filter(|line| line.contains("Stalled") && !line.ends_with(" 0"));
        (stalled.count() > 0).then_some(())
    });
    // Nothing is lost for it.
    let taken = block_on(async { support::people::take_all(&mut listener(scene.at(), &lazy)).await });
    assert_eq!(taken.len(), 400);
    assert!(taken.iter().map(|(number, _)| *number).eq(1..=400));
    scene.end();
}

#[test]
fn an_unknown_recipient_is_answered_like_a_known_one() {
    let scene = Scene::new("");
    let mut peer = Peer::log_in(scene.at(), &user(1));
    drop(Peer::log_in(scene.at(), &user(2)));
    let known = user(2).address();
    peer.send(&[message(known, 1, b"x"), message(Address([9; 32]), 2, b"x")]);
    let mut receipts = [peer.expect(), peer.expect()];
    receipts.sort_by_key(|receipt| receipt.request);
    for (receipt, request) in receipts.iter().zip([1, 2]) {
        assert_eq!((receipt.kind, receipt.request), (kind::RECEIPT, request));
        // Accepted, no reason, no hint, number 1.
        assert_eq!(receipt.payload[..16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
    scene.end();
}

/// Sends `count` messages of `bytes` at once; gives the refusals.
fn refusals(peer: &mut Peer, to: Address, count: u64, bytes: usize) -> Vec<(RejectReason, u32)> {
    let payload = vec![0; bytes];
    let frames: Vec<_> = (1..=count).map(|request| message(to, request, &payload)).collect();
    peer.send(&frames);
    (0..count).filter_map(|_| peer.receipt()).collect()
}

#[test]
fn who_sends_too_fast_is_told_when_to_go_on() {
    let scene = Scene::new("[limits]\nidentity_messages_per_s = 100\nidentity_messages_burst = 100\n");
    let mut peer = Peer::log_in(scene.at(), &user(1));
    let refused = refusals(&mut peer, user(2).address(), 200, 10);
    assert!(refused.len() > 50, "only {} were refused", refused.len());
    for (reason, retry_ms) in refused {
        assert_eq!(reason, RejectReason::Rate);
        assert!((1..=1_000).contains(&retry_ms), "{retry_ms}");
    }
    scene.end();
}

#[test]
fn who_has_too_much_unanswered_is_refused_what_is_beyond() {
    let scene = Scene::new("[limits]\nsend_window_max = 4\n");
    let mut peer = Peer::log_in(scene.at(), &user(1));
    let refused = refusals(&mut peer, user(2).address(), 100, 10);
    assert!(!refused.is_empty());
    assert!(
        refused.iter().all(|(reason, ms)| *reason == RejectReason::WindowExceeded && *ms > 0),
        "{refused:?}"
    );
    scene.end();
}

#[test]
fn a_full_mailbox_refuses_with_its_reason_and_only_itself() {
    let scene = Scene::new("[limits]\nmailbox_messages_max = 10\nmailbox_bytes_max = \"100 KiB\"\n");
    let mut peer = Peer::log_in(scene.at(), &user(1));
    for (recipient, bytes, reason, fits) in
        [(2, 1, RejectReason::MailboxMessages, 10), (3, 30_000, RejectReason::MailboxBytes, 3)]
    {
        let refused = refusals(&mut peer, user(recipient).address(), 20, bytes);
        assert_eq!(refused.len(), 20 - fits, "{refused:?}");
        assert!(refused.iter().all(|(why, ms)| *why == reason && *ms > 0), "{refused:?}");
    }
    assert_eq!(refusals(&mut peer, user(4).address(), 1, 1), []);
    scene.end();
}

#[test]
fn too_many_connections_from_one_place_are_refused_and_the_others_stay() {
    let scene = Scene::new("[limits]\nconnections_per_prefix_max = 20\n");
    let mut held: Vec<_> = (0..200).map(|_| connect(scene.at())).collect();
    eventually("some are closed", || {
        let closed = held.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            is_closed(stream)
        });
        (closed.count() >= 100).then_some(())
    });
    scene.others.flows();
    held.clear();
    eventually("there is room again", || (scene.node.total("link_connections_open") <= 2).then_some(()));
    let mut peer = Peer::log_in(scene.at(), &user(1));
    peer.send(&[ping(1)]);
    assert_eq!(peer.expect().kind, kind::PONG);
    scene.end();
}

#[test]
fn a_node_without_descriptors_keeps_its_sessions_and_accepts_again_later() {
    const DESCRIPTORS: usize = 1_300;
    let dir = dir();
    let mut command = plain(Path::new("prlimit"));
    command.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")).arg("--").arg(env!("CARGO_BIN_EXE_trine"));
    let settings = "[limits]\nconnections_per_prefix_max = 10000\nconnects_per_prefix_burst = 10000\n\
                    half_open_per_core_max = 10000\n[deadlines]\ntls = \"10m\"\n";
    NodeArgs::in_dir(dir.path()).with(settings).on_cores(1).extend(&mut command);
    let node = Node::started(Running::start(command, ""));
    let others = Undisturbed::start(node.listen);
    // The kernel completes these; the node cannot take the last of them.
    let held: Vec<_> = (0..DESCRIPTORS + 50).map(|_| connect(node.listen)).collect();
    others.flows();
    let waiting = connect(node.listen);
    others.flows();
    drop(held);
    // Who waited is served now, and so is who comes later.
    drop(waiting);
    for _ in 0..3 {
        let mut peer = Peer::log_in(node.listen, &user(1));
        peer.send(&[ping(1)]);
        assert_eq!(peer.expect().kind, kind::PONG);
    }
    eventually("the refused accepts are counted", || (node.total("link_accept_failures") > 0).then_some(()));
    others.end();
    node.stop();
}
