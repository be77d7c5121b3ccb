//! Every way to lose five of fifteen, and survivors that are not what they should be.

use proptest::prelude::*;

use super::*;
use crate::code::{Code, CodeError, CodeId, PlanCache, Progressive, ShardSet, Survivor};

/// All sets of ten of fifteen shards.
fn survivor_sets() -> impl Iterator<Item = ShardSet> {
    let sets = (0u32..1 << 15).filter(|bits| bits.count_ones() == 10);
    sets.map(|bits| (0..15).filter(|index| bits >> index & 1 == 1).collect())
}

fn complement(set: ShardSet) -> ShardSet {
    (0..15).filter(|index| !set.contains(*index)).collect()
}

fn pick(shards: &[Vec<u8>], set: ShardSet) -> Vec<&[u8]> {
    set.iter().map(|index| &*shards[index]).collect()
}

#[test]
fn every_one_of_the_3003_sets_of_survivors_gives_back_the_five_that_are_lost() {
    let (code, mut plans, mut sets) = (mesh_code(), PlanCache::new(), 0);
    let shards = stripe(&code, 11, 77);
    for have in survivor_sets() {
        let wanted = complement(have);
        let plan = plans.plan(&code, have, wanted).unwrap();
        let mut missing = vec![vec![0; 77]; 5];
        code.rebuild(&plan, &pick(&shards, have), &mut slices_mut(&mut missing)).unwrap();
        assert!(missing.iter().map(Vec::as_slice).eq(pick(&shards, wanted)), "{have:?}");
        sets += 1;
    }
    assert_eq!(sets, 3_003);
}

#[test]
fn only_the_rows_that_are_wanted_are_computed_from_only_as_many_survivors_as_are_needed() {
    let code = mesh_code();
    let shards = stripe(&code, 2, 50);
    let have = (0..15).filter(|index| *index != 3).collect();
    let plan = code.plan(have, [3].into_iter().collect()).unwrap();
    assert_eq!(plan.survivors(), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10].into_iter().collect());
    let mut missing = vec![vec![0; 50]];
    code.rebuild(&plan, &pick(&shards, plan.survivors()), &mut slices_mut(&mut missing)).unwrap();
    assert_eq!(missing[0], shards[3]);
}

#[test]
fn a_plan_is_found_once() {
    let (code, mut plans) = (mesh_code(), PlanCache::new());
    let (have, wanted) = ((1..12).collect(), [0].into_iter().collect());
    let first = plans.plan(&code, have, wanted).unwrap();
    let again = plans.plan(&code, have, wanted).unwrap();
    assert!(std::rc::Rc::ptr_eq(&first, &again));
    let other = Rs8::with_kernel(Shape::MESH, Kernel::Scalar);
    let scalar = plans.plan(&other, have, wanted).unwrap();
    assert_eq!(std::rc::Rc::ptr_eq(&first, &scalar), code.kernel() == Kernel::Scalar);
}

#[test]
fn survivors_that_arrive_in_any_order_add_up() {
    let code = mesh_code();
    let shards = stripe(&code, 4, 1_000);
    let (have, wanted) = ((3..13).collect::<ShardSet>(), complement((3..13).collect()));
    let plan = code.plan(have, wanted).unwrap();
    let mut growing = Progressive::new(&plan, 1_000);
    for index in [12, 3, 7, 7, 4, 11, 5, 10, 6, 9] {
        growing.add(index, &shards[index]).unwrap();
    }
    assert_eq!(growing.awaited(), [8].into_iter().collect());
    assert_eq!(growing.add(0, &shards[0]), Err(CodeError::NoSuchShard(0)));
    assert_eq!(growing.add(8, &shards[8][1..]), Err(CodeError::Size { given: 999, wanted: 1_000 }));
    growing.add(8, &shards[8]).unwrap();
    let missing = growing.finish().unwrap();
    assert!(missing.iter().map(Vec::as_slice).eq(pick(&shards, wanted)));
    let early = Progressive::new(&plan, 10).finish();
    assert_eq!(early, Err(CodeError::TooFew { have: 0, need: 10 }));
}

#[test]
fn a_survivor_that_no_stripe_has_is_refused() {
    let code = Code::new(CodeId::Rs8, Shape::MESH);
    let survivor = |index| Survivor { index, bytes: &[1], root: blake3::hash(&[1]) };
    for index in [15, 255, usize::MAX] {
        let survivors: Vec<_> = (0..10).chain([index]).map(survivor).collect();
        let refused = code.rebuild_verified(&mut PlanCache::new(), &survivors, ShardSet::EMPTY, &mut []);
        assert_eq!(refused, Err(CodeError::NoSuchShard(index)));
    }
}

proptest! {
    #[test]
    fn a_corrupt_survivor_is_found_before_anything_is_computed(
        wide: bool, flipped in 0usize..10, byte in 0usize..512, bit in 0u8..8, seed: u64,
    ) {
        let id = if wide { CodeId::Wide } else { CodeId::Rs8 };
        let code = Code::new(id, Shape::MESH);
        let mut shards = random_shards(seed, 10, 512);
        let mut parity = vec![vec![0; 512]; 5];
        let mut roots = vec![blake3::hash(b""); 15];
        code.encode_hashed(&slices(&shards), &mut slices_mut(&mut parity), &mut roots).unwrap();
        shards.append(&mut parity);
        let (original, lost) = (shards.clone(), [0usize, 14]);
        let flipped = flipped + 1;
        shards[flipped][byte] ^= 1 << bit;

        let survivors = |without: Option<usize>| {
            let indices = (0..15).filter(move |index| !lost.contains(index) && Some(*index) != without);
            let all = indices.map(|index| Survivor { index, bytes: &shards[index], root: roots[index] });
            all.collect::<Vec<_>>()
        };
        let mut missing = vec![vec![9; 512]; 2];
        let mut plans = PlanCache::new();
        let wanted: ShardSet = lost.into_iter().collect();
        let mut rebuild = |survivors: &[Survivor<'_>], missing: &mut Vec<Vec<u8>>| {
            code.rebuild_verified(&mut plans, survivors, wanted, &mut slices_mut(missing))
        };
        prop_assert_eq!(rebuild(&survivors(None), &mut missing), Err(CodeError::Corrupt(flipped)));
        prop_assert!(missing.iter().flatten().all(|byte| *byte == 9), "something was written");
        rebuild(&survivors(Some(flipped)), &mut missing).unwrap();
        prop_assert!(missing[0] == original[0] && missing[1] == original[14]);
    }
}
