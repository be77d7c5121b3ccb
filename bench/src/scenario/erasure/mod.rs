//! The erasure code on one core: encoding, rebuilding, and both codes at different widths. ISA-L computes the
//! same bytes with the same coefficients in the same run, which is checked; `reed-solomon-simd` is code id 2.

mod isal;

use std::time::{Duration, Instant};

use shards::AlignedBuf;
use shards::code::{Code, CodeId, Rs8, Shape, ShardSet};

use self::isal::IsaL;
use super::Effort;
use crate::error::{BenchError, Result};
use crate::report::{Row, Stat, Target};
use crate::server::Bench;

const NAME: &str = "erasure-code";
/// Sizes of shards, in bytes.
const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Up to this size the caches hold a stripe, and the target is higher.
const SMALL_MAX: usize = 64 << 10;
/// Widths at which both codes are compared: data and parity shards.
const WIDTHS: [(usize, usize); 6] = [(10, 5), (16, 8), (32, 16), (64, 32), (128, 64), (170, 85)];

/// Runs the scenario.
pub fn run(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let isal = find_isal(effort, say);
    let timer = Timer::of(effort);
    bench.processors.on(&[bench.processors.server], || {
        let code = Rs8::new(Shape::MESH);
        say(&format!("{NAME}: kernel {:?}", code.kernel()));
        let mut rows = Vec::new();
        for bytes in SIZES {
            say(&format!("{NAME}: shards of {}", size(bytes)));
            rows.extend(encode_rows(&timer, &code, isal.as_ref(), bytes)?);
            for lost in [1, 5] {
                rows.extend(rebuild_rows(&timer, &code, isal.as_ref(), bytes, lost)?);
            }
            rows.extend(hash_row(&timer, bytes)?);
        }
        for (data, parity) in WIDTHS {
            say(&format!("{NAME}: {data} and {parity} shards"));
            rows.extend(width_row(&timer, data, parity)?);
        }
        Ok(rows)
    })
}

/// The rows of encoding alone, one for each size of shards in bytes.
pub fn encode(bench: &Bench, effort: &Effort, say: &dyn Fn(&str)) -> Result<Vec<(usize, Row)>> {
    let isal = find_isal(effort, say);
    let timer = Timer::of(effort);
    bench.processors.on(&[bench.processors.server], || {
        let code = Rs8::new(Shape::MESH);
        let row = |bytes| Ok(encode_rows(&timer, &code, isal.as_ref(), bytes)?.map(|row| (bytes, row)));
        SIZES.into_iter().filter_map(|bytes| row(bytes).transpose()).collect()
    })
}

/// The yardstick, if it is wanted and there.
fn find_isal(effort: &Effort, say: &dyn Fn(&str)) -> Option<IsaL> {
    let isal = effort.peers.then(IsaL::load)?;
    isal.inspect_err(|error| say(&error.to_string())).ok()
}

/// How often and how long to repeat a piece of work.
struct Timer {
    runs: usize,
    each: Duration,
}

impl Timer {
    fn of(effort: &Effort) -> Self {
        Self { runs: effort.runs, each: effort.measured / 20 }
    }

    /// Gigabytes per second of works that are timed in turns; each call of one does `bytes`.
    fn rates<const N: usize>(&self, bytes: usize, mut works: [&mut dyn FnMut(); N]) -> [Option<Stat>; N] {
        let mut rates = [const { Vec::new() }; N];
        works.iter_mut().for_each(|work| work());
        for _ in 0..self.runs {
            for (work, rates) in works.iter_mut().zip(&mut rates) {
                let (started, mut calls) = (Instant::now(), 0u64);
                while started.elapsed() < self.each {
                    (0..8).for_each(|_| work());
                    calls += 8;
                }
                rates.push(calls as f64 * bytes as f64 / started.elapsed().as_secs_f64() / 1e9);
            }
        }
        rates.map(Stat::of)
    }
}

/// A stripe in buffers of whole pages, as a node holds it.
struct Stripe {
    shards: Vec<AlignedBuf>,
    bytes: usize,
}

impl Stripe {
    fn new(code: &Rs8, bytes: usize) -> Result<Self> {
        let shape = code.shape();
        let mut shards: Vec<AlignedBuf> = (0..shape.shards()).map(|_| AlignedBuf::zeroed(bytes)).collect();
        let (data, parity) = shards.split_at_mut(shape.data());
        for (number, shard) in data.iter_mut().enumerate() {
            let mut state = number as u32 + 1;
            for byte in shard.iter_mut() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
        }
        let data: Vec<&[u8]> = data.iter().map(|shard| &shard[..]).collect();
        code.encode(&data, &mut slices_mut(parity)).map_err(failed)?;
        Ok(Self { shards, bytes })
    }

