//! The codes against those of others, and what others publish.

use reed_solomon_erasure::galois_8::ReedSolomon;

use super::*;
use crate::code::{Code, CodeError, CodeId, ShardSet, Wide};

#[test]
fn the_parity_is_that_of_reed_solomon_erasure_for_many_shapes() {
    for (k, m) in [(1, 1), (2, 1), (3, 7), (10, 4), (10, 5), (16, 16), (17, 3), (40, 20), (200, 55)] {
        let code = Rs8::new(Shape::new(k, m).unwrap());
        for bytes in [1, 63, 64, 1_000] {
            let ours = stripe(&code, 7, bytes);
            let mut theirs = ours.clone();
            theirs[k..].iter_mut().for_each(|shard| shard.fill(0));
            ReedSolomon::new(k, m).unwrap().encode(&mut theirs).unwrap();
            assert!(ours == theirs, "({k}, {m}), {bytes} bytes");
        }
    }
}

#[test]
fn the_example_that_others_publish_comes_out() {
    let shape = Shape::MESH;
    let object: Vec<u8> = (1..=23).collect();
    let bytes = shape.shard_bytes(object.len());
    assert_eq!(bytes, 3);
    let mut padded = object;
    padded.resize(bytes * shape.data(), 0);
    let data: Vec<&[u8]> = padded.chunks(bytes).collect();
    for kernel in Kernel::available() {
        let mut parity = vec![vec![0; bytes]; 5];
        Rs8::with_kernel(shape, kernel).encode(&data, &mut slices_mut(&mut parity)).unwrap();
        let expected = [
            [0xDA, 0x96, 0xE9],
            [0xAF, 0x5F, 0x59],
            [0x00, 0xF1, 0x88],
            [0xD6, 0x40, 0xF7],
            [0x2A, 0xEB, 0x05],
        ];
        assert_eq!(parity, expected, "{kernel:?}");
    }
}

#[test]
fn coding_with_hashing_gives_the_parity_and_the_roots_of_both_done_apart() {
    for id in [CodeId::Rs8, CodeId::Wide] {
        let code = Code::new(id, Shape::MESH);
        for bytes in [2, 1_024, 16_384, 16_386, 100_000] {
            let data = random_shards(bytes as u64, 10, bytes);
            let (mut apart, mut fused) = (vec![vec![0; bytes]; 5], vec![vec![1; bytes]; 5]);
            code.encode(&slices(&data), &mut slices_mut(&mut apart)).unwrap();
            let mut roots = vec![blake3::hash(b""); 15];
            code.encode_hashed(&slices(&data), &mut slices_mut(&mut fused), &mut roots).unwrap();
            assert!(fused == apart, "{id:?}, {bytes} bytes");
            let expected: Vec<_> = data.iter().chain(&apart).map(|shard| blake3::hash(shard)).collect();
            assert_eq!(roots, expected, "{id:?}, {bytes} bytes");
        }
    }
}

#[test]
fn the_wide_code_gives_back_whatever_is_missing() {
    let shape = Shape::new(40, 20).unwrap();
    let code = Wide::new(shape);
    let mut all = random_shards(5, 40, 130);
    let mut parity = vec![vec![0; 130]; 20];
    code.encode(&slices(&all), &mut slices_mut(&mut parity)).unwrap();
    all.append(&mut parity);
    let odd = code.encode(&slices(&random_shards(1, 40, 7)), &mut slices_mut(&mut vec![vec![0; 7]; 20]));
    assert_eq!(odd, Err(CodeError::OddSize { bytes: 7 }));
    let lost: ShardSet = (0..60).filter(|index| index % 3 == 1).collect();
    let have: ShardSet = (0..60).filter(|index| index % 3 != 1).collect();
    let survivors: Vec<&[u8]> = have.iter().map(|index| &*all[index]).collect();
    let mut missing = vec![vec![0; 130]; lost.len()];
    code.rebuild(have, &survivors, lost, &mut slices_mut(&mut missing)).unwrap();
    assert!(lost.iter().zip(&missing).all(|(index, shard)| all[index] == *shard));
}
