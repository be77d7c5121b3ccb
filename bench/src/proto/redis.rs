//! Redis: appends to a stream of its own per connection, answered when the append-only file is flushed.

use std::collections::VecDeque;
use std::io::Write;

use ::trine::rt::api::Now;

use super::{Input, PAYLOAD_BYTES, payload};
use crate::error::{BenchError, Result};
use crate::load::Protocol;

/// A connection that appends.
pub struct RedisAppender {
    key: String,
    input: Input,
    under_way: VecDeque<u64>,
}

impl RedisAppender {
    /// Appends to the stream number `index`.
    pub fn new(index: usize) -> Self {
        Self { key: format!("stream:{index}"), input: Input::default(), under_way: VecDeque::new() }
    }

    fn refused(line: &[u8]) -> BenchError {
        BenchError::Peer {
            peer: "redis",
            what: format!("unexpected answer {:?}", String::from_utf8_lossy(line)),
        }
    }
}

impl Protocol for RedisAppender {
    fn open(&mut self, _now: Now, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn send(&mut self, _now: Now, stamp_ns: u64, out: &mut Vec<u8>) -> Result<()> {
        let (key, length) = (&self.key, self.key.len());
        // PANIC: writing to a vector cannot fail.
        write!(out, "*5\r\n$4\r\nXADD\r\n${length}\r\n{key}\r\n$1\r\n*\r\n$1\r\np\r\n${PAYLOAD_BYTES}\r\n")
            .expect("a vector takes everything");
        out.extend_from_slice(&payload(stamp_ns));
        out.extend_from_slice(b"\r\n");
        self.under_way.push_back(stamp_ns);
        Ok(())
    }

    fn receive(&mut self, _now: Now, data: &mut [u8], done: &mut Vec<u64>, _out: &mut Vec<u8>) -> Result<()> {
        self.input.add(data);
        // Every answer is the id of the new entry: its length, then itself.
        while let Some((line, rest)) = self.input.line() {
            if line.first() != Some(&b'$') {
                return Err(Self::refused(line));
            }
            let length: usize = std::str::from_utf8(&line[1..])
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| Self::refused(line))?;
            let Some(left) = rest.len().checked_sub(length + 2) else { break };
            self.input.take_until(left);
            done.extend(self.under_way.pop_front());
        }
        Ok(())
    }

    fn flush(&mut self, _now: Now, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_messages_in_order_wherever_the_bytes_are_cut() {
        let now = Now { mono_us: 0, wall_ms: 0 };
        let (mut out, mut done) = (Vec::new(), Vec::new());
        let mut redis = RedisAppender::new(0);
        redis.send(now, 7, &mut out).unwrap();
        redis.send(now, 8, &mut out).unwrap();
        for byte in *b"$3\r\n1-0\r\n$3\r\n1-1\r\n" {
            redis.receive(now, &mut [byte], &mut done, &mut out).unwrap();
        }
        assert_eq!(done, [7, 8]);
        assert!(redis.receive(now, &mut b"-ERR no\r\n".to_owned(), &mut done, &mut out).is_err());
    }
}