    fn pick(&self, set: ShardSet) -> Vec<&[u8]> {
        set.iter().map(|index| &self.shards[index][..]).collect()
    }

    fn buffers(&self, count: usize) -> Vec<AlignedBuf> {
        (0..count).map(|_| AlignedBuf::zeroed(self.bytes)).collect()
    }
}

fn slices_mut(buffers: &mut [AlignedBuf]) -> Vec<&mut [u8]> {
    buffers.iter_mut().map(|buffer| &mut buffer[..]).collect()
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Peer { peer: "the erasure code", what: error.to_string() }
}

fn size(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// Checks that ISA-L computes what we compute, then times both.
fn against_isal(
    timer: &Timer,
    isal: Option<&IsaL>,
    stripe: &Stripe,
    inputs: &[&[u8]],
    wanted: ShardSet,
    coefficient: impl Fn(usize, usize) -> u8,
    mut ours: impl FnMut(&mut [&mut [u8]]) -> Result<()>,
) -> Result<[Option<Stat>; 2]> {
    let bytes = stripe.bytes * inputs.len();
    let (mut out, mut isal_out) = (stripe.buffers(wanted.len()), stripe.buffers(wanted.len()));
    let (mut out, mut isal_out) = (slices_mut(&mut out), slices_mut(&mut isal_out));
    ours(&mut out)?;
    if !out.iter().map(|shard| &**shard).eq(stripe.pick(wanted)) {
        return Err(failed("a shard that was computed is not the one that was lost"));
    }
    let mut work = || ours(&mut out).unwrap_or_else(|error| panic!("coded before: {error}"));
    let Some(isal) = isal else {
        let [ours] = timer.rates(bytes, [&mut work]);
        return Ok([ours, None]);
    };
    let row = |row| (0..inputs.len()).map(|column| coefficient(row, column)).collect();
    let tables = isal.tables(&(0..wanted.len()).map(row).collect::<Vec<Vec<u8>>>())?;
    tables.combine(inputs, &mut isal_out);
    if !isal_out.iter().map(|shard| &**shard).eq(stripe.pick(wanted)) {
        return Err(failed("ISA-L computes other bytes"));
    }
    Ok(timer.rates(bytes, [&mut work, &mut || tables.combine(inputs, &mut isal_out)]))
}

fn encode_rows(timer: &Timer, code: &Rs8, isal: Option<&IsaL>, bytes: usize) -> Result<Option<Row>> {
    let stripe = Stripe::new(code, bytes)?;
    let shape = code.shape();
    let inputs = stripe.pick(ShardSet::first(shape.data()));
    let parity: ShardSet = (shape.data()..shape.shards()).collect();
    let coefficient = |row, column| code.coefficient(row, column);
    let ours = |out: &mut [&mut [u8]]| code.encode(&inputs, out).map_err(failed);
    let [ours, theirs] = against_isal(timer, isal, &stripe, &inputs, parity, coefficient, ours)?;
    let target = Target::AtLeastTimes(if bytes <= SMALL_MAX { 2.0 } else { 1.3 });
    let peer = theirs.map(|stat| ("isa-l", stat));
    let work = format!("(10,5), shards of {}", size(bytes));
    Ok(Row::new(NAME, work, "encode, source data", "GB/s", ours, peer, target))
}

/// Loses the first `lost` data shards.
fn rebuild_rows(
    timer: &Timer,
    code: &Rs8,
    isal: Option<&IsaL>,
    bytes: usize,
    lost: usize,
) -> Result<Vec<Row>> {
    let stripe = Stripe::new(code, bytes)?;
    let wanted = ShardSet::first(lost);
    let plan = code.plan((lost..code.shape().shards()).collect(), wanted).map_err(failed)?;
    let inputs = stripe.pick(plan.survivors());
    let coefficient = |row, column| plan.coefficient(row, column);
    let ours = |out: &mut [&mut [u8]]| code.rebuild(&plan, &inputs, out).map_err(failed);
    let [ours, theirs] = against_isal(timer, isal, &stripe, &inputs, wanted, coefficient, ours)?;
    let times = if lost == 1 { 2.0 } else { 1.5 };
    let work = format!("(10,5), shards of {}", size(bytes));
    let measure = format!("rebuild {lost}, survivors read");
    let peer = theirs.map(|stat| ("isa-l", stat));
    let row = Row::new(NAME, work.clone(), measure.clone(), "GB/s", ours, peer, Target::AtLeastTimes(times));
    let fft = rebuild_wide(timer, code.shape(), bytes, lost)?;
    let fft = fft.map(|stat| ("reed-solomon-simd", stat));
    let fft = Row::new(NAME, work, measure, "GB/s", ours, fft, Target::AtLeastTimes(15.0));
    Ok(row.into_iter().chain(fft).collect())
}

/// The same loss with code id 2, which has its own parities.
fn rebuild_wide(timer: &Timer, shape: Shape, bytes: usize, lost: usize) -> Result<Option<Stat>> {
    let code = Code::new(CodeId::Wide, shape);
    let Code::Wide(wide) = &code else { return Ok(None) };
    let mut stripe = Stripe::new(&Rs8::new(shape), bytes)?;
    let mut parity = stripe.shards.split_off(shape.data());
    let data: Vec<&[u8]> = stripe.shards.iter().map(|shard| &shard[..]).collect();
    code.encode(&data, &mut slices_mut(&mut parity)).map_err(failed)?;
    stripe.shards.append(&mut parity);
    let have: ShardSet = (lost..lost + shape.data()).collect();
    let (inputs, mut out) = (stripe.pick(have), stripe.buffers(lost));
    let mut out = slices_mut(&mut out);
    let mut work = || {
        let done = wide.rebuild(have, &inputs, ShardSet::first(lost), &mut out);
        done.unwrap_or_else(|error| panic!("a stripe that was just encoded: {error}"));
    };
    let [rate] = timer.rates(bytes * shape.data(), [&mut work]);
    Ok(rate)
}

/// Encoding and hashing in one pass against hashing alone.
fn hash_row(timer: &Timer, bytes: usize) -> Result<Option<Row>> {
    let code = Rs8::new(Shape::MESH);
    let stripe = Stripe::new(&code, bytes)?;
    let all = stripe.pick(ShardSet::first(15));
    let (inputs, mut out) = (&all[..10], stripe.buffers(5));
    let mut out = slices_mut(&mut out);
    let mut roots = [blake3::hash(b""); 15];
    let mut fused = || {
        let done = code.encode_hashed(inputs, &mut out, &mut roots);
        done.unwrap_or_else(|error| panic!("a stripe of the right shape: {error}"));
    };
    let mut alone = [blake3::hash(b""); 15];
    let mut hash_alone = || {
        all.iter()
            .zip(&mut alone)
            .for_each(|(shard, root)| *root = blake3::hash(std::hint::black_box(shard)));
    };
    let [fused, hashed] = timer.rates(bytes * 15, [&mut fused, &mut hash_alone]);
    let us = |stat: Stat| {
        let us = |rate: f64| bytes as f64 * 15.0 / rate / 1e3;
        Stat { median: us(stat.median), min: us(stat.max), max: us(stat.min), runs: stat.runs }
    };
    let peer = hashed.map(|stat| ("blake3 alone", us(stat)));
    let work = format!("(10,5), shards of {}", size(bytes));
    Ok(Row::new(NAME, work, "encode and hash", "us", fused.map(us), peer, Target::AtMostTimes(1.2)))
}

/// Both codes at one width.
fn width_row(timer: &Timer, data: usize, parity: usize) -> Result<Option<Row>> {
    const BYTES: usize = 64 << 10;
    let shape = Shape::new(data, parity).ok_or_else(|| failed("no such shape"))?;
    let (first, second) = (Rs8::new(shape), Code::new(CodeId::Wide, shape));
    let stripe = Stripe::new(&first, BYTES)?;
    let inputs = stripe.pick(ShardSet::first(data));
    let (mut a, mut b) = (stripe.buffers(parity), stripe.buffers(parity));
    let (mut a, mut b) = (slices_mut(&mut a), slices_mut(&mut b));
    let ok =
        |done: std::result::Result<(), _>| done.unwrap_or_else(|error| panic!("the shape fits: {error}"));
    let mut by_first = || ok(first.encode(&inputs, &mut a));
    let mut by_second = || ok(second.encode(&inputs, &mut b));
    let [one, two] = timer.rates(BYTES * data, [&mut by_first, &mut by_second]);
    let work = format!("({data},{parity}), shards of 64 KiB");
    let peer = two.map(|stat| ("code id 2", stat));
    Ok(Row::new(NAME, work, "encode, code id 1", "GB/s", one, peer, Target::None))
}
