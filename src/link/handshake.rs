//! The handshake, by rustls's sans-I/O connections, fed with one record at a time.
//!
//! One at a time, because rustls must not be handed a record that comes after the handshake: those are opened
//! by our own keys. Bytes received before the handshake is complete are bounded, and everything here is
//! dropped when it is.

use rustls::ExtractedSecrets;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use super::error::LinkError;
use super::exporter::{ExporterSecret, take_captured};
use super::record::record_bytes;

/// Most bytes that a peer may send before the handshake is complete.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// Steps of rustls per record; a handshake record causes fewer than ten.
const STEPS_MAX: usize = 64;

/// The ALPN name of links between clients and nodes.
pub(super) const ALPN: &[u8] = b"trine/1";

/// One side's handshake.
pub trait Handshake: Send + Sized {
    /// rustls's marker of the side.
    type Data;
    /// What is known of the other side once the handshake is complete.
    type Peer: Copy + Send;
    /// Whether this is the client's side.
    const IS_CLIENT: bool;

    /// Takes whole records, of which those from `fresh` on are new. Returns how many bytes at the front are
    /// done with.
    fn advance(&mut self, records: &mut [u8], fresh: usize, out: &mut Vec<u8>) -> Result<usize, LinkError>;
    /// Whether nothing more is needed from the peer, nor to be sent.
    fn is_complete(&self) -> bool;
    /// The traffic secrets, and who the peer is.
    fn finish(self) -> Result<Finished<Self>, LinkError>;
    /// Records after which a sealing key is replaced.
    fn records_per_key(&self) -> u64;
}

/// What a complete handshake yields.
pub struct Finished<H: Handshake> {
    pub(super) secrets: ExtractedSecrets,
    pub(super) kernel: KernelConnection<H::Data>,
    pub(super) peer: H::Peer,
}

/// A handshake under way.
pub(super) struct Handshaking<H> {
    side: H,
    /// Records that rustls has not finished with, then the front of the next.
    incoming: Vec<u8>,
    /// Bytes of `incoming` that are whole records.
    whole: usize,
    received: usize,
    exporter: Option<ExporterSecret>,
}

impl<H: Handshake> Handshaking<H> {
    pub(super) fn new(side: H) -> Self {
        Self { side, incoming: Vec::new(), whole: 0, received: 0, exporter: None }
    }

    /// Starts: a client has something to say at once.
    pub(super) fn start(&mut self, out: &mut Vec<u8>) -> Result<(), LinkError> {
        self.advance(0, out)
    }

    /// Takes bytes from `data` until the handshake is complete or `data` is used up; returns how many. What
    /// follows in `data` then belongs to the established link.
    pub(super) fn receive(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<usize, LinkError> {
        let mut taken = 0;
        while taken < data.len() && !self.side.is_complete() {
            let partial = &self.incoming[self.whole..];
            let missing = record_bytes(partial)? - partial.len();
            let part = missing.min(data.len() - taken);
            self.received += part;
            if self.received > HANDSHAKE_BYTES_MAX {
                return Err(LinkError::HandshakeTooLarge);
            }
            self.incoming.extend_from_slice(&data[taken..taken + part]);
            taken += part;
            let partial = &self.incoming[self.whole..];
            if record_bytes(partial)? == partial.len() {
                let fresh = self.whole;
                self.whole = self.incoming.len();
                self.advance(fresh, out)?;
            }
        }
        Ok(taken)
    }

    fn advance(&mut self, fresh: usize, out: &mut Vec<u8>) -> Result<(), LinkError> {
        drop(take_captured());
        let advanced = self.side.advance(&mut self.incoming[..self.whole], fresh, out);
        if let Some(secret) = take_captured() {
            self.exporter = Some(secret);
        }
        let done = advanced?;
        self.incoming.drain(..done);
        self.whole -= done;
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.side.is_complete()
    }

    /// The side and the exporter secret, once complete.
    pub(super) fn into_parts(self) -> Result<(H, ExporterSecret), LinkError> {
        if !self.incoming.is_empty() {
            return Err(LinkError::Malformed);
        }
        let exporter = self.exporter.ok_or(LinkError::Internal("the handshake made no exporter secret"))?;
        Ok((self.side, exporter))
    }
}

/// What the two kinds of sans-I/O connections have in common.
pub(super) trait Connection {
    type Data;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

/// Lets rustls work until it wants more from the peer. Returns how many bytes of `records` it is done with.
/// On failure the alert that tells the peer is in `out`.
pub(super) fn drive<C: Connection>(
    connection: &mut C,
    records: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<usize, LinkError> {
    let mut done = 0;
    for _ in 0..STEPS_MAX {
        let UnbufferedStatus { discard, state, .. } = connection.process(&mut records[done..]);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out).map(|()| true),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(true)
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(false),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                Err(LinkError::PeerAlert { description: super::error::alert::CLOSE_NOTIFY })
            }
            Ok(_) => Err(LinkError::Internal("data before the end of the handshake")),
            Err(error) => Err(error.into()),
        };
        done += discard;
        match step {
            Ok(true) => {}
            Ok(false) => return Ok(done),
            Err(error) => {
                encode_alert(connection, &mut records[done..], out);
                return Err(error);
            }
        }
    }
    Err(LinkError::Internal("the handshake does not come to rest"))
}

/// After an error: the alert that rustls has queued. One step only, and with the records it may still point
/// into: a second step would have it work on them again.
fn encode_alert<C: Connection>(connection: &mut C, records: &mut [u8], out: &mut Vec<u8>) {
    if let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(records).state {
        // Closing without an alert is right as well.
        let _ = encode(data, out);
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), LinkError> {
    const FAULT: LinkError = LinkError::Internal("a handshake record could not be encoded");
    let start = out.len();
    let bytes = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        _ => return Err(FAULT),
    };
    out.resize(start + bytes, 0);
    data.encode(&mut out[start..]).map(|_| ()).map_err(|_| FAULT)
}
