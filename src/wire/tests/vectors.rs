//! The bytes of one frame of each kind are committed, and printed in `docs/WIRE.md`, so that they cannot
//! change unseen.

use crate::wire::*;

const COMMITTED: &str = include_str!("vectors.txt");
const DOCUMENT: &str = include_str!("../../../docs/WIRE.md");

fn pattern<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first.wrapping_add(index as u8))
}

/// The client's frames that the vectors show, by name.
pub(super) fn client_samples() -> Vec<(&'static str, ClientFrame<'static>)> {
    const SEQS: &[MailboxSeq] = &[MailboxSeq(1001), MailboxSeq(1003)];
    let login = Login {
        version_min: 1,
        version_max: 1,
        capabilities: Capabilities(0),
        time_ms: 1_800_000_000_000,
        user_key: pattern(0x00),
        device_key: pattern(0x20),
        grant_expires_ms: 1_900_000_000_000,
        grant_signature: pattern(0x40),
        proof_signature: pattern(0x80),
    };
    let send = Send {
        request: RequestId(0x0102_0304_0506_0708),
        to: Address(pattern(0x10)),
        id: MessageId(pattern(0xa0)),
        ttl_s: 2_592_000,
        class: MessageClass::Durable,
        options: SendOptions { want_delivered: true, ..SendOptions::default() },
        sent_ms: 1_800_000_000_001,
        payload: b"hello, trine",
    };
    let ephemeral = Send {
        class: MessageClass::Ephemeral,
        ttl_s: 0,
        options: SendOptions { want_delivered: false, anonymous: true, want_ephemeral_receipt: true },
        payload: b"",
        ..send
    };
    let selective = SeqList::new(MailboxSeq(999), SEQS).unwrap();
    let ack = Ack { epoch: Epoch(7), cumulative: MailboxSeq(999), selective };
    vec![
        ("LOGIN", ClientFrame::Login(login)),
        ("SEND", ClientFrame::Send(send)),
        ("SEND.ephemeral", ClientFrame::Send(ephemeral)),
        ("SUBSCRIBE", ClientFrame::Subscribe(Subscribe { window_messages: 256, window_bytes: 1 << 20 })),
        ("ACK", ClientFrame::Ack(ack)),
        ("PING", ClientFrame::Ping { request: RequestId(9), opaque: *b"pingpong" }),
        ("BYE", ClientFrame::Bye),
    ]
}

/// The node's frames that the vectors show, by name.
pub(super) fn server_samples() -> Vec<(&'static str, ServerFrame<'static>)> {
    let welcome = Welcome {
        version: 1,
        capabilities: Capabilities(0),
        time_ms: 1_800_000_000_002,
        mailbox_epoch: Epoch(7),
        next_seq: MailboxSeq(1004),
        cursor: MailboxSeq(999),
        max_frame_bytes: 65_536,
        send_window: 256,
    };
    let accepted = Receipt {
        request: RequestId(0x0102_0304_0506_0708),
        status: ReceiptStatus::Accepted,
        retry_ms: 0,
        seq: MailboxSeq(1004),
        id: MessageId(pattern(0xa0)),
    };
    let rejected = Receipt {
        status: ReceiptStatus::Rejected(RejectReason::Busy),
        retry_ms: 250,
        seq: MailboxSeq(0),
        ..accepted
    };
    let deliver = Deliver {
        seq: MailboxSeq(1004),
        id: MessageId(pattern(0xa0)),
        from: Address(pattern(0x30)),
        sent_ms: 1_800_000_000_001,
        flags: DeliverFlags { ephemeral: false, maybe_redelivery: true },
        payload: b"hello, trine",
    };
    let close = Close { code: CloseCode::ShuttingDown, retry_ms: 5_000, detail: "maintenance" };
    vec![
        ("WELCOME", ServerFrame::Welcome(welcome)),
        ("RECEIPT.accepted", ServerFrame::Receipt(accepted)),
        ("RECEIPT.delivered", ServerFrame::Receipt(Receipt { status: ReceiptStatus::Delivered, ..accepted })),
        ("RECEIPT.rejected", ServerFrame::Receipt(rejected)),
        (
            "RECEIPT.relayed",
            ServerFrame::Receipt(Receipt { status: ReceiptStatus::Relayed, seq: MailboxSeq(0), ..accepted }),
        ),
        ("DELIVER", ServerFrame::Deliver(deliver)),
        ("CAUGHT_UP", ServerFrame::CaughtUp { seq: MailboxSeq(1004) }),
        ("PONG", ServerFrame::Pong { request: RequestId(9), opaque: *b"pingpong" }),
        ("GOAWAY", ServerFrame::GoAway { spread_ms: 120_000 }),
        ("CLOSE", ServerFrame::Close(close)),
    ]
}

fn line(name: &str, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name} {hex}\n")
}

#[test]
fn the_bytes_of_every_frame_are_the_committed_ones_and_the_documented_ones() {
    let mut lines = String::new();
    for (name, frame) in client_samples() {
        let mut out = Vec::new();
        frame.encode(&mut out);
        lines.push_str(&line(name, &out));
    }
    for (name, frame) in server_samples() {
        let mut out = Vec::new();
        frame.encode(&mut out);
        lines.push_str(&line(name, &out));
    }
    assert_eq!(lines, COMMITTED, "the wire format changed; it may only change with a new version");
    for line in lines.lines() {
        assert!(DOCUMENT.contains(line), "docs/WIRE.md lacks this vector: {line}");
    }
}

#[test]
fn the_document_lists_every_code_with_its_number() {
    for reason in RejectReason::ALL {
        let row = format!("| {} | {} |", reason.code(), reason.name());
        assert!(DOCUMENT.contains(&row), "docs/WIRE.md lacks: {row}");
    }
    for code in CloseCode::ALL {
        let row = format!("| {} | {} |", code.code(), code.name());
        assert!(DOCUMENT.contains(&row), "docs/WIRE.md lacks: {row}");
    }
}
