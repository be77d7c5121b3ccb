//! The coded reasons of refusals and of closed links. A code's number never changes and is never used again.

/// Defines an enum whose variants have a number on the wire and words for people.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident: $repr:ty {
        $($(#[doc = $doc:literal])* $variant:ident = $code:literal, $words:literal;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $doc])* $variant,)* }

        impl $name {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number on the wire; never 0.
            pub const fn code(self) -> $repr {
                match self { $(Self::$variant => $code,)* }
            }

            /// The code with this number, if this version defines it.
            pub const fn from_code(code: $repr) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The name, as used in documents, metrics and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// What happened and what to do, in words.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.words())
            }
        }
    };
}

codes! {
    /// Why a SEND was refused, in a RECEIPT with status REJECTED.
    RejectReason: u8 {
        /// The recipient's mailbox holds as many messages as it may.
        MailboxMessages = 1, "the recipient's mailbox holds its maximum of messages; try again later";
        /// The recipient's mailbox holds as many bytes as it may.
        MailboxBytes = 2, "the recipient's mailbox holds its maximum of bytes; try again later";
        /// This sender sends too fast.
        Rate = 3, "you send faster than your quota; wait retry_ms";
        /// The node has more work than it can queue.
        Busy = 4, "the node is busy; wait retry_ms";
        /// The node's store has no room.
        StoreFull = 5, "the node's store is full; use another node or try again later";
        /// The node's store no longer accepts writes.
        StoreReadOnly = 6, "the node's store is read-only after a fault; use another node or try again later";
        /// The message is larger than this node takes.
        TooLarge = 7, "the message is too large; split it";
        /// The time to live is zero or longer than this node keeps messages.
        BadTtl = 8, "the time to live is outside what this node accepts; choose another";
        /// An ephemeral message had nobody to go to.
        NotConnected = 9, "no device of the recipient could take the ephemeral message; it was dropped";
        /// The node is going away.
        ShuttingDown = 10, "the node is shutting down; reconnect after retry_ms";
        /// The node may not hold more mailboxes.
        TooManyMailboxes = 11, "the node holds its maximum of mailboxes; use another node";
        /// More sends are unanswered than the window allows.
        WindowExceeded = 12, "more sends are unanswered than the send window allows; wait for receipts";
        /// All senders of this network prefix together send too fast.
        SourceRate = 13, "your network sends faster than its quota; wait retry_ms";
    }
}

codes! {
    /// Why a link was closed, in a CLOSE frame.
    CloseCode: u16 {
        /// A frame broke the protocol.
        Protocol = 1, "a frame was malformed; the client has a fault";
        /// A frame's header claimed too many bytes.
        TooLarge = 2, "a frame was larger than allowed at this point; send smaller frames";
        /// No version in common.
        Version = 3, "no common protocol version; update the older side";
        /// The first frame was not a login of this protocol.
        Magic = 4, "the login does not begin with the protocol's magic; this is not a trine client";
        /// A login's signature or key was not valid.
        AuthFailed = 5, "the login's keys or signatures are not valid; check the key file";
        /// No login in time.
        LoginTimeout = 6, "no login arrived in time; log in directly after the TLS handshake";
        /// No TLS handshake in time.
        HandshakeTimeout = 7, "the TLS handshake did not finish in time";
        /// The same device logged in again.
        Displaced = 8, "the same device logged in on another link; do not reconnect this one";
        /// The peer took no byte for too long while data waited.
        Stalled = 9, "no byte was accepted for too long while data waited; reconnect and read faster";
        /// The node is going away.
        ShuttingDown = 10, "the node is shutting down; reconnect after retry_ms";
        /// The node has no room for this link.
        Overloaded = 11, "the node is overloaded; reconnect after retry_ms";
        /// Too many links from one source, or in all.
        TooManyConnections = 12, "too many connections; close some or reconnect after retry_ms";
        /// The encrypted transport failed.
        Tls = 13, "the encrypted transport failed; see the detail";
        /// A frame that is not allowed in this direction or at this point.
        UnexpectedFrame = 14, "a frame is not defined here or not allowed at this point";
        /// The clocks differ too much.
        ClockSkew = 15, "the clocks differ by more than ten minutes; set the clock";
        /// The device's grant has ended.
        GrantExpired = 16, "the device's grant has expired; make a new one with the user key";
        /// The node has a fault.
        Internal = 17, "the node has an internal fault; reconnect after retry_ms";
        /// Nothing was heard from the client for too long.
        Idle = 18, "nothing was heard for too long; send a PING now and then";
        /// The mailbox has as many devices as it may.
        TooManyDevices = 19, "the mailbox has as many devices as it may; one must be forgotten first";
        /// The mailbox lost a message and has a new epoch.
        EpochChanged = 20, "the mailbox lost a message and has a new epoch; log in again";
    }
}
