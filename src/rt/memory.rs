//! How the kernel gives this process memory.

use std::io;

/// Takes memory from the kernel in small pages only, in the whole process and for its life.
///
/// The allocator asks for huge pages where it can. The kernel clears one when it is touched first: 2 MiB in
/// one go, on a virtual machine up to 6 ms, in which the core answers nobody. Small pages cost about the same
/// in total, and spread it.
///
/// # Errors
/// The kernel refuses. The node works, with a longer tail of its latency.
pub fn use_small_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}
