//! The TLS exporter (RFC 8446 section 7.5) of a sans-I/O connection.
//!
//! rustls offers the exporter on its buffered connections only. The secret it is made from passes by the key
//! log, so a key log that takes nothing else puts it aside, in a slot of the calling thread, until the call
//! into rustls returns.

use std::cell::RefCell;

use ring::{digest, hkdf};
use zeroize::Zeroizing;

use super::error::LinkError;
use super::login::Exporter;

const KEY_LOG_LABEL: &str = "EXPORTER_SECRET";
const EXPORTER_LABEL: &[u8] = b"EXPORTER-trine-login-v1";

/// The exporter secret of a connection; wiped when dropped.
pub(super) struct ExporterSecret(Zeroizing<Vec<u8>>);

thread_local! {
    static SLOT: RefCell<Option<ExporterSecret>> = const { RefCell::new(None) };
}

/// Takes the exporter secret that rustls made since the last call on this thread, if it did.
pub(super) fn take_captured() -> Option<ExporterSecret> {
    SLOT.take()
}

/// The key log that puts the exporter secret aside and refuses every other.
#[derive(Debug)]
pub(super) struct CaptureExporter;

impl rustls::KeyLog for CaptureExporter {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if self.will_log(label) {
            SLOT.set(Some(ExporterSecret(Zeroizing::new(secret.to_vec()))));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == KEY_LOG_LABEL
    }
}

impl ExporterSecret {
    /// 32 bytes for the label of the login, without context.
    pub(super) fn login_exporter(&self) -> Result<Exporter, LinkError> {
        let (hkdf_algorithm, digest_algorithm) = match self.0.len() {
            32 => (hkdf::HKDF_SHA256, &digest::SHA256),
            48 => (hkdf::HKDF_SHA384, &digest::SHA384),
            _ => return Err(LinkError::Internal("exporter secret of unknown length")),
        };
        let empty_hash = digest::digest(digest_algorithm, b"");
        let mut derived = Zeroizing::new([0; digest::MAX_OUTPUT_LEN]);
        let derived = &mut derived[..self.0.len()];
        expand_label(hkdf_algorithm, &self.0, EXPORTER_LABEL, empty_hash.as_ref(), derived)?;
        let mut exporter = Exporter([0; 32]);
        expand_label(hkdf_algorithm, derived, b"exporter", empty_hash.as_ref(), &mut exporter.0)?;
        Ok(exporter)
    }
}

/// HKDF-Expand-Label of RFC 8446 section 7.1.
fn expand_label(
    algorithm: hkdf::Algorithm,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), LinkError> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = (out.len() as u16).to_be_bytes();
    let label_length = [(b"tls13 ".len() + label.len()) as u8];
    let context_length = [context.len() as u8];
    let info = [&length[..], &label_length, b"tls13 ", label, &context_length, context];
    hkdf::Prk::new_less_safe(algorithm, secret)
        .expand(&info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| LinkError::Internal("HKDF refused its input"))
}
