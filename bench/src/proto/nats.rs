//! NATS: core publish and subscribe, without acknowledgements, one subject per pair.

use std::io::Write;

use ::trine::rt::api::Now;

use super::{Input, PAYLOAD_BYTES, payload, stamp_of};
use crate::error::{BenchError, Result};
use crate::load::{FlowSpec, Protocol};

const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\",\"version\":\"1\"}\r\n";

/// A connection that publishes to, or subscribes to, one subject.
pub struct NatsClient {
    subject: String,
    subscribes: bool,
    ready: bool,
    input: Input,
}

impl NatsClient {
    /// A pair with a subject of its own.
    pub fn pair(index: usize) -> FlowSpec<Self> {
        let side = |subscribes| Self {
            subject: format!("pair.{index}"),
            subscribes,
            ready: false,
            input: Input::default(),
        };
        FlowSpec { sender: side(false), receiver: Some(side(true)) }
    }

    /// Takes one line, and the payload behind it if it announces one. `false` if that is not whole yet.
    fn take(&mut self, done: &mut Vec<u64>, out: &mut Vec<u8>) -> Result<bool> {
        let Some((line, rest)) = self.input.line() else { return Ok(false) };
        let mut left = rest.len();
        match line {
            [b'M', b'S', b'G', ..] => {
                let bytes = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let bytes = std::str::from_utf8(bytes).ok().and_then(|digits| digits.parse::<usize>().ok());
                let (Some(bytes), true) = (bytes, self.subscribes) else { return Err(unexpected(line)) };
                let Some(after) = left.checked_sub(bytes + 2) else { return Ok(false) };
                done.extend(stamp_of(&rest[..bytes]));
                left = after;
            }
            b"PING" => out.extend_from_slice(b"PONG\r\n"),
            b"PONG" => self.ready = true,
            [b'I', b'N', b'F', b'O', ..] => {}
            _ => return Err(unexpected(line)),
        }
        self.input.take_until(left);
        Ok(true)
    }
}

fn unexpected(line: &[u8]) -> BenchError {
    BenchError::Peer { peer: "nats", what: format!("unexpected line {:?}", String::from_utf8_lossy(line)) }
}

impl Protocol for NatsClient {
    fn open(&mut self, _now: Now, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(CONNECT.as_bytes());
        if self.subscribes {
            out.extend_from_slice(format!("SUB {} 1\r\n", self.subject).as_bytes());
        }
        out.extend_from_slice(b"PING\r\n");
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn send(&mut self, _now: Now, stamp_ns: u64, out: &mut Vec<u8>) -> Result<()> {
        // PANIC: writing to a vector cannot fail.
        write!(out, "PUB {} {PAYLOAD_BYTES}\r\n", self.subject).expect("a vector takes everything");
        out.extend_from_slice(&payload(stamp_ns));
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn receive(&mut self, _now: Now, data: &mut [u8], done: &mut Vec<u64>, out: &mut Vec<u8>) -> Result<()> {
        self.input.add(data);
        while self.take(done, out)? {}
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
    fn a_message_ends_with_the_time_it_carries_wherever_the_bytes_are_cut() {
        let now = Now { mono_us: 0, wall_ms: 0 };
        let (mut out, mut done) = (Vec::new(), Vec::new());
        let mut subscriber = NatsClient::pair(1).receiver.unwrap();
        let mut bytes = b"INFO {}\r\nPONG\r\nMSG pair.1 1 256\r\n".to_vec();
        bytes.extend_from_slice(&payload(99));
        bytes.extend_from_slice(b"\r\nPING\r\n");
        for byte in bytes {
            subscriber.receive(now, &mut [byte], &mut done, &mut out).unwrap();
        }
        assert!(subscriber.is_ready());
        assert_eq!((done, out), (vec![99], b"PONG\r\n".to_vec()));
    }
}
