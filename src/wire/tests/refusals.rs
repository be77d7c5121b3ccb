//! Each way to break the protocol is refused with its own error, and garbage never panics.

use proptest::prelude::*;

use super::vectors::{client_samples, server_samples};
use crate::wire::*;

fn raw(frame_type: u8, flags: u8, request: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&[frame_type, flags, 0, 0]);
    out.extend_from_slice(&request.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    match decode_frame(bytes, Limit::AfterLogin) {
        Ok(Decoded::Frame { frame, .. }) => frame,
        other => panic!("not a whole frame: {other:?}"),
    }
}

fn client_error(bytes: &[u8]) -> WireError {
    ClientFrame::parse(frame(bytes)).expect_err("this frame must be refused")
}

fn server_error(bytes: &[u8]) -> WireError {
    ServerFrame::parse(frame(bytes)).expect_err("this frame must be refused")
}

fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (sample, frame) in client_samples() {
        if sample == name {
            frame.encode(&mut out);
        }
    }
    for (sample, frame) in server_samples() {
        if sample == name {
            frame.encode(&mut out);
        }
    }
    assert!(!out.is_empty(), "no sample is called {name}");
    out
}

#[test]
fn a_claim_of_four_gibibytes_is_refused_from_the_header_alone() {
    let mut header = raw(0x10, 0, 0, &[]);
    header[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = decode_frame(&header, Limit::AfterLogin).unwrap_err();
    assert_eq!(error, WireError::TooLarge { frame_bytes: (1 << 32) + 15, limit_bytes: 65_536 });
    assert_eq!(error.close_code(), CloseCode::TooLarge);

    let mut stream = FrameStream::new();
    let fed = stream.feed(&header, || Limit::AfterLogin, |_| Ok::<_, WireError>(Flow::Continue));
    assert_eq!(fed, Err(error));
    assert_eq!(stream.heap_bytes(), 0);
}

#[test]
fn the_limit_is_512_bytes_before_login_and_64_kib_after() {
    for (limit, most) in [(Limit::BeforeLogin, 512), (Limit::AfterLogin, 65_536)] {
        let fits = raw(0x10, 0, 0, &vec![0; most - HEADER_BYTES]);
        assert!(
            matches!(decode_frame(&fits, limit), Ok(Decoded::Frame { consumed, .. }) if consumed == most)
        );
        let over = raw(0x10, 0, 0, &vec![0; most - HEADER_BYTES + 1]);
        let refused = decode_frame(&over[..HEADER_BYTES], limit);
        assert_eq!(refused, Err(WireError::TooLarge { frame_bytes: most as u64 + 1, limit_bytes: most }));
    }
}

#[test]
fn unknown_header_flags_and_reserved_bytes_are_refused() {
    assert_eq!(
        decode_frame(&raw(0x14, 2, 0, &[]), Limit::AfterLogin),
        Err(WireError::UnknownFlags { flags: 2 })
    );
    for index in [6, 7] {
        let mut bytes = raw(0x14, 0, 0, &[]);
        bytes[index] = 1;
        let refused = decode_frame(&bytes, Limit::AfterLogin);
        assert_eq!(refused, Err(WireError::ReservedNotZero { frame: "header" }));
    }
}

#[test]
fn an_unknown_type_is_skipped_only_if_it_is_marked_skippable() {
    for frame_type in [0x00, 0x02, 0x15, 0x7f, 0x80, 0xff] {
        let skippable = raw(frame_type, 1, 77, b"anything");
        assert_eq!(ClientFrame::parse(frame(&skippable)), Ok(None));
        assert_eq!(ServerFrame::parse(frame(&skippable)), Ok(None));
        let firm = raw(frame_type, 0, 0, b"anything");
        assert_eq!(client_error(&firm), WireError::UnknownType { frame_type });
        assert_eq!(server_error(&firm).close_code(), CloseCode::UnexpectedFrame);
    }
}

#[test]
fn a_frame_of_the_other_direction_is_refused() {
    for (_, sample) in client_samples() {
        let mut out = Vec::new();
        sample.encode(&mut out);
        assert_eq!(server_error(&out), WireError::UnknownType { frame_type: out[4] });
    }
    for (_, sample) in server_samples() {
        let mut out = Vec::new();
        sample.encode(&mut out);
        assert_eq!(client_error(&out), WireError::UnknownType { frame_type: out[4] });
    }
}

#[test]
fn every_frame_of_fixed_length_is_refused_when_it_is_shorter_or_longer() {
    for (name, _) in client_samples() {
        let whole = encoded(name);
        check_lengths(&whole, matches!(name, "SEND" | "SEND.ephemeral"), 64, client_error);
    }
    for (name, _) in server_samples() {
        let fixed = if name == "CLOSE" { 6 } else { 72 };
        check_lengths(&encoded(name), matches!(name, "DELIVER" | "CLOSE"), fixed, server_error);
    }
}

fn check_lengths(whole: &[u8], free_length: bool, fixed: usize, error: fn(&[u8]) -> WireError) {
    let payload = &whole[HEADER_BYTES..];
    let request = u64::from_be_bytes(whole[8..16].try_into().unwrap());
    let shorter = if free_length { fixed } else { payload.len() };
    for length in 0..shorter {
        let found = error(&raw(whole[4], 0, request, &payload[..length]));
        assert!(matches!(found, WireError::Truncated { .. }), "{found:?}");
    }
    if !free_length {
        let longer = [payload, &[0]].concat();
        let found = error(&raw(whole[4], 0, request, &longer));
        assert!(matches!(found, WireError::TrailingBytes { .. }), "{found:?}");
    }
}

#[test]
fn a_request_on_a_frame_without_an_answer_is_refused() {
    for name in ["LOGIN", "SUBSCRIBE", "ACK", "BYE"] {
        let mut bytes = encoded(name);
        bytes[15] = 1;
        assert_eq!(client_error(&bytes), WireError::RequestNotZero { frame: name });
    }
    for name in ["WELCOME", "DELIVER", "CAUGHT_UP", "GOAWAY", "CLOSE"] {
        let mut bytes = encoded(name);
        bytes[15] = 1;
        assert_eq!(server_error(&bytes), WireError::RequestNotZero { frame: name });
    }
}

#[test]
fn a_login_without_the_magic_is_refused_as_such() {
    let mut bytes = encoded("LOGIN");
    bytes[HEADER_BYTES] ^= 1;
    assert_eq!(client_error(&bytes), WireError::BadMagic);
    assert_eq!(client_error(&bytes).close_code(), CloseCode::Magic);
}

#[test]
fn undefined_values_are_refused_with_the_name_of_the_field() {
    let cases: [(&str, usize, u8, &str); 4] = [
        ("SEND", 52, 2, "class"),
        ("SEND", 53, 8, "options"),
        ("SUBSCRIBE", 2, 0, "window_messages"),
        ("SUBSCRIBE", 5, 0, "window_bytes"),
    ];
    for (name, offset, value, field) in cases {
        let mut bytes = encoded(name);
        bytes[HEADER_BYTES + offset] = value;
        assert!(matches!(client_error(&bytes), WireError::BadValue { field: found, .. } if found == field));
    }
    let cases: [(&str, usize, u8, &str); 6] = [
        ("RECEIPT.accepted", 0, 0, "status"),
        ("RECEIPT.accepted", 0, 5, "status"),
        ("RECEIPT.accepted", 1, 1, "reason"),
        ("RECEIPT.rejected", 1, 0, "reason"),
        ("RECEIPT.rejected", 1, 14, "reason"),
        ("DELIVER", 64, 4, "flags"),
    ];
    for (name, offset, value, field) in cases {
        let mut bytes = encoded(name);
        bytes[HEADER_BYTES + offset] = value;
        assert!(matches!(server_error(&bytes), WireError::BadValue { field: found, .. } if found == field));
    }
    let mut bytes = encoded("CLOSE");
    bytes[HEADER_BYTES + 1] = 0;
    assert!(matches!(server_error(&bytes), WireError::BadValue { field: "code", value: 0, .. }));
}

#[test]
fn reserved_bytes_inside_frames_must_be_zero() {
    for (name, offsets) in [("SEND", 54..56), ("RECEIPT.accepted", 2..4), ("DELIVER", 65..72)] {
        for offset in offsets {
            let mut bytes = encoded(name);
            bytes[HEADER_BYTES + offset] = 1;
            let error = if name == "SEND" { client_error(&bytes) } else { server_error(&bytes) };
            assert!(matches!(error, WireError::ReservedNotZero { .. }), "{name} at {offset}: {error:?}");
        }
    }
}

#[test]
fn selective_acknowledgements_must_rise_and_be_few() {
    let ack = |seqs: &[u64]| {
        let mut payload = [7u64.to_be_bytes(), 10u64.to_be_bytes()].concat();
        payload.extend_from_slice(&(seqs.len() as u16).to_be_bytes());
        seqs.iter().for_each(|seq| payload.extend_from_slice(&seq.to_be_bytes()));
        raw(0x12, 0, 0, &payload)
    };
    for seqs in [&[10][..], &[9], &[12, 12], &[13, 12]] {
        assert_eq!(client_error(&ack(seqs)), WireError::AckNotRising);
    }
    let most: Vec<u64> = (11..11 + 257).collect();
    assert!(ClientFrame::parse(frame(&ack(&most[..256]))).is_ok());
    assert_eq!(client_error(&ack(&most)), WireError::AckTooMany { count: 257 });

    let mut claim = ack(&[]);
    claim[HEADER_BYTES + 16..].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(client_error(&claim), WireError::AckTooMany { count: 65_535 });
    claim[HEADER_BYTES + 16..].copy_from_slice(&2u16.to_be_bytes());
    assert_eq!(client_error(&claim), WireError::Truncated { frame: "ACK" });
    assert_eq!(SeqList::new(MailboxSeq(3), &[MailboxSeq(3)]), Err(WireError::AckNotRising));
}

#[test]
fn the_detail_of_a_close_must_be_short_and_utf8() {
    let close = |text: &[u8]| raw(0x9f, 0, 0, &[&[0, 1, 0, 0, 0, 0], text].concat());
    assert_eq!(server_error(&close(&[0xff])), WireError::NotUtf8 { frame: "CLOSE" });
    assert_eq!(server_error(&close(&[b'a'; 201])), WireError::TextTooLong { frame: "CLOSE", bytes: 201 });
    assert!(ServerFrame::parse(frame(&close(&[b'a'; 200]))).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::wire::fuzz::frames(&bytes);
    }

    #[test]
    fn random_payloads_of_every_type_never_panic(
        frame_type in prop_oneof![0u8..0x18, 0x7cu8..0xa0], flags in 0u8..2, request in 0u64..2,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        crate::wire::fuzz::frames(&raw(frame_type, flags, request, &payload));
    }

    #[test]
    fn one_changed_byte_in_a_real_frame_never_panics(
        which in 0usize..7,
        server in 0usize..10,
        offset in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encoded(client_samples()[which].0);
        let at = offset.index(bytes.len());
        bytes[at] = value;
        crate::wire::fuzz::frames(&bytes);
        let mut bytes = encoded(server_samples()[server].0);
        let at = offset.index(bytes.len());
        bytes[at] = value;
        crate::wire::fuzz::frames(&bytes);
    }
}
