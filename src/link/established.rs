//! A link after the handshake: two record keys, what rustls needs to derive the next ones, and the bytes that
//! wait.
//!
//! Sealing and opening allocate nothing. Opening happens where the bytes lie; copied is only what must wait:
//! the front of a record whose end has not arrived, and everything behind the point at which the consumer
//! stopped.

use rustls::kernel::KernelConnection;

use super::error::{LinkError, alert};
use super::record::{
    RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES, RECORD_PLAIN_BYTES_MAX, RecordKey, content, record_bytes,
};

/// Most bytes that a link holds for a consumer that stopped. Enough for what the kernel had already handed over when
/// receiving was switched off: all buffers of a core, at worst.
pub const HELD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most records in a row without application data.
pub(super) const EMPTY_RECORDS_MAX: u32 = 32;

const KEY_UPDATE: u8 = 24;
const NEW_SESSION_TICKET: u8 = 4;

/// Why receiving ended early: the link's fault, or the consumer's.
pub(super) enum Stop<E> {
    Link(LinkError),
    Consumer(E),
}

impl<E> From<LinkError> for Stop<E> {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// How far a run of records was worked off.
struct Run {
    /// Bytes of the run that need no second look.
    consumed: usize,
    /// The consumer did not take everything.
    stopped: bool,
}

pub(super) struct Established<D> {
    seal: RecordKey,
    open: RecordKey,
    kernel: KernelConnection<D>,
    /// Plaintext that the consumer did not take.
    plain: Vec<u8>,
    /// Ciphertext behind it, or the front of a record.
    cipher: Vec<u8>,
    /// Records after which a sealing key is replaced.
    records_per_key: u64,
    /// Records in a row without application data.
    empty_records: u32,
    is_client: bool,
    /// The peer asked for a new sealing key.
    update_owed: bool,
    peer_closed: bool,
    closed: bool,
}

impl<D> Established<D> {
    pub(super) fn new(
        secrets: &rustls::ExtractedSecrets,
        kernel: KernelConnection<D>,
        records_per_key: u64,
        is_client: bool,
    ) -> Result<Self, LinkError> {
        Ok(Self {
            seal: RecordKey::new(secrets.tx.0, &secrets.tx.1)?,
            open: RecordKey::new(secrets.rx.0, &secrets.rx.1)?,
            kernel,
            plain: Vec::new(),
            cipher: Vec::new(),
            records_per_key,
            empty_records: 0,
            is_client,
            update_owed: false,
            peer_closed: false,
            closed: false,
        })
    }

    /// Bytes of memory held for data that waits.
    pub(super) fn held_bytes(&self) -> usize {
        self.plain.capacity() + self.cipher.capacity()
    }

