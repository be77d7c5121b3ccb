//! What an operation's 64 bits of user data say about it.

use crate::rt::api::ConnId;

const KIND_SHIFT: u32 = 56;
const GENERATION_MASK: u64 = (1 << 24) - 1;

/// An operation in the kernel, as its completion names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The multishot accept.
    Accept,
    /// The multishot receive of a connection, named by slot and the low bits of the generation.
    Recv(ConnKey),
    /// The send of a connection.
    Send(ConnKey),
    /// A request to cancel another operation.
    Cancel,
    /// The read of the eventfd that foreign threads write to.
    Notified,
    /// A wake-up from another core's ring.
    Woken,
    /// A wake-up of another core that failed.
    WakeFailed(u16),
    /// The disk operation in this slot.
    Disk(u32),
}

/// A connection as 56 bits. A slot is used again only after its operations have completed, so the low bits of
/// the generation are a check, not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnKey {
    pub slot: u32,
    pub generation: u32,
}

impl From<ConnId> for ConnKey {
    fn from(conn: ConnId) -> Self {
        Self { slot: conn.slot, generation: conn.generation & GENERATION_MASK as u32 }
    }
}

impl ConnKey {
    fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    fn unpack(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32 & GENERATION_MASK) as u32 }
    }
}

impl Op {
    /// The bits from which [`Op::unpack`] makes this operation.
    pub fn pack(self) -> u64 {
        let (kind, rest) = match self {
            Op::Accept => (1, 0),
            Op::Recv(conn) => (2, conn.pack()),
            Op::Send(conn) => (3, conn.pack()),
            Op::Cancel => (4, 0),
            Op::Notified => (5, 0),
            Op::Woken => (6, 0),
            Op::WakeFailed(core) => (7, u64::from(core)),
            Op::Disk(slot) => (8, u64::from(slot)),
        };
        kind << KIND_SHIFT | rest
    }

    /// `None` for bits that no operation of this driver carries.
    pub fn unpack(bits: u64) -> Option<Self> {
        Some(match bits >> KIND_SHIFT {
            1 => Op::Accept,
            2 => Op::Recv(ConnKey::unpack(bits)),
            3 => Op::Send(ConnKey::unpack(bits)),
            4 => Op::Cancel,
            5 => Op::Notified,
            6 => Op::Woken,
            7 => Op::WakeFailed(bits as u16),
            8 => Op::Disk(bits as u32),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_read_back_as_it_was_written() {
        let conn = ConnKey { slot: u32::MAX, generation: 0xFF_FFFF };
        let ops = [Op::Accept, Op::Recv(conn), Op::Send(conn), Op::Cancel, Op::Notified, Op::Woken];
        for op in ops.into_iter().chain([Op::WakeFailed(255), Op::Disk(u32::MAX)]) {
            assert_eq!(Op::unpack(op.pack()), Some(op));
        }
        assert_eq!(Op::unpack(0), None);
        assert_eq!(Op::unpack(u64::MAX), None);
    }

    #[test]
    fn a_generation_beyond_24_bits_keeps_its_low_ones() {
        let key = ConnKey::from(ConnId { slot: 7, generation: 0xAB12_3456 });
        assert_eq!(key, ConnKey { slot: 7, generation: 0x12_3456 });
    }
}
