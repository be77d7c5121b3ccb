//! What the demonstration sends: the lines of a text.

use std::path::Path;

use crate::cli::error::{CliError, Exit};
use crate::rt::files;

const BUILT_IN: &str = include_str!("mariner.txt");
/// A shorter text is sent several times over.
const LINES_MIN: usize = 4_000;
/// Keeps the store of the demonstration and its memory within what any machine has.
const LINES_MAX: usize = 500_000;
const FILE_BYTES_MAX: usize = 64 << 20;
/// What fits into one message.
const LINE_BYTES_MAX: usize = 65_448;

/// Lines to send, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) lines: Vec<Vec<u8>>,
    /// How often the lines are sent.
    pub(super) times: usize,
    /// Where they are from, for people.
    pub(super) source: String,
}

impl Text {
    /// The lines of `path`, or of the built-in text.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, CliError> {
        let usage = |message: String| CliError::new(Exit::Usage, message);
        let Some(path) = path else {
            return Self::parse(BUILT_IN.as_bytes(), "the built-in text".into()).map_err(usage);
        };
        let bytes = files::read(path, FILE_BYTES_MAX).map_err(|error| usage(format!("--input: {error}")))?;
        Self::parse(&bytes, path.display().to_string()).map_err(usage)
    }

    fn parse(bytes: &[u8], source: String) -> Result<Self, String> {
        let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let lines: Vec<_> = body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if bytes.is_empty() {
            return Err(format!("{source} is empty; there is nothing to send"));
        }
        if lines.len() > LINES_MAX {
            return Err(format!("{source} has {} lines; the demo sends at most {LINES_MAX}", lines.len()));
        }
        if let Some(at) = lines.iter().position(|line| line.len() > LINE_BYTES_MAX) {
            let (line, bytes) = (at + 1, lines[at].len());
            let why = format!("line {line} of {source} has {bytes} bytes");
            return Err(format!("{why}; a message has at most {LINE_BYTES_MAX}"));
        }
        let times = LINES_MIN.div_ceil(lines.len());
        Ok(Self { lines, times, source })
    }

    /// Lines to send, repetitions counted.
    pub(super) fn len(&self) -> usize {
        self.lines.len() * self.times
    }

    /// Lines of the text itself.
    pub(super) fn distinct(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of all lines to send.
    pub(super) fn bytes(&self) -> u64 {
        let once: u64 = self.lines.iter().map(|line| line.len() as u64).sum();
        once * self.times as u64
    }

    /// Line `number` of those to send, from 0.
    pub(super) fn line(&self, number: usize) -> &[u8] {
        &self.lines[number % self.lines.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_text_is_long_and_real() {
        let text = Text::load(None).unwrap();
        assert!(text.distinct() >= 300, "{}", text.distinct());
        assert!(text.len() >= LINES_MIN);
        assert_eq!(text.line(5), b"It is an ancient Mariner,");
        assert_eq!(text.line(text.distinct() + 5), text.line(5));
    }

    #[test]
    fn every_line_counts_and_the_last_needs_no_end() {
        let parse = |bytes: &[u8]| Text::parse(bytes, "t".into()).unwrap();
        assert_eq!(parse(b"a\n\nb").lines, [&b"a"[..], b"", b"b"]);
        assert_eq!(parse(b"a\n\nb\n").lines, parse(b"a\n\nb").lines);
        assert_eq!(parse(b"\n").lines, [b""]);
        assert_eq!(parse(&b"x\n".repeat(LINES_MIN)).times, 1);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_its_place() {
        let refused = |bytes: &[u8]| Text::parse(bytes, "t".into()).unwrap_err();
        assert!(refused(b"").contains("empty"));
        let mut long = b"short\n".to_vec();
        long.resize(long.len() + LINE_BYTES_MAX + 1, b'x');
        assert!(refused(&long).contains("line 2 of t has 65449 bytes"), "{}", refused(&long));
        assert!(refused(&b"\n".repeat(LINES_MAX + 1)).contains("500001 lines"));
    }
}
