//! Records after the handshake: sizes, damage, control messages, new keys, and consumers that stop.

use proptest::prelude::*;

use super::pair::{Pair, established, shuttle};
use crate::link::established::EMPTY_RECORDS_MAX;
use crate::link::record::content;
use crate::link::{HELD_BYTES_MAX, LinkError, RECORD_OVERHEAD_BYTES, RECORD_PLAIN_BYTES_MAX};

/// Has the client seal `plain` as a record of any content type.
fn client_record(pair: &mut Pair, plain: &[u8], content_type: u8) -> Vec<u8> {
    pair.0.link.seal_any(plain, content_type).unwrap()
}

#[test]
fn plaintext_of_any_size_arrives_in_records_of_at_most_16_kib() {
    let mut pair = established(20, u64::MAX);
    for bytes in [1_usize, 16_383, 16_384, 16_385, 32_768, 32_769, 65_536, 200_001] {
        let plain: Vec<u8> = (0..bytes).map(|index| (index * 31 % 251) as u8).collect();
        let before = pair.0.out.len();
        pair.0.say(&plain);
        let records = bytes.div_ceil(RECORD_PLAIN_BYTES_MAX);
        assert_eq!(pair.0.out.len() - before, bytes + records * RECORD_OVERHEAD_BYTES);
        shuttle(&mut pair, 1000).unwrap();
        assert!(pair.1.heard == plain, "{bytes} bytes arrive unchanged");
        pair.1.heard.clear();
    }
}

#[test]
fn a_record_without_plaintext_leaves_nothing_in_the_output() {
    let mut pair = established(21, u64::MAX);
    pair.0.out.extend_from_slice(b"before");
    pair.0.say(b"");
    assert_eq!(pair.0.out, b"before");
}

#[test]
fn the_writer_packs_frames_and_cuts_large_ones() {
    let mut pair = established(22, u64::MAX);
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    let mut writer = pair.0.link.writer(&mut out);
    for bytes in [100, 16_000, 500, 40_000, 1] {
        let frame = vec![bytes as u8; bytes];
        expected.extend_from_slice(&frame);
        writer.frame(bytes, |out| out.extend_from_slice(&frame)).unwrap();
    }
    writer.finish().unwrap();
    let records = 1 + 1 + 3 + 1;
    assert_eq!(out.len(), expected.len() + records * RECORD_OVERHEAD_BYTES);
    pair.1.hear(&out).unwrap();
    assert!(pair.1.heard == expected);
}

#[test]
fn a_writer_that_is_not_finished_takes_its_frames_back() {
    let mut pair = established(23, u64::MAX);
    let mut out = b"before".to_vec();
    let mut writer = pair.0.link.writer(&mut out);
    writer.frame(3, |out| out.extend_from_slice(b"abc")).unwrap();
    drop(writer);
    assert_eq!(out, b"before");
}

#[test]
fn a_flipped_bit_anywhere_in_a_record_fails_the_link_with_an_alert() {
    let mut pair = established(24, u64::MAX);
    pair.0.say(b"0123456789");
    let bytes = pair.0.take_out().len();
    for at in 0..bytes {
        for bit in 0..8 {
            let mut pair = established(24, u64::MAX);
            pair.0.say(b"0123456789");
            pair.0.say(b"the next record completes a length that was raised");
            let mut record = pair.0.take_out();
            record[at] ^= 1 << bit;
            let refused = pair.1.hear(&record);
            // A length that was raised beyond what was sent waits for bytes that never come.
            let waits = refused.is_ok() && (3..5).contains(&at) && pair.1.link.held_bytes() > 0;
            assert!(refused.is_err() || waits, "bit {bit} of byte {at}");
            assert!(pair.1.heard.is_empty(), "nothing of a damaged record is passed on");
            if refused == Err(LinkError::BadRecord) {
                let alert = pair.1.take_out();
                assert_eq!(pair.0.hear(&alert), Err(LinkError::PeerAlert { description: 20 }));
            }
            if at >= 5 {
                assert_eq!(refused, Err(LinkError::BadRecord));
            }
        }
    }
}