    /// The peer has said that it sends no more.
    pub(super) fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Plaintext waits because the consumer stopped.
    pub(super) fn is_stopped(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Opens what is whole in the bytes held and in `data`, and offers it to `sink` until that stops.
    pub(super) fn receive<E>(
        &mut self,
        data: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), Stop<E>> {
        self.receive_all(data, sink)?;
        if self.cipher.is_empty() {
            self.cipher = Vec::new();
        }
        if std::mem::take(&mut self.update_owed) {
            self.replace_sealing_key(out)?;
        }
        Ok(())
    }

    fn receive_all<E>(
        &mut self,
        data: &mut [u8],
        sink: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), Stop<E>> {
        if !self.offer_held_plain(sink)? {
            return Ok(self.hold(data)?);
        }
        let mut data = data;
        if !self.cipher.is_empty() {
            data = match self.receive_held(data, sink)? {
                Some(rest) => rest,
                None => return Ok(()),
            };
        }
        let run = self.open_run(data, sink)?;
        Ok(self.hold(&data[run.consumed..])?)
    }

    /// Offers plaintext that was left over. True if the consumer took all of it.
    fn offer_held_plain<E>(
        &mut self,
        sink: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<bool, Stop<E>> {
        if self.plain.is_empty() {
            return Ok(true);
        }
        let taken = sink(&mut self.plain).map_err(Stop::Consumer)?;
        if taken < self.plain.len() {
            self.plain.drain(..taken);
            return Ok(false);
        }
        self.plain = Vec::new();
        Ok(true)
    }

    /// Works off held ciphertext, topped up from `data` record by record. Returns what is left of `data` once
    /// nothing is held, or nothing when all of it went into what is held.
    fn receive_held<'d, E>(
        &mut self,
        mut data: &'d mut [u8],
        sink: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Option<&'d mut [u8]>, Stop<E>> {
        let mut cipher = std::mem::take(&mut self.cipher);
        loop {
            let run = self.open_run(&mut cipher, sink)?;
            cipher.drain(..run.consumed);
            if run.stopped {
                self.cipher = cipher;
                self.hold(data)?;
                return Ok(None);
            }
            if cipher.is_empty() || data.is_empty() {
                break;
            }
            // Ends: each round either finishes a record or uses up data.
            let missing = record_bytes(&cipher)? - cipher.len();
            let (part, rest) = data.split_at_mut(missing.min(data.len()));
            cipher.extend_from_slice(part);
            data = rest;
        }
        let all_held = !cipher.is_empty();
        self.cipher = cipher;
        Ok(if all_held { None } else { Some(data) })
    }

    /// Opens the whole records at the front of `run` in place.
    fn open_run<E>(
        &mut self,
        run: &mut [u8],
        sink: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Run, Stop<E>> {
        let mut consumed = 0;
        while !self.peer_closed && consumed < run.len() {
            let rest = &mut run[consumed..];
            let bytes = record_bytes(rest)?;
            let Some(record) = rest.get_mut(..bytes).filter(|_| bytes > RECORD_HEADER_BYTES) else {
                if rest.len() >= RECORD_HEADER_BYTES && bytes == RECORD_HEADER_BYTES {
                    return Err(LinkError::BadRecord.into());
                }
                return Ok(Run { consumed, stopped: false });
            };
            consumed += bytes;
            let (content_type, plain) = self.open.open(record)?;
            if content_type == content::APPLICATION_DATA && !plain.is_empty() {
                self.empty_records = 0;
                let taken = sink(plain).map_err(Stop::Consumer)?;
                if taken < plain.len() {
                    self.plain.extend_from_slice(&plain[taken..]);
                    return Ok(Run { consumed, stopped: true });
                }
            } else {
                self.empty_records += 1;
                if self.empty_records > EMPTY_RECORDS_MAX {
                    return Err(LinkError::TooManyEmptyRecords.into());
                }
                match content_type {
                    content::APPLICATION_DATA => {}
                    content::ALERT => self.peer_closed |= is_close(plain)?,
                    content::HANDSHAKE => self.handle_handshake(plain)?,
                    message_type => return Err(LinkError::Unexpected { message_type }.into()),
                }
            }
        }
        // Behind a close_notify nothing is looked at any more.
        Ok(Run { consumed: if self.peer_closed { run.len() } else { consumed }, stopped: false })
    }

    /// Keeps `data` until the consumer goes on or the rest of its record arrives.
    fn hold(&mut self, data: &[u8]) -> Result<(), LinkError> {
        if self.plain.len() + self.cipher.len() + data.len() > HELD_BYTES_MAX {
            return Err(LinkError::HeldTooMuch { limit_bytes: HELD_BYTES_MAX });
        }
        self.cipher.extend_from_slice(data);
        Ok(())
    }

    /// Handshake messages after the handshake; each must be whole within its record.
    fn handle_handshake(&mut self, plain: &[u8]) -> Result<(), LinkError> {
        let mut rest = plain;
        while let Some((&[message_type, high, middle, low], body)) = rest.split_first_chunk::<4>() {
            let bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
            let (body, after) = body.split_at_checked(bytes).ok_or(LinkError::Malformed)?;
            match (message_type, body) {
                // A new key takes effect with the next record, so nothing may follow in this one.
                (KEY_UPDATE, [request @ 0..=1]) if after.is_empty() => {
                    let (sequence, secrets) =
                        self.kernel.update_rx_secret().map_err(|_| LinkError::Internal("no next key"))?;
                    self.open = RecordKey::new(sequence, &secrets)?;
                    self.update_owed |= *request == 1;
                }
                (KEY_UPDATE, _) => return Err(LinkError::Malformed),
                (NEW_SESSION_TICKET, _) if self.is_client => {}
                _ => return Err(LinkError::Unexpected { message_type }),
            }
            rest = after;
        }
        if rest.is_empty() && !plain.is_empty() { Ok(()) } else { Err(LinkError::Malformed) }
    }

    /// Seals everything behind a reserved header at `start` as application data, in records of at most 16
    /// KiB.
    pub(super) fn seal_from(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), LinkError> {
        if self.closed {
            return Err(LinkError::NotEstablished);
        }
        self.seal_as(out, start, content::APPLICATION_DATA)?;
        if self.seal.records() >= self.records_per_key {
            self.replace_sealing_key(out)?;
        }
        Ok(())
    }

    fn seal_as(&mut self, out: &mut Vec<u8>, start: usize, content_type: u8) -> Result<(), LinkError> {
        const STRIDE: usize = RECORD_PLAIN_BYTES_MAX + RECORD_OVERHEAD_BYTES;
        let plain_at = start + RECORD_HEADER_BYTES;
        let plain_bytes =
            out.len().checked_sub(plain_at).ok_or(LinkError::Internal("no record was begun"))?;
        if plain_bytes == 0 {
            out.truncate(start);
            return Ok(());
        }
        let records = plain_bytes.div_ceil(RECORD_PLAIN_BYTES_MAX);
        out.resize(start + plain_bytes + records * RECORD_OVERHEAD_BYTES, 0);
        // Spread the pieces apart, the last first, so that none overwrites one that has not moved.
        for record in (1..records).rev() {
            let from = plain_at + record * RECORD_PLAIN_BYTES_MAX;
            let bytes = RECORD_PLAIN_BYTES_MAX.min(plain_at + plain_bytes - from);
            out.copy_within(from..from + bytes, plain_at + record * STRIDE);
        }
        out[start..].chunks_mut(STRIDE).try_for_each(|record| self.seal.seal(record, content_type))
    }

    /// Tells the peer that a new key follows, and seals with it from here on.
    fn replace_sealing_key(&mut self, out: &mut Vec<u8>) -> Result<(), LinkError> {
        self.seal_message(out, &[KEY_UPDATE, 0, 0, 1, 0], content::HANDSHAKE)?;
        self.next_sealing_key()
    }

    pub(super) fn next_sealing_key(&mut self) -> Result<(), LinkError> {
        let (sequence, secrets) =
            self.kernel.update_tx_secret().map_err(|_| LinkError::Internal("no next key"))?;
        self.seal = RecordKey::new(sequence, &secrets)?;
        Ok(())
    }

    /// Appends an alert and seals nothing any more.
    pub(super) fn close(&mut self, out: &mut Vec<u8>, description: u8) -> Result<(), LinkError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let level = if description == alert::CLOSE_NOTIFY { 1 } else { 2 };
        self.seal_message(out, &[level, description], content::ALERT)
    }

    /// One record around `plain`, which may be malformed: for tests and fuzzing.
    pub(super) fn seal_any(&mut self, plain: &[u8], content_type: u8) -> Result<Vec<u8>, LinkError> {
        let mut record = vec![0; RECORD_HEADER_BYTES];
        record.extend_from_slice(plain);
        record.resize(plain.len() + RECORD_OVERHEAD_BYTES, 0);
        self.seal.seal(&mut record, content_type)?;
        Ok(record)
    }

    fn seal_message(&mut self, out: &mut Vec<u8>, message: &[u8], content_type: u8) -> Result<(), LinkError> {
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        out.extend_from_slice(message);
        self.seal_as(out, start, content_type)
    }
}

/// Reads an alert. True if the peer closed in order, false if the alert has no consequence.
fn is_close(plain: &[u8]) -> Result<bool, LinkError> {
    match plain {
        [_, alert::CLOSE_NOTIFY] => Ok(true),
        [_, alert::USER_CANCELED] => Ok(false),
        [_, description] => Err(LinkError::PeerAlert { description: *description }),
        _ => Err(LinkError::Malformed),
    }
}
