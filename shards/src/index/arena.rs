//! Nodes in blocks, named by number: growing never moves what is there.

use std::ops::{Index, IndexMut};

/// Nodes per block.
const BLOCK: usize = 64;

/// The number of a node in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(u32);

impl NodeId {
    /// Stands where there is none.
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// Nodes of one kind.
#[derive(Debug)]
pub(super) struct Arena<T> {
    blocks: Vec<Vec<T>>,
    free: Vec<NodeId>,
}

impl<T: Clone> Arena<T> {
    pub(super) fn new() -> Self {
        Self { blocks: Vec::new(), free: Vec::new() }
    }

    pub(super) fn add(&mut self, node: T) -> NodeId {
        if let Some(id) = self.free.pop() {
            self[id] = node;
            return id;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let block = self.blocks.len() - 1;
        self.blocks[block].push(node);
        NodeId((block * BLOCK + self.blocks[block].len() - 1) as u32)
    }

    /// Gives a node back; its contents are returned.
    pub(super) fn free(&mut self, id: NodeId) -> T {
        self.free.push(id);
        self[id].clone()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.capacity() * size_of::<T>()).sum::<usize>()
            + self.blocks.capacity() * size_of::<Vec<T>>()
            + self.free.capacity() * size_of::<NodeId>()
    }
}

impl<T> Index<NodeId> for Arena<T> {
    type Output = T;
    fn index(&self, id: NodeId) -> &T {
        &self.blocks[id.0 as usize / BLOCK][id.0 as usize % BLOCK]
    }
}

impl<T> IndexMut<NodeId> for Arena<T> {
    fn index_mut(&mut self, id: NodeId) -> &mut T {
        &mut self.blocks[id.0 as usize / BLOCK][id.0 as usize % BLOCK]
    }
}
