//! What the links of one core do: connections, handshakes, logins, frames.

use super::cell::{Counter, Gauge};
use super::coded::Coded;
use super::series::{Vocabulary, series};

series! {
    /// Series of links and sessions.
    pub struct LinkStats {
        /// Connections open now, logged in or not.
        connections_open: Gauge => "link_connections_open", Count, None;
        /// Sessions open now: devices that are logged in.
        sessions_open: Gauge => "link_sessions_open", Count, None;
        /// Connections accepted from the listener.
        connections_accepted: Counter => "link_connections_accepted", Count, None;
        /// Connections refused before the first byte, by reason.
        connections_refused: Coded<16> => "link_connections_refused", Count, Some(Vocabulary::Refuse);
        /// Connections closed, by close code.
        connections_closed: Coded<64> => "link_connections_closed", Count, Some(Vocabulary::Close);
        /// Times the kernel could not accept a connection, for example for want of file descriptors.
        accept_failures: Counter => "link_accept_failures", Count, None;
        /// TLS handshakes completed.
        handshakes: Counter => "link_handshakes", Count, None;
        /// TLS handshakes that failed or ran out of time.
        handshakes_failed: Counter => "link_handshakes_failed", Count, None;
        /// Logins accepted.
        logins: Counter => "link_logins", Count, None;
        /// Logins refused, by reason.
        logins_failed: Coded<32> => "link_logins_failed", Count, Some(Vocabulary::Login);
        /// Frames received.
        frames_in: Counter => "link_frames_received", Count, None;
        /// Frames sent.
        frames_out: Counter => "link_frames_sent", Count, None;
        /// Bytes received from the network, encrypted.
        bytes_in: Counter => "link_received", Bytes, None;
        /// Bytes sent to the network, encrypted.
        bytes_out: Counter => "link_sent", Bytes, None;
    }
}
