//! Every kernel against the scalar one, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::code::{CodeError, ShardSet};

#[test]
fn the_scalar_kernel_is_always_there_and_last() {
    assert_eq!(Kernel::available().last(), Some(Kernel::Scalar));
    assert_eq!(Kernel::available().next(), Some(Kernel::best()));
}

/// Encodes from and into the middle of larger buffers, and checks that nothing around is touched.
fn encode_at(code: &Rs8, data: &[Vec<u8>], offset: usize, bytes: usize) -> Vec<Vec<u8>> {
    let data: Vec<&[u8]> = data.iter().map(|shard| &shard[offset..offset + bytes]).collect();
    let mut parity = vec![vec![0xA5; offset + bytes + 70]; code.shape().parity()];
    let mut inner: Vec<&mut [u8]> =
        parity.iter_mut().map(|shard| &mut shard[offset..offset + bytes]).collect();
    code.encode(&data, &mut inner).unwrap();
    for shard in &parity {
        let around = shard[..offset].iter().chain(&shard[offset + bytes..]);
        assert!(around.into_iter().all(|byte| *byte == 0xA5), "wrote outside of the buffer");
    }
    parity.into_iter().map(|shard| shard[offset..offset + bytes].to_vec()).collect()
}

#[test]
fn every_kernel_gives_the_same_bytes_for_every_small_size_and_alignment() {
    let data = random_shards(1, 10, 400);
    let scalar = Rs8::with_kernel(Shape::MESH, Kernel::Scalar);
    for kernel in Kernel::available() {
        let code = Rs8::with_kernel(Shape::MESH, kernel);
        for bytes in 1..=300 {
            let offset = bytes % 67;
            let expected = encode_at(&scalar, &data, offset, bytes);
            assert_eq!(encode_at(&code, &data, offset, bytes), expected, "{kernel:?}, {bytes} bytes");
        }
    }
}

proptest! {
    #[test]
    fn every_kernel_codes_every_shape_as_the_scalar_one(
        k in 1usize..60, m in 1usize..40, bytes in 1usize..6_000, seed: u64,
    ) {
        let shape = Shape::new(k, m).unwrap();
        let expected = stripe(&Rs8::with_kernel(shape, Kernel::Scalar), seed, bytes);
        for kernel in Kernel::available() {
            prop_assert!(stripe(&Rs8::with_kernel(shape, kernel), seed, bytes) == expected, "{kernel:?}");
        }
    }
}

#[test]
fn shapes_end_at_255_shards() {
    assert_eq!(Shape::new(10, 5), Some(Shape::MESH));
    for (k, m) in [(0, 5), (10, 0), (200, 56), (usize::MAX, 2)] {
        assert_eq!(Shape::new(k, m), None, "({k}, {m})");
    }
    let code = Rs8::new(Shape::new(250, 5).unwrap());
    assert_eq!(stripe(&code, 3, 65).len(), 255);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let code = mesh_code();
    let data = random_shards(1, 10, 100);
    let mut parity = vec![vec![7; 100]; 5];
    let mut encode = |data: &[&[u8]], odd: usize| {
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|shard| &mut shard[odd..]).collect();
        code.encode(data, &mut parity).unwrap_err()
    };
    assert_eq!(encode(&slices(&data)[1..], 0), CodeError::Count { given: 9, wanted: 10 });
    assert_eq!(encode(&slices(&data), 1), CodeError::Size { given: 99, wanted: 100 });
    let nothing: [&[u8]; 10] = [&[]; 10];
    assert_eq!(encode(&nothing, 100), CodeError::Size { given: 0, wanted: 1 });
    assert!(parity.iter().flatten().all(|byte| *byte == 7));
    let plan = |have, wanted| code.plan(have, wanted).unwrap_err();
    assert_eq!(plan(ShardSet::first(9), ShardSet::EMPTY), CodeError::TooFew { have: 9, need: 10 });
    assert_eq!(plan(ShardSet::first(16), ShardSet::EMPTY), CodeError::NoSuchShard(15));
    assert_eq!(plan(ShardSet::first(15), ShardSet::first(17)), CodeError::NoSuchShard(16));
}
