//! Entry points that take any bytes: for the fuzz targets, and for the random tests that stand in for them.

use super::{ClientFrame, Decoded, Flow, FrameStream, Limit, ServerFrame, WireError, decode_frame};

/// Decodes `bytes` as frames of both directions, whole and cut in chunks. Panics if decoding and encoding
/// disagree.
pub fn frames(bytes: &[u8]) {
    for limit in [Limit::BeforeLogin, Limit::AfterLogin] {
        if let Ok(Decoded::Frame { frame, consumed }) = decode_frame(bytes, limit) {
            assert!(consumed <= limit.frame_bytes());
            let mut again = Vec::with_capacity(consumed);
            if let Ok(Some(typed)) = ClientFrame::parse(frame) {
                typed.encode(&mut again);
            } else if let Ok(Some(typed)) = ServerFrame::parse(frame) {
                typed.encode(&mut again);
            }
            // The skippable flag of a known type is the only thing that decoding forgets.
            let same = |at: usize| at == 5 || again[at] == bytes[at];
            assert!(again.is_empty() || (again.len() == consumed && (0..consumed).all(same)));
        }
    }
    chunks(bytes);
}

/// Feeds `bytes` to a stream in chunks whose size the first byte chooses.
fn chunks(bytes: &[u8]) {
    let Some((size, rest)) = bytes.split_first() else { return };
    let mut stream = FrameStream::new();
    for chunk in rest.chunks(usize::from(*size) + 1) {
        let fed = stream.feed(chunk, || Limit::AfterLogin, |_| Ok::<_, WireError>(Flow::Continue));
        assert!(stream.heap_bytes() <= 2 * Limit::AfterLogin.frame_bytes());
        if fed.is_err() {
            return;
        }
    }
}
