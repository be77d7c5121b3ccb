//! What the relay of one core does: messages, receipts, mailboxes.

use super::cell::{Counter, Gauge, Oldest};
use super::coded::ByClass;
use super::series::{Vocabulary, series};

series! {
    /// Series of the relay.
    pub struct RelayStats {
        /// Receipts given to senders, by message class and status.
        receipts: ByClass<8> => "relay_receipts", Count, Some(Vocabulary::Status);
        /// Messages rejected, by message class and reason.
        rejects: ByClass<64> => "relay_rejects", Count, Some(Vocabulary::Reject);
        /// Durable messages pushed to a connected device straight from memory.
        delivered_live: Counter => "relay_delivered_live", Count, None;
        /// Durable messages read back from the log for a device.
        delivered_from_log: Counter => "relay_delivered_from_log", Count, None;
        /// Ephemeral messages pushed to a connected device.
        delivered_ephemeral: Counter => "relay_delivered_ephemeral", Count, None;
        /// Ephemeral messages dropped because no device could take them at once.
        ephemeral_dropped: Counter => "relay_ephemeral_dropped", Count, None;
        /// Messages delivered again because they were not acknowledged.
        redelivered: Counter => "relay_redelivered", Count, None;
        /// Messages recognised as already accepted.
        dedup_hits: Counter => "relay_dedup_hits", Count, None;
        /// Message ids forgotten before their time because the store had no space to keep them.
        dedup_forgotten: Counter => "relay_dedup_forgotten", Count, None;
        /// Acknowledgements received from devices.
        acks: Counter => "relay_acks", Count, None;
        /// Messages removed because their time to live ended.
        expired: Counter => "relay_expired", Count, None;
        /// Reads from the log that did not bring the message they were for.
        failed_reads: Counter => "relay_failed_reads", Count, None;
        /// Messages that were acknowledged and cannot be read back.
        messages_lost: Counter => "relay_messages_lost", Count, None;
        /// Messages copied to the end of the log to free the segment they were in.
        copied_forward: Counter => "relay_copied_forward", Count, None;
        /// Sessions in cursor mode now: they read from the log at their own pace.
        cursor_mode_sessions: Gauge => "relay_cursor_mode_sessions", Count, None;
        /// Mailboxes held in memory now.
        mailboxes: Gauge => "relay_mailboxes", Count, None;
        /// Messages queued now for devices that have not acknowledged them.
        queued_messages: Gauge => "relay_queued_messages", Count, None;
        /// Payload bytes queued now for devices that have not acknowledged them.
        queued_bytes: Gauge => "relay_queued", Bytes, None;
        /// Age of the oldest queued message; zero if none is queued.
        oldest_queued: Oldest => "relay_oldest_queued_age", Since, None;
    }
}