#[test]
fn a_record_repeated_left_out_or_moved_is_refused() {
    let records = |pair: &mut Pair| {
        ["one", "two"].map(|text| {
            pair.0.say(text.as_bytes());
            pair.0.take_out()
        })
    };
    let mut pair = established(25, u64::MAX);
    let [one, two] = records(&mut pair);
    pair.1.hear(&one).unwrap();
    assert_eq!(pair.1.hear(&one), Err(LinkError::BadRecord));
    let mut pair = established(25, u64::MAX);
    let [_, two_again] = records(&mut pair);
    assert_eq!(two, two_again);
    assert_eq!(pair.1.hear(&two), Err(LinkError::BadRecord));
}

#[test]
fn a_record_over_the_size_of_tls_is_refused() {
    let mut pair = established(26, u64::MAX);
    assert_eq!(pair.1.hear(&[23, 3, 3, 0x41, 0x01]), Err(LinkError::RecordTooLarge { bytes: 16_641 }));
    let mut pair = established(26, u64::MAX);
    // Within the limit of the ciphertext, but one byte of plaintext too many.
    let record = client_record(&mut pair, &[1; RECORD_PLAIN_BYTES_MAX + 1], content::APPLICATION_DATA);
    assert!(matches!(pair.1.hear(&record), Err(LinkError::RecordTooLarge { .. })));
    for short in [&[23, 3, 3, 0, 0][..], &[23, 3, 3, 0, 5, 1, 2, 3, 4, 5]] {
        let mut pair = established(26, u64::MAX);
        assert_eq!(pair.1.hear(short), Err(LinkError::BadRecord));
    }
}

#[test]
fn padding_is_taken_off_and_padding_alone_is_refused() {
    let mut pair = established(27, u64::MAX);
    // The content type is the last byte that is not zero, so a type of zero makes padding of what is behind.
    let record = client_record(&mut pair, b"data\x17\0\0\0\0\0", 0);
    pair.1.hear(&record).unwrap();
    assert_eq!(pair.1.heard, b"data");
    let record = client_record(&mut pair, &[0; 9], 0);
    assert_eq!(pair.1.hear(&record), Err(LinkError::Unexpected { message_type: 0 }));
}

#[test]
fn records_in_the_clear_after_the_handshake_are_refused() {
    for record in [&[21, 3, 3, 0, 2, 1, 0][..], &[20, 3, 3, 0, 1, 1], &[22, 3, 3, 0, 5, 24, 0, 0, 1, 0]] {
        let mut pair = established(28, u64::MAX);
        assert_eq!(pair.1.hear(record), Err(LinkError::Unexpected { message_type: record[0] }));
    }
}

#[test]
fn a_close_notify_ends_one_direction_and_the_other_still_works() {
    let mut pair = established(29, u64::MAX);
    pair.0.say(b"last words");
    pair.0.link.close_notify(&mut pair.0.out).unwrap();
    let once = pair.0.out.len();
    pair.0.link.close_notify(&mut pair.0.out).unwrap();
    assert_eq!(pair.0.out.len(), once, "only one is sent");
    let start = pair.0.link.begin_record(&mut pair.0.out);
    pair.0.out.extend_from_slice(b"too late");
    assert_eq!(pair.0.link.end_record(&mut pair.0.out, start), Err(LinkError::NotEstablished));
    assert_eq!(pair.0.out.len(), once, "what was refused is taken back");

    pair.0.out.extend_from_slice(b"\x17\x03\x03\xff\xffbehind the close nothing is looked at");
    let bytes = pair.0.take_out();
    pair.1.hear(&bytes).unwrap();
    assert!(pair.1.link.is_peer_closed() && pair.1.link.is_established());
    assert_eq!(pair.1.heard, b"last words");
    pair.1.hear(b"not even in a later call").unwrap();
    assert_eq!(pair.1.link.held_bytes(), 0);
    pair.1.say(b"goodbye");
    shuttle(&mut pair, usize::MAX).unwrap();
    assert_eq!(pair.0.heard, b"goodbye");
}

