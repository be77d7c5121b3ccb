//! The connections of a core: slots that are used again, ids that are not.

use std::any::Any;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::conn::Machine;
use super::op::ConnKey;
use crate::rt::api::{ConnId, CoreId};

/// A send in the kernel, which owns its buffer meanwhile.
pub(super) struct Sending {
    pub buf: Vec<u8>,
    pub sent: usize,
}

/// What travels with a connection that leaves this core.
pub(super) struct Leaving {
    pub to: CoreId,
    pub state: Box<dyn Any + Send>,
    /// Received after the logic gave the connection away.
    pub residue: Vec<u8>,
}

/// One connection.
pub(super) struct Conn {
    /// Gone once the connection is over.
    pub fd: Option<OwnedFd>,
    pub peer: SocketAddr,
    pub machine: Machine,
    pub sending: Option<Sending>,
    pub leaving: Option<Box<Leaving>>,
}

struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

/// The connection table. Grows to its limit and keeps its slots.
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    limit: usize,
}

impl Table {
    /// An empty table for at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True if another connection has a place.
    pub fn has_room(&self) -> bool {
        self.len() < self.limit
    }

    /// Takes in a connection; the table must have room.
    pub fn insert(&mut self, fd: OwnedFd, peer: SocketAddr, machine: Machine) -> ConnId {
        assert!(self.has_room());
        let conn = Conn { fd: Some(fd), peer, machine, sending: None, leaving: None };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, conn: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.conn = Some(conn);
        ConnId { slot: index, generation: slot.generation }
    }

    /// The connection, if `id` is not one of the past.
    pub fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.conn.as_mut() } else { None }
    }

    /// The full id of a connection named by a completion.
    pub fn resolve(&self, key: ConnKey) -> Option<ConnId> {
        let slot = self.slots.get(key.slot as usize)?;
        let id = ConnId { slot: key.slot, generation: slot.generation };
        (slot.conn.is_some() && ConnKey::from(id) == key).then_some(id)
    }

    /// Frees the slot.
    pub fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.get(id)?;
        self.free.push(id.slot);
        self.slots[id.slot as usize].conn.take()
    }

    /// All connections.
    pub fn ids(&self) -> Vec<ConnId> {
        let full = self.slots.iter().enumerate().filter(|(_, slot)| slot.conn.is_some());
        full.map(|(slot, entry)| ConnId { slot: slot as u32, generation: entry.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("an eventfd")
    }

    #[test]
    fn an_id_of_the_past_names_nothing_though_its_slot_is_used_again() {
        let mut table = Table::new(2);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let first = table.insert(fd(), peer, Machine::open().0);
        assert!(table.remove(first).is_some() && table.remove(first).is_none());
        let second = table.insert(fd(), peer, Machine::open().0);
        assert_eq!(first.slot, second.slot);
        assert!(table.get(first).is_none() && table.get(second).is_some());
        assert_eq!(table.resolve(first.into()), None);
        assert_eq!(table.resolve(second.into()), Some(second));
        table.insert(fd(), peer, Machine::open().0);
        assert!(!table.has_room());
        assert_eq!(table.ids().len(), 2);
    }
}
