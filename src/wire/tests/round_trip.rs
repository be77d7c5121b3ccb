//! Whatever is encoded is decoded to the same, and takes exactly the bytes that were announced.

use proptest::prelude::*;

use crate::wire::*;

fn bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    proptest::collection::vec(any::<u8>(), N)
        .prop_map(|bytes| bytes.try_into().expect("the strategy makes exactly N bytes"))
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..400),
        Just(Vec::new()),
        Just(vec![0x5a; MESSAGE_BYTES_MAX])
    ]
}

fn check_client(frame: ClientFrame<'_>) -> Result<(), TestCaseError> {
    let mut out = b"before".to_vec();
    frame.encode(&mut out);
    let encoded = &out[6..];
    prop_assert_eq!(encoded.len(), frame.encoded_bytes());
    let Decoded::Frame { frame: raw, consumed } = decode_frame(encoded, Limit::AfterLogin).unwrap() else {
        return Err(TestCaseError::fail("a whole frame is not incomplete"));
    };
    prop_assert_eq!(consumed, encoded.len());
    prop_assert_eq!(ClientFrame::parse(raw), Ok(Some(frame)));
    Ok(())
}

fn check_server(frame: ServerFrame<'_>) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    prop_assert_eq!(out.len(), frame.encoded_bytes());
    let Decoded::Frame { frame: raw, consumed } = decode_frame(&out, Limit::AfterLogin).unwrap() else {
        return Err(TestCaseError::fail("a whole frame is not incomplete"));
    };
    prop_assert_eq!(consumed, out.len());
    prop_assert_eq!(ServerFrame::parse(raw), Ok(Some(frame)));
    Ok(())
}

proptest! {
    #[test]
    fn login_survives_the_wire(
        versions in any::<(u16, u16)>(), numbers in any::<(u64, u64, u64)>(),
        keys in (bytes::<32>(), bytes::<32>()), signatures in (bytes::<64>(), bytes::<64>()),
    ) {
        check_client(ClientFrame::Login(Login {
            version_min: versions.0,
            version_max: versions.1,
            capabilities: Capabilities(numbers.0),
            time_ms: numbers.1,
            user_key: keys.0,
            device_key: keys.1,
            grant_expires_ms: numbers.2,
            grant_signature: signatures.0,
            proof_signature: signatures.1,
        }))?;
    }

    #[test]
    fn send_survives_the_wire(
        request in any::<u64>(), to in bytes::<32>(), id in bytes::<16>(), ttl_s in any::<u32>(),
        flags in any::<(bool, bool, bool, bool)>(), sent_ms in any::<u64>(), payload in payload(),
    ) {
        check_client(ClientFrame::Send(Send {
            request: RequestId(request),
            to: Address(to),
            id: MessageId(id),
            ttl_s,
            class: if flags.0 { MessageClass::Durable } else { MessageClass::Ephemeral },
            options: SendOptions {
                want_delivered: flags.1,
                anonymous: flags.2,
                want_ephemeral_receipt: flags.3,
            },
            sent_ms,
            payload: &payload,
        }))?;
    }

    #[test]
    fn subscribe_ack_and_ping_survive_the_wire(
        windows in (1u32.., 1u32..), epoch in any::<u64>(), cumulative in 0..u64::MAX / 2,
        steps in proptest::collection::vec(1u64..1_000_000, 0..=ACK_SELECTIVE_MAX),
        request in any::<u64>(), opaque in bytes::<8>(),
    ) {
        let subscribe = Subscribe { window_messages: windows.0, window_bytes: windows.1 };
        check_client(ClientFrame::Subscribe(subscribe))?;
        let mut seq = cumulative;
        let seqs: Vec<_> = steps.iter().map(|step| { seq += step; MailboxSeq(seq) }).collect();
        let cumulative = MailboxSeq(cumulative);
        let selective = SeqList::new(cumulative, &seqs).unwrap();
        check_client(ClientFrame::Ack(Ack { epoch: Epoch(epoch), cumulative, selective }))?;
        check_client(ClientFrame::Ping { request: RequestId(request), opaque })?;
        check_server(ServerFrame::Pong { request: RequestId(request), opaque })?;
    }

    #[test]
    fn deliver_survives_the_wire(
        seq in any::<u64>(), id in bytes::<16>(), from in bytes::<32>(), sent_ms in any::<u64>(),
        flags in any::<(bool, bool)>(), payload in payload(),
    ) {
        check_server(ServerFrame::Deliver(Deliver {
            seq: MailboxSeq(seq),
            id: MessageId(id),
            from: Address(from),
            sent_ms,
            flags: DeliverFlags { ephemeral: flags.0, maybe_redelivery: flags.1 },
            payload: &payload,
        }))?;
    }

    #[test]
    fn receipts_survive_the_wire(
        request in any::<u64>(), reason in 0..RejectReason::ALL.len(), status in 0..4,
        retry_ms in any::<u32>(), seq in any::<u64>(), id in bytes::<16>(),
    ) {
        let status = match status {
            0 => ReceiptStatus::Accepted,
            1 => ReceiptStatus::Delivered,
            2 => ReceiptStatus::Relayed,
            _ => ReceiptStatus::Rejected(RejectReason::ALL[reason]),
        };
        let (request, seq, id) = (RequestId(request), MailboxSeq(seq), MessageId(id));
        check_server(ServerFrame::Receipt(Receipt { request, status, retry_ms, seq, id }))?;
    }

    #[test]
    fn the_frames_about_the_link_survive_the_wire(
        version in any::<u16>(), numbers in any::<[u64; 5]>(), small in any::<[u32; 2]>(),
        code in 0..CloseCode::ALL.len(), detail in "\\PC{0,50}",
    ) {
        check_server(ServerFrame::Welcome(Welcome {
            version,
            capabilities: Capabilities(numbers[0]),
            time_ms: numbers[1],
            mailbox_epoch: Epoch(numbers[2]),
            next_seq: MailboxSeq(numbers[3]),
            cursor: MailboxSeq(numbers[4]),
            max_frame_bytes: small[0],
            send_window: small[1],
        }))?;
        check_server(ServerFrame::CaughtUp { seq: MailboxSeq(numbers[0]) })?;
        check_server(ServerFrame::GoAway { spread_ms: small[0] })?;
        let code = CloseCode::ALL[code];
        check_server(ServerFrame::Close(Close { code, retry_ms: small[1], detail: &detail }))?;
    }
}

