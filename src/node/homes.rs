//! The home cores of addresses that messages went to lately.
//!
//! The lane of an address is a keyed hash, the dearest single step of a small message. Senders write to the
//! same few recipients again and again, so a small direct-mapped table answers most of them with one
//! comparison. Whoever aims at one slot of it gets the hash every time, as everybody did without it.

use crate::rt::api::CoreId;
use crate::wire::Address;

/// Slots, a power of two; 36 KiB per core.
const SLOTS: usize = 1024;

/// What one core remembers of where addresses live. That never changes while a node runs.
pub(super) struct Homes {
    slots: Box<[Option<(Address, CoreId)>]>,
}

impl Default for Homes {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS].into() }
    }
}

impl Homes {
    /// The home of `address`, by `find` if it is not remembered.
    pub(super) fn of(&mut self, address: &Address, find: impl FnOnce(&Address) -> CoreId) -> CoreId {
        // An address is a hash itself: any of its bits choose a slot evenly.
        let slot = &mut self.slots[usize::from(u16::from_le_bytes([address.0[0], address.0[1]])) % SLOTS];
        match slot {
            Some((known, home)) if known == address => *home,
            _ => slot.insert((*address, find(address))).1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_looked_up_once_until_another_takes_its_slot() {
        let mut homes = Homes::default();
        let (first, mut second) = (Address([1; 32]), Address([1; 32]));
        second.0[31] = 2;
        let lookups = std::cell::Cell::new(0);
        let mut ask = |address: &Address, home| {
            homes.of(address, |_| {
                lookups.set(lookups.get() + 1);
                CoreId(home)
            })
        };
        assert_eq!((ask(&first, 3), ask(&first, 9)), (CoreId(3), CoreId(3)));
        assert_eq!(lookups.get(), 1);
        assert_eq!((ask(&second, 4), ask(&first, 3)), (CoreId(4), CoreId(3)));
        assert_eq!(lookups.get(), 3);
    }
}
