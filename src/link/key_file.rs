//! The contents of key files: text, with a version in the first line and a checksum in the last. Reading and
//! writing the files, and their mode 0600, is the caller's.
//!
//! ```text
//! trine-user-key 1
//! address trine1…
//! user-seed <64 hex digits>
//! device-seed <64 hex digits>
//! grant-expires-ms <decimal>
//! grant <128 hex digits>
//! check <16 hex digits>
//! ```
//!
//! A node's file has `trine-node-key 1`, `node-id`, `seed`, `check`. The identifier is there for people; it
//! must agree with the keys. `check` is a BLAKE3 hash of everything before its line: it tells damage, it is
//! no protection.

use std::fmt::Write;

use zeroize::Zeroizing;

use super::identity::{Grant, KEY_BYTES, KeyError, NodeKey, SIGNATURE_BYTES, Seed, UserIdentity};

const NODE_HEAD: &str = "trine-node-key 1";
const USER_HEAD: &str = "trine-user-key 1";
const CHECK_CONTEXT: &str = "trine 2026 key file check v1";
const CHECK_BYTES: usize = 8;
/// More than any key file has; what is longer is not looked at.
const FILE_BYTES_MAX: usize = 2048;

/// Why a key file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Too long or not text.
    #[error("this is not a key file: it is longer than {FILE_BYTES_MAX} bytes or not text")]
    NotText,
    /// The first line names something else.
    #[error("this is not a key file of the expected kind and version: its first line is not \"{expected}\"")]
    WrongHead {
        /// The first line that was expected.
        expected: &'static str,
    },
    /// A line is not what it should be.
    #[error("line {line} of the key file is not \"{field} …\" with a valid value; restore it from a copy")]
    BadLine {
        /// Counted from 1.
        line: usize,
        /// The field that belongs there.
        field: &'static str,
    },
    /// There is something after the last line.
    #[error("the key file goes on after its check line; restore it from a copy")]
    TrailingLines,
    /// The checksum does not agree.
    #[error("the key file is damaged: its check does not agree; restore it from a copy")]
    BadCheck,
    /// The identifier does not belong to the key.
    #[error("the key file's identifier does not belong to its key; restore it from a copy")]
    WrongId,
    /// The keys themselves are unusable.
    #[error("the key file's keys are unusable: {0}")]
    Key(#[from] KeyError),
}

/// The file of a node's key.
pub fn encode_node_key(key: &NodeKey) -> Zeroizing<String> {
    let mut text = new_text(NODE_HEAD);
    push_line(&mut text, "node-id", key.node_id());
    push_line(&mut text, "seed", &*hex(key.key().seed()));
    push_check(&mut text);
    text
}

/// Reads the file of a node's key.
pub fn decode_node_key(bytes: &[u8]) -> Result<NodeKey, KeyFileError> {
    let mut lines = Lines::open(bytes, NODE_HEAD)?;
    let node_id = lines.parse("node-id")?;
    let seed = lines.seed("seed")?;
    lines.finish()?;
    let key = NodeKey::from_seed(seed)?;
    if key.node_id() == node_id { Ok(key) } else { Err(KeyFileError::WrongId) }
}

/// The file of a user's and a device's keys.
pub fn encode_user_identity(identity: &UserIdentity) -> Zeroizing<String> {
    let mut text = new_text(USER_HEAD);
    push_line(&mut text, "address", identity.address());
    push_line(&mut text, "user-seed", &*hex(identity.user_key().seed()));
    push_line(&mut text, "device-seed", &*hex(identity.device_key().seed()));
    push_line(&mut text, "grant-expires-ms", identity.grant().expires_ms);
    push_line(&mut text, "grant", &*hex(&identity.grant().signature));
    push_check(&mut text);
    text
}

/// Reads the file of a user's and a device's keys.
pub fn decode_user_identity(bytes: &[u8]) -> Result<UserIdentity, KeyFileError> {
    let mut lines = Lines::open(bytes, USER_HEAD)?;
    let address = lines.parse("address")?;
    let user_seed = lines.seed("user-seed")?;
    let device_seed = lines.seed("device-seed")?;
    let expires_ms = lines.parse("grant-expires-ms")?;
    let signature: [u8; SIGNATURE_BYTES] = *lines.hex("grant")?;
    lines.finish()?;
    let identity = UserIdentity::from_parts(user_seed, device_seed, Grant { expires_ms, signature })?;
    if identity.address() == address { Ok(identity) } else { Err(KeyFileError::WrongId) }
}

/// An empty file with room for all that follows, so that no copy of a secret is left behind by growing.
fn new_text(head: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
    text.push_str(head);
    text.push('\n');
    text
}

fn push_line(text: &mut String, field: &str, value: impl std::fmt::Display) {
    // PANIC: writing to a string fails only if the value's Display does, and those of the callers do not.
    writeln!(text, "{field} {value}").expect("written to a string");
}

fn push_check(text: &mut String) {
    let check = hex(&check_of(text));
    push_line(text, "check", &*check);
}

fn check_of(text: &str) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key(CHECK_CONTEXT, text.as_bytes());
    std::array::from_fn(|index| hash[index])
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        // PANIC: writing a number to a string cannot fail.
        write!(text, "{byte:02x}").expect("written to a string");
    }
    text
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The lines of a key file, read in their order.
struct Lines<'a> {
    text: &'a str,
    /// Where the next line begins.
    at: usize,
    /// Number of the line read last, from 1.
    line: usize,
}

impl<'a> Lines<'a> {
    fn open(bytes: &'a [u8], head: &'static str) -> Result<Self, KeyFileError> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(KeyFileError::NotText);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeyFileError::NotText)?;
        let mut lines = Self { text, at: 0, line: 0 };
        if lines.next_line() == Some(head) {
            Ok(lines)
        } else {
            Err(KeyFileError::WrongHead { expected: head })
        }
    }

    /// The next line, if it is there and ends.
    fn next_line(&mut self) -> Option<&'a str> {
        let (line, _) = self.text[self.at..].split_once('\n')?;
        self.at += line.len() + 1;
        self.line += 1;
        Some(line)
    }

    fn value(&mut self, field: &'static str) -> Result<&'a str, KeyFileError> {
        let line = self.line + 1;
        self.next_line()
            .and_then(|line| line.strip_prefix(field)?.strip_prefix(' '))
            .ok_or(KeyFileError::BadLine { line, field })
    }

    fn parse<T: std::str::FromStr>(&mut self, field: &'static str) -> Result<T, KeyFileError> {
        let value = self.value(field)?;
        value.parse().map_err(|_| KeyFileError::BadLine { line: self.line, field })
    }

    fn hex<const N: usize>(&mut self, field: &'static str) -> Result<Zeroizing<[u8; N]>, KeyFileError> {
        let digits = self.value(field)?.as_bytes();
        let bad = KeyFileError::BadLine { line: self.line, field };
        if digits.len() != 2 * N {
            return Err(bad);
        }
        let mut bytes = Zeroizing::new([0; N]);
        for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = hex_digit(*high).ok_or(bad)? << 4 | hex_digit(*low).ok_or(bad)?;
        }
        Ok(bytes)
    }

    fn seed(&mut self, field: &'static str) -> Result<Seed, KeyFileError> {
        self.hex::<KEY_BYTES>(field)
    }

    fn finish(mut self) -> Result<(), KeyFileError> {
        let before = self.at;
        let check = self.hex("check")?;
        if self.at != self.text.len() {
            return Err(KeyFileError::TrailingLines);
        }
        if *check == check_of(&self.text[..before]) { Ok(()) } else { Err(KeyFileError::BadCheck) }
    }
}
