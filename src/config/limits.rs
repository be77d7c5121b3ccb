//! Limits and deadlines, with their defaults.
//!
//! Each default is explained in `docs/LIMITS.md`; a test compares that page with this file. "Per core" limits
//! are enforced without asking another core, so the node's total is that times the number of cores.

use serde::{Deserialize, Serialize};

use super::units::{Size, Span};

/// What one client, one source or all of them together may use. Reaching a limit is a coded refusal, never a
/// crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once on one core.
    pub connections_per_core_max: u32,
    /// Connections on one core that are not logged in yet.
    pub half_open_per_core_max: u32,
    /// Connections open at once from one source prefix (IPv4 /24, IPv6 /56), on one core.
    pub connections_per_prefix_max: u32,
    /// New connections from one source prefix per second, on one core, sustained.
    pub connects_per_prefix_per_s: u32,
    /// New connections from one source prefix at once, on one core.
    pub connects_per_prefix_burst: u32,
    /// Mailboxes on one core.
    pub mailboxes_per_core_max: u32,
    /// Messages queued on one core, over all mailboxes.
    pub queued_messages_per_core_max: u32,
    /// Messages queued in one mailbox.
    pub mailbox_messages_max: u32,
    /// Payload bytes queued in one mailbox.
    pub mailbox_bytes_max: Size,
    /// Devices that read one mailbox.
    pub devices_per_mailbox_max: u8,
    /// Messages one session may have sent without a receipt.
    pub send_window_max: u16,
    /// Messages delivered to one device without its acknowledgement.
    pub deliver_window_messages_max: u16,
    /// Payload bytes delivered to one device without its acknowledgement.
    pub deliver_window_bytes_max: Size,
    /// Messages one identity may send per second, sustained.
    pub identity_messages_per_s: u32,
    /// Messages one identity may send at once.
    pub identity_messages_burst: u32,
    /// Payload bytes one identity may send per second, sustained.
    pub identity_bytes_per_s: Size,
    /// Payload bytes one identity may send at once.
    pub identity_bytes_burst: Size,
    /// Time to live of a message that does not say.
    pub ttl_default: Span,
    /// Longest time to live a message may ask for.
    pub ttl_max: Span,
    /// Message ids remembered per mailbox to recognise repetitions.
    pub dedup_ids_max: u32,
    /// Message ids remembered on one core, over all mailboxes.
    pub dedup_ids_per_core_max: u32,
    /// How long a message id is remembered.
    pub dedup_window: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_core_max: 65_536,
            half_open_per_core_max: 1_024,
            connections_per_prefix_max: 1_024,
            connects_per_prefix_per_s: 256,
            connects_per_prefix_burst: 1_024,
            mailboxes_per_core_max: 65_536,
            queued_messages_per_core_max: 4_194_304,
            mailbox_messages_max: 10_000,
            mailbox_bytes_max: Size::mib(64),
            devices_per_mailbox_max: 8,
            send_window_max: 512,
            deliver_window_messages_max: 256,
            deliver_window_bytes_max: Size::mib(1),
            identity_messages_per_s: 10_000,
            identity_messages_burst: 20_000,
            identity_bytes_per_s: Size::mib(16),
            identity_bytes_burst: Size::mib(32),
            ttl_default: Span::days(30),
            ttl_max: Span::days(30),
            dedup_ids_max: 4_096,
            dedup_ids_per_core_max: 4_194_304,
            dedup_window: Span::hours(24),
        }
    }
}

/// How long a connection may take over each step before it is closed, and a node over its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// From the connection to the end of the TLS handshake.
    pub tls: Span,
    /// From the end of the handshake to a valid login.
    pub login: Span,
    /// Without the peer accepting one byte of what waits for it.
    pub stall: Span,
    /// Without a frame from the peer.
    pub idle: Span,
    /// From the request to stop until the node has drained.
    pub drain: Span,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            tls: Span::seconds(5),
            login: Span::seconds(3),
            stall: Span::seconds(30),
            idle: Span::seconds(600),
            drain: Span::seconds(30),
        }
    }
}