#[test]
fn alerts_end_the_link_except_those_without_consequence() {
    let mut pair = established(30, u64::MAX);
    let canceled = client_record(&mut pair, &[1, 90], content::ALERT);
    assert_eq!(pair.1.hear(&canceled), Ok(()));
    let fatal = client_record(&mut pair, &[2, 80], content::ALERT);
    assert_eq!(pair.1.hear(&fatal), Err(LinkError::PeerAlert { description: 80 }));
    assert!(pair.1.out.is_empty(), "an alert is not answered by an alert");
    for malformed in [&[][..], &[2], &[2, 0, 0]] {
        let mut pair = established(30, u64::MAX);
        let record = client_record(&mut pair, malformed, content::ALERT);
        assert_eq!(pair.1.hear(&record), Err(LinkError::Malformed));
    }
}

#[test]
fn keys_are_replaced_both_ways_and_nothing_is_lost() {
    let mut pair = established(31, 3);
    let mut expected = Vec::new();
    for round in 0..50u8 {
        pair.0.say(&[round; 10]);
        pair.1.say(&[round; 10]);
        expected.extend_from_slice(&[round; 10]);
        shuttle(&mut pair, 17).unwrap();
    }
    assert_eq!((&pair.0.heard, &pair.1.heard), (&expected, &expected));
}

#[test]
fn a_new_key_that_is_asked_for_is_given_once_per_call() {
    let mut pair = established(32, u64::MAX);
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.extend(client_record(&mut pair, &[24, 0, 0, 1, 1], content::HANDSHAKE));
        pair.0.link.next_key_for_test();
    }
    pair.0.say(b"under the fourth key");
    asked.extend(pair.0.take_out());
    pair.1.hear(&asked).unwrap();
    assert_eq!(pair.1.heard, b"under the fourth key");
    assert_eq!(pair.1.out.len(), 5 + RECORD_OVERHEAD_BYTES, "one KeyUpdate answers all");
    pair.1.say(b"under the second key");
    shuttle(&mut pair, usize::MAX).unwrap();
    assert_eq!(pair.0.heard, b"under the second key");
}

#[test]
fn malformed_and_unexpected_handshake_messages_are_refused() {
    let malformed = [
        &[24, 0, 0, 1, 2][..],             // a request that is not defined
        &[24, 0, 0, 0],                    // without its body
        &[24, 0, 0, 2, 0, 0],              // with too much
        &[24, 0, 0, 1],                    // cut
        &[24, 0, 0],                       // cut in its header
        &[],                               // nothing
        &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], // another message under the old key
    ];
    for plain in malformed {
        let mut pair = established(33, u64::MAX);
        let record = client_record(&mut pair, plain, content::HANDSHAKE);
        assert_eq!(pair.1.hear(&record), Err(LinkError::Malformed), "{plain:?}");
    }
    for message_type in [0, 1, 2, 4, 13, 20] {
        let mut pair = established(33, u64::MAX);
        let record = client_record(&mut pair, &[message_type, 0, 0, 0], content::HANDSHAKE);
        assert_eq!(pair.1.hear(&record), Err(LinkError::Unexpected { message_type }));
    }
    let mut pair = established(33, u64::MAX);
    let ticket = pair.1.link.seal_any(&[4, 0, 0, 1, 0], content::HANDSHAKE).unwrap();
    assert_eq!(pair.0.hear(&ticket), Ok(()), "a client ignores tickets");
    let mut pair = established(33, u64::MAX);
    let record = client_record(&mut pair, b"?", 24);
    assert_eq!(pair.1.hear(&record), Err(LinkError::Unexpected { message_type: 24 }));
}

