//! Memory for direct I/O: aligned to the block size, of fixed capacity, zeroed when made.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::io::BLOCK_BYTES;

/// An owned run of bytes whose address and length are multiples of [`BLOCK_BYTES`].
///
/// The address never changes while the buffer lives, so the kernel may write to it while the value moves.
pub struct AlignedBuf {
    start: NonNull<u8>,
    bytes: usize,
    /// Slot of this buffer in the core's table of buffers registered with the kernel, if it is one of them.
    registered: Option<u16>,
}

// SAFETY: the buffer is plain memory with one owner; nothing about it is tied to a thread.
unsafe impl Send for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of `bytes`, which must be a positive multiple of [`BLOCK_BYTES`].
    pub fn zeroed(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the layout has a non-zero size, asserted in `layout`.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, bytes, registered: None }
    }

    /// Remembers the slot under which the kernel knows this memory.
    pub fn set_registered(&mut self, slot: u16) {
        self.registered = Some(slot);
    }

    /// The slot under which the kernel knows this memory, if any.
    pub fn registered(&self) -> Option<u16> {
        self.registered
    }

    fn layout(bytes: usize) -> Layout {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES), "{bytes} is no positive multiple of a block");
        // PANIC: the alignment is a power of two, and a size that memory can hold does not overflow.
        Layout::from_size_align(bytes, BLOCK_BYTES).expect("a block-aligned layout of this size exists")
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `bytes` initialised bytes while `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes, registered {:?})", self.bytes, self.registered)
    }
}
