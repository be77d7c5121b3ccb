//! The codes against others, against each other, and against themselves.

mod kernels;
mod oracle;
mod rebuild;

use super::{Kernel, Rs8, Shape};
use crate::testing::Rng;

/// Shards of random bytes.
fn random_shards(seed: u64, count: usize, bytes: usize) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| (0..bytes).map(|_| rng.below(256) as u8).collect()).collect()
}

fn slices(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

fn slices_mut(shards: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    shards.iter_mut().map(Vec::as_mut_slice).collect()
}

/// A whole stripe, data first.
fn stripe(code: &Rs8, seed: u64, bytes: usize) -> Vec<Vec<u8>> {
    let shape = code.shape();
    let mut shards = random_shards(seed, shape.data(), bytes);
    let mut parity = vec![vec![0xEE; bytes]; shape.parity()];
    code.encode(&slices(&shards), &mut slices_mut(&mut parity)).unwrap();
    shards.append(&mut parity);
    shards
}

fn mesh_code() -> Rs8 {
    Rs8::with_kernel(Shape::MESH, Kernel::best())
}