#[test]
fn a_close_detail_that_is_too_long_is_cut_between_characters() {
    let detail = "ä".repeat(150);
    let close = Close { code: CloseCode::Tls, retry_ms: 0, detail: &detail };
    let mut out = Vec::new();
    ServerFrame::Close(close).encode(&mut out);
    assert_eq!(out.len(), HEADER_BYTES + 6 + CLOSE_DETAIL_BYTES_MAX);
    let Ok(Decoded::Frame { frame, .. }) = decode_frame(&out, Limit::AfterLogin) else { panic!("whole") };
    let Ok(Some(ServerFrame::Close(close))) = ServerFrame::parse(frame) else { panic!("a close") };
    assert_eq!(close.detail, "ä".repeat(100));
}

#[test]
fn the_largest_message_fits_both_ways() {
    let payload = vec![1; MESSAGE_BYTES_MAX];
    let deliver = Deliver {
        seq: MailboxSeq(1),
        id: MessageId([0; 16]),
        from: Address::NONE,
        sent_ms: 0,
        flags: DeliverFlags::default(),
        payload: &payload,
    };
    assert_eq!(ServerFrame::Deliver(deliver).encoded_bytes(), Limit::AfterLogin.frame_bytes());
}

#[test]
fn codes_and_numbers_are_one_to_one() {
    for code in 0..=u16::MAX {
        if let Some(close) = CloseCode::from_code(code) {
            assert_eq!(close.code(), code);
        }
        if let Some(reason) = u8::try_from(code).ok().and_then(RejectReason::from_code) {
            assert_eq!(u16::from(reason.code()), code);
        }
    }
    assert!(CloseCode::ALL.iter().all(|code| CloseCode::from_code(code.code()) == Some(*code)));
    assert!(RejectReason::ALL.iter().all(|reason| RejectReason::from_code(reason.code()) == Some(*reason)));
    assert_eq!((CloseCode::from_code(0), RejectReason::from_code(0)), (None, None));
}