#[test]
fn records_without_data_are_bounded_in_a_row() {
    let mut pair = established(34, u64::MAX);
    for _ in 0..3 {
        for _ in 0..EMPTY_RECORDS_MAX {
            let record = client_record(&mut pair, b"", content::APPLICATION_DATA);
            pair.1.hear(&record).unwrap();
        }
        pair.0.say(b"data");
        shuttle(&mut pair, usize::MAX).unwrap();
    }
    for _ in 0..EMPTY_RECORDS_MAX {
        let record = client_record(&mut pair, &[1, 90], content::ALERT);
        pair.1.hear(&record).unwrap();
    }
    let record = client_record(&mut pair, b"", content::APPLICATION_DATA);
    assert_eq!(pair.1.hear(&record), Err(LinkError::TooManyEmptyRecords));
}

#[test]
fn a_consumer_that_stops_anywhere_gets_every_byte_in_order() {
    for take in [0, 1, 7, 100, 999, 5000] {
        let mut pair = established(35, u64::MAX);
        let mut expected = Vec::new();
        for round in 0..20u8 {
            expected.extend_from_slice(&[round; 300]);
            pair.0.say(&[round; 300]);
        }
        let sealed = pair.0.take_out();
        let mut heard = Vec::new();
        let (mut out, mut budget) = (Vec::new(), take);
        for chunk in sealed.chunks(450).chain(std::iter::repeat_n(&[][..], 10_000)) {
            let mut chunk = chunk.to_vec();
            pair.1
                .link
                .receive(&mut chunk, &mut out, &mut |plain: &mut [u8]| {
                    let taken = plain.len().min(budget);
                    heard.extend_from_slice(&plain[..taken]);
                    budget -= taken;
                    Ok::<_, LinkError>(taken)
                })
                .unwrap();
            budget = take.max(1);
        }
        assert!(heard == expected, "taking {take} at once");
        assert!(!pair.1.link.is_stopped());
        assert_eq!(pair.1.link.held_bytes(), 0);
    }
}

#[test]
fn a_link_holds_only_so_much_for_a_consumer_that_stopped() {
    let mut pair = established(36, u64::MAX);
    let chunk = vec![5; RECORD_PLAIN_BYTES_MAX];
    let mut outcome = Ok(());
    let mut sent = 0;
    while outcome.is_ok() {
        pair.0.say(&chunk);
        let mut record = pair.0.take_out();
        sent += record.len();
        outcome = pair.1.link.receive(&mut record, &mut pair.1.out, &mut |_| Ok::<_, LinkError>(0));
        assert!(outcome.is_err() || pair.1.link.is_stopped());
    }
    assert_eq!(outcome, Err(LinkError::HeldTooMuch { limit_bytes: HELD_BYTES_MAX }));
    assert!(sent <= HELD_BYTES_MAX + 2 * chunk.len());
}

#[test]
fn an_error_of_the_consumer_is_passed_on() {
    #[derive(Debug, PartialEq)]
    enum Mine {
        Mine,
        Link(LinkError),
    }
    impl From<LinkError> for Mine {
        fn from(error: LinkError) -> Self {
            Self::Link(error)
        }
    }
    let mut pair = established(37, u64::MAX);
    pair.0.say(b"data");
    let mut record = pair.0.take_out();
    let refused = pair.1.link.receive(&mut record, &mut pair.1.out, &mut |_| Err(Mine::Mine));
    assert_eq!(refused, Err(Mine::Mine));
    assert!(pair.1.link.is_established(), "a CLOSE frame can still be sent");
    let refused = pair.1.link.receive(&mut record, &mut pair.1.out, &mut |_| Err(Mine::Mine));
    assert_eq!(refused, Err(Mine::Link(LinkError::BadRecord)));
}

proptest! {
    #[test]
    fn random_records_of_an_authenticated_peer_never_panic(
        content_type in prop_oneof![20u8..25, any::<u8>()],
        message_type in prop_oneof![Just(24u8), Just(4), any::<u8>()],
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        crate::link::fuzz::records(&[&[content_type, message_type][..], &bytes].concat());
        let framed = [content_type, message_type, 0, 0, bytes.len() as u8];
        crate::link::fuzz::records(&[&framed[..], &bytes].concat());
    }
}
