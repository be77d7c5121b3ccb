//! TLS 1.3 records after the handshake (RFC 8446 section 5): one direction's key, sealing and opening in
//! place.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroize;

use super::error::LinkError;

/// Most plaintext bytes in one record.
pub const RECORD_PLAIN_BYTES_MAX: usize = 16_384;
/// Bytes of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 5;
/// Content type and tag, which follow the plaintext.
pub(super) const RECORD_TAIL_BYTES: usize = 1 + TAG_BYTES;
/// What sealing adds to the plaintext of one record.
pub const RECORD_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + RECORD_TAIL_BYTES;

const TAG_BYTES: usize = 16;
const RECORD_BODY_BYTES_MAX: usize = RECORD_PLAIN_BYTES_MAX + 256;

/// Content types of records.
pub(super) mod content {
    pub(in crate::link) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(in crate::link) const ALERT: u8 = 21;
    pub(in crate::link) const HANDSHAKE: u8 = 22;
    pub(in crate::link) const APPLICATION_DATA: u8 = 23;
}

/// Length in bytes of the record at the front of `bytes`, header included, judged as soon as the header is
/// there; before that, the length of a header.
pub(super) fn record_bytes(bytes: &[u8]) -> Result<usize, LinkError> {
    if let Some(&content_type) = bytes.first()
        && !(content::CHANGE_CIPHER_SPEC..=content::APPLICATION_DATA).contains(&content_type)
    {
        return Err(LinkError::NotTls);
    }
    let Some(&[_, major, _, high, low]) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Ok(RECORD_HEADER_BYTES);
    };
    if major != 3 {
        return Err(LinkError::NotTls);
    }
    let body_bytes = usize::from(u16::from_be_bytes([high, low]));
    if body_bytes > RECORD_BODY_BYTES_MAX {
        return Err(LinkError::RecordTooLarge { bytes: body_bytes });
    }
    Ok(RECORD_HEADER_BYTES + body_bytes)
}

/// The key of one direction, and the number of the next record.
pub(super) struct RecordKey {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl RecordKey {
    /// Takes over from rustls.
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, LinkError> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(LinkError::Internal("cipher suite that was not offered")),
        };
        let unbound = UnboundKey::new(algorithm, key.as_ref())
            .map_err(|_| LinkError::Internal("traffic key of wrong length"))?;
        let iv = iv.as_ref().try_into().map_err(|_| LinkError::Internal("traffic IV of wrong length"))?;
        Ok(Self { key: LessSafeKey::new(unbound), iv, sequence })
    }

    /// Records processed with this key.
    pub(super) fn records(&self) -> u64 {
        self.sequence
    }

    /// RFC 8446 section 5.3: the IV with the sequence number mixed in.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, mix) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= mix;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals one record in place. `record` has room for the header, then the plaintext, then room for the
    /// tail.
    pub(super) fn seal(&mut self, record: &mut [u8], content_type: u8) -> Result<(), LinkError> {
        let body_bytes = record.len() - RECORD_HEADER_BYTES;
        debug_assert!((RECORD_TAIL_BYTES..=RECORD_BODY_BYTES_MAX).contains(&body_bytes));
        let [high, low] = (body_bytes as u16).to_be_bytes();
        let header = [content::APPLICATION_DATA, 3, 3, high, low];
        let (head, body) = record.split_at_mut(RECORD_HEADER_BYTES);
        head.copy_from_slice(&header);
        let (plain, tag_slot) = body.split_at_mut(body_bytes - TAG_BYTES);
        if let Some(last) = plain.last_mut() {
            *last = content_type;
        }
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(), Aad::from(header), plain)
            .map_err(|_| LinkError::Internal("record too long to seal"))?;
        tag_slot.copy_from_slice(tag.as_ref());
        self.sequence += 1;
        Ok(())
    }

    /// Opens one whole record in place: its content type and its plaintext, without padding.
    pub(super) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<(u8, &'a mut [u8]), LinkError> {
        let (header, body) =
            record.split_first_chunk_mut::<RECORD_HEADER_BYTES>().ok_or(LinkError::Malformed)?;
        if header[0] != content::APPLICATION_DATA {
            return Err(LinkError::Unexpected { message_type: header[0] });
        }
        let inner = self
            .key
            .open_in_place(self.nonce(), Aad::from(*header), body)
            .map_err(|_| LinkError::BadRecord)?;
        self.sequence += 1;
        if inner.len() > RECORD_PLAIN_BYTES_MAX + 1 {
            return Err(LinkError::RecordTooLarge { bytes: inner.len() });
        }
        let at =
            inner.iter().rposition(|byte| *byte != 0).ok_or(LinkError::Unexpected { message_type: 0 })?;
        let content_type = inner[at];
        Ok((content_type, &mut inner[..at]))
    }
}

impl Drop for RecordKey {
    /// The key itself is ring's, which offers no way to wipe it; without the IV it opens nothing.
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}
