//! Frames come out the same however the bytes are cut.

use super::vectors::client_samples;
use crate::wire::*;

/// All samples after each other, and where each ends.
fn all_frames() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for (_, frame) in client_samples() {
        frame.encode(&mut bytes);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn feed_all(stream: &mut FrameStream, chunk: &[u8], seen: &mut Vec<u8>) {
    let taken = stream.feed(
        chunk,
        || Limit::AfterLogin,
        |frame| {
            seen.push(frame.header.frame_type);
            assert!(ClientFrame::parse(frame)?.is_some());
            Ok::<_, WireError>(Flow::Continue)
        },
    );
    assert_eq!(taken, Ok(chunk.len()));
}

#[test]
fn frames_split_at_every_byte_come_out_whole() {
    let (bytes, _) = all_frames();
    let mut expected = Vec::new();
    feed_all(&mut FrameStream::new(), &bytes, &mut expected);
    for cut in 0..=bytes.len() {
        let (mut stream, mut seen) = (FrameStream::new(), Vec::new());
        feed_all(&mut stream, &bytes[..cut], &mut seen);
        feed_all(&mut stream, &bytes[cut..], &mut seen);
        assert_eq!(seen, expected, "cut at {cut}");
        assert!(stream.is_at_boundary());
        assert_eq!(stream.heap_bytes(), 0, "no memory is kept between frames");
    }
}

#[test]
fn frames_in_chunks_of_any_size_come_out_whole() {
    let (bytes, _) = all_frames();
    let mut expected = Vec::new();
    feed_all(&mut FrameStream::new(), &bytes, &mut expected);
    for size in 1..60 {
        let (mut stream, mut seen) = (FrameStream::new(), Vec::new());
        bytes.chunks(size).for_each(|chunk| feed_all(&mut stream, chunk, &mut seen));
        assert_eq!(seen, expected, "chunks of {size}");
    }
}

#[test]
fn a_decoder_says_how_many_bytes_it_needs() {
    let (bytes, ends) = all_frames();
    for cut in 0..ends[0] {
        let need = if cut < HEADER_BYTES { HEADER_BYTES } else { ends[0] };
        assert_eq!(decode_frame(&bytes[..cut], Limit::BeforeLogin), Ok(Decoded::Incomplete { need }));
    }
}

#[test]
fn a_consumer_that_stops_gets_the_rest_when_it_asks_again() {
    let (bytes, ends) = all_frames();
    for cut in 0..=bytes.len() {
        let mut stream = FrameStream::new();
        let mut seen = 0;
        for chunk in [&bytes[..cut], &bytes[cut..]] {
            let mut rest = chunk;
            while !rest.is_empty() {
                let before = seen;
                let taken = stream
                    .feed(
                        rest,
                        || Limit::AfterLogin,
                        |_| {
                            seen += 1;
                            Ok::<_, WireError>(Flow::Stop)
                        },
                    )
                    .unwrap();
                assert!(seen - before <= 1, "a stop is heeded at once");
                rest = &rest[taken..];
            }
        }
        assert_eq!(seen, ends.len(), "cut at {cut}");
    }
}

#[test]
fn the_limit_of_the_next_frame_is_asked_for_after_the_one_before() {
    let mut bytes = Vec::new();
    ClientFrame::Bye.encode(&mut bytes);
    let payload = [0; 1000];
    let (_, ClientFrame::Send(send)) = client_samples()[1] else { panic!("the second sample is a SEND") };
    ClientFrame::Send(Send { payload: &payload, ..send }).encode(&mut bytes);

    let limit = std::cell::Cell::new(Limit::BeforeLogin);
    let mut stream = FrameStream::new();
    let fed = stream.feed(
        &bytes,
        || limit.get(),
        |_| {
            limit.set(Limit::AfterLogin);
            Ok::<_, WireError>(Flow::Continue)
        },
    );
    assert_eq!(fed, Ok(bytes.len()));
    let fed = stream.feed(&bytes, || Limit::BeforeLogin, |_| Ok::<_, WireError>(Flow::Continue)).unwrap_err();
    assert_eq!(fed.close_code(), CloseCode::TooLarge);
}
