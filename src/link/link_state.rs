//! A link from its first byte to its last, the same for both sides: handshake, then records, then closed.

use super::error::{LinkError, alert};
use super::established::{Established, Stop};
use super::handshake::{Handshake, Handshaking};
use super::login::Exporter;
use super::record::RECORD_HEADER_BYTES;
use super::writer::RecordWriter;

/// Records after which a sealing key is replaced: below the 2^24.5 that RFC 8446 section 5.5 allows for
/// AES-GCM.
pub(super) const RECORDS_PER_KEY: u64 = 1 << 24;

/// Where in an output buffer a record was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a record that was begun must be ended, or its buffer must not be sent"]
pub struct RecordStart(pub(super) usize);

impl RecordStart {
    /// Begins a record at the end of `out`, as [`Link::begin_record`] does, where no link is at hand.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        let start = Self(out.len());
        out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        start
    }

    /// `bytes` bytes, sealed already, were inserted before the record.
    pub fn shift(&mut self, bytes: usize) {
        self.0 += bytes;
    }
}

/// One side of an encrypted link.
pub struct Link<H: Handshake> {
    state: State<H>,
}

enum State<H: Handshake> {
    Handshake(Box<Handshaking<H>>),
    Open(Box<Open<H>>),
    Failed,
}

struct Open<H: Handshake> {
    records: Established<H::Data>,
    exporter: Exporter,
    peer: H::Peer,
}

impl<H: Handshake> Link<H> {
    pub(super) fn handshaking(handshake: Handshaking<H>) -> Self {
        Self { state: State::Handshake(Box::new(handshake)) }
    }

    /// Takes a run of bytes from the network, in any cut. Appends to `out` what the link itself has to send;
    /// no record may be begun in `out`. Plaintext goes to `sink`, record by record, decrypted where it lies.
    ///
    /// `sink` returns how many bytes it took. Less than all of them means stop: the link keeps the rest, and
    /// everything behind it, up to [`HELD_BYTES_MAX`](super::HELD_BYTES_MAX). The caller then stops receiving
    /// from the network, and goes on with a call with empty `data`.
    ///
    /// A front of a record is kept until its rest arrives, in memory that is released once a call ends
    /// between records.
    ///
    /// # Errors
    /// After a [`LinkError`] the link is dead; `out` holds the alert that tells the peer. An error of `sink`
    /// is passed on; the plaintext that `sink` was given is lost, so the caller can only close.
    pub fn receive<E: From<LinkError>>(
        &mut self,
        data: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        match self.receive_inner(data, out, sink) {
            Ok(()) => Ok(()),
            Err(Stop::Consumer(error)) => Err(error),
            Err(Stop::Link(error)) => {
                self.fail(&error, out);
                Err(error.into())
            }
        }
    }

    fn receive_inner<E>(
        &mut self,
        mut data: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), Stop<E>> {
        if let State::Handshake(handshake) = &mut self.state {
            let taken = handshake.receive(data, out)?;
            data = &mut data[taken..];
            if !handshake.is_complete() {
                return Ok(());
            }
            self.establish()?;
        }
        match &mut self.state {
            State::Open(open) => open.records.receive(data, out, sink),
            _ => Err(LinkError::NotEstablished.into()),
        }
    }

    /// Leaves the handshake behind and frees its memory.
    fn establish(&mut self) -> Result<(), LinkError> {
        let State::Handshake(handshake) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(LinkError::NotEstablished);
        };
        let (side, secret) = handshake.into_parts()?;
        let records_per_key = side.records_per_key();
        let finished = side.finish()?;
        let records = Established::new(&finished.secrets, finished.kernel, records_per_key, H::IS_CLIENT)?;
        let exporter = secret.login_exporter()?;
        self.state = State::Open(Box::new(Open { records, exporter, peer: finished.peer }));
        Ok(())
    }

    fn fail(&mut self, error: &LinkError, out: &mut Vec<u8>) {
        if let State::Open(open) = &mut self.state
            && let Some(description) = error.alert()
        {
            // A link that cannot even seal an alert is closed without one.
            let _ = open.records.close(out, description);
        }
        self.state = State::Failed;
    }

    /// The handshake is complete and the link has not failed.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The link has failed, and does nothing any more.
    pub fn is_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    /// The peer has closed its side in order: nothing more will arrive.
    pub fn is_peer_closed(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.records.is_peer_closed())
    }

    /// Plaintext waits because `sink` stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.records.is_stopped())
    }

    /// Bytes of memory held for data that waits; 0 on an idle link.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Open(open) => open.records.held_bytes(),
            _ => 0,
        }
    }

    /// The value that binds a login to this link; none before the handshake is complete.
    pub fn exporter(&self) -> Option<&Exporter> {
        match &self.state {
            State::Open(open) => Some(&open.exporter),
            _ => None,
        }
    }

    pub(super) fn peer(&self) -> Option<H::Peer> {
        match &self.state {
            State::Open(open) => Some(open.peer),
            _ => None,
        }
    }

    /// Begins a record at the end of `out`. Plaintext is then appended to `out`, and [`Link::end_record`]
    /// seals it there. Nothing else may be appended in between, by [`Link::receive`] in particular.
    pub fn begin_record(&self, out: &mut Vec<u8>) -> RecordStart {
        RecordStart::begin(out)
    }

    /// Seals everything appended since `start` in place; more than 16 KiB become several records. Nothing
    /// appended leaves nothing in `out`. Allocates only if `out` lacks capacity for
    /// [`RECORD_OVERHEAD_BYTES`](super::RECORD_OVERHEAD_BYTES) per 16 KiB.
    ///
    /// # Errors
    /// [`LinkError::NotEstablished`] before the handshake and after a close; `out` is then as before `start`.
    pub fn end_record(&mut self, out: &mut Vec<u8>, start: RecordStart) -> Result<(), LinkError> {
        let sealed = match &mut self.state {
            State::Open(open) => open.records.seal_from(out, start.0),
            _ => Err(LinkError::NotEstablished),
        };
        if sealed.is_err() {
            out.truncate(start.0);
        }
        sealed
    }

    /// Writes frames into `out` as records of at most 16 KiB each.
    pub fn writer<'a>(&'a mut self, out: &'a mut Vec<u8>) -> RecordWriter<'a, H> {
        RecordWriter::new(self, out)
    }

    /// Appends a close_notify, once; nothing can be sent after it. Does nothing during the handshake.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), LinkError> {
        match &mut self.state {
            State::Open(open) => open.records.close(out, alert::CLOSE_NOTIFY),
            _ => Ok(()),
        }
    }
}

impl<H: Handshake> Link<H> {
    /// A sealed record of any content, as a peer with a fault would send it: for tests and fuzzing. None if
    /// not open.
    pub(super) fn seal_any(&mut self, plain: &[u8], content_type: u8) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Open(open) => open.records.seal_any(plain, content_type).ok(),
            _ => None,
        }
    }

    /// Goes on to the next sealing key without telling the peer.
    #[cfg(test)]
    pub(super) fn next_key_for_test(&mut self) {
        let State::Open(open) = &mut self.state else { panic!("the link is not open") };
        open.records.next_sealing_key().unwrap();
    }
}

impl<H: Handshake> std::fmt::Debug for Link<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.state {
            State::Handshake(_) => "Link(handshake)",
            State::Open(_) => "Link(open)",
            State::Failed => "Link(failed)",
        })
    }
}
