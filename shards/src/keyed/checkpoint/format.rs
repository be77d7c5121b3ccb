//! The records of a checkpoint: runs, and the one that ends it.
//!
//! Run:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | number of the checkpoint, rising |
//! | 8 | 4 | number of the run in it, from 0 |
//! | 12 | 1 | 1 |
//! | 13 | 1 | family |
//! | 14 | 1 | 0 for live records, 1 for marks |
//! | 15 | 1 | zero |
//! | 16 | 16 each | prefix and place of an entry, in rising order within and between runs of a tree |
//!
//! End:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | number of the checkpoint |
//! | 8 | 4 | runs before it |
//! | 12 | 1 | 2 |
//! | 16 | 8 | serial up to which every record was durable when it began |
//! | 24 | 8 | highest serial given when it began |
//! | 32 | 8 | highest serial given when it ended |
//! | 40 | 8 | hour when it began |
//! | 48 | 8 each | mark of each of the three lanes: LSN up to which the log is known from here |
//! | 72 | 8 each | hour that dues count from, of each tree: live and marks of each family |
//! | 120 | 8 each | entries of each tree |
//! | 168 | 4 | number of segments below |
//! | 172 | 4 | number of shadows below |
//! | 176 | 16 each | class (1 byte), zeros (3), segment (4), incarnation (8): what entries may point into |
//! | | 17 each | family (1), prefix (8), hour (8) of a shadow |

use hashbrown::HashSet;

use crate::format::field::{put, u32_at, u64_at};
use crate::format::{Incarnation, Lsn};
use crate::index::{Entry, Place, Prefix};
use crate::io::SegmentId;
use crate::keyed::family::Tree;
use crate::keyed::{Class, Family};

/// Bytes before the entries of a run.
pub const RUN_HEAD_BYTES: usize = 16;
/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 16;
const END_HEAD_BYTES: usize = 176;
const SEGMENT_BYTES: usize = 16;
const SHADOW_BYTES: usize = 17;
const RUN: u8 = 1;
const END: u8 = 2;
/// Trees of a partition.
pub const TREES: usize = Family::ALL.len() * Tree::ALL.len();

/// A segment in one of its uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Use {
    pub class: Class,
    pub segment: SegmentId,
    pub incarnation: Incarnation,
}

/// What ends a checkpoint and says what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    pub number: u64,
    pub runs: u32,
    /// Every record up to this serial was durable when it began.
    pub settled_serial: u64,
    /// Highest serial given when it began.
    pub begun_serial: u64,
    /// Highest serial given when it ended.
    pub last_serial: u64,
    pub hour: u64,
    pub marks: [Lsn; Class::ALL.len()],
    pub origins: [u64; TREES],
    pub counts: [u64; TREES],
    /// The segments that held records when it began.
    pub uses: Vec<Use>,
    pub shadows: Vec<(Family, Prefix, u64)>,
}

/// A record of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Run { number: u64, run: u32, tree: usize, entries: &'a [u8] },
    End(End),
}

/// The trees in the order in which they are written.
pub fn trees() -> impl Iterator<Item = (Family, Tree)> {
    Family::ALL.into_iter().flat_map(|family| Tree::ALL.map(|tree| (family, tree)))
}

/// What stands before the entries of a run.
pub fn run_head(number: u64, run: u32, tree: usize) -> [u8; RUN_HEAD_BYTES] {
    let mut head = [0; RUN_HEAD_BYTES];
    put(&mut head, 0, &number.to_le_bytes());
    put(&mut head, 8, &run.to_le_bytes());
    let family = Family::ALL[tree / Tree::ALL.len()] as u8;
    put(&mut head, 12, &[RUN, family, (tree % Tree::ALL.len()) as u8, 0]);
    head
}

/// Adds an entry to a run.
pub fn push_entry(out: &mut Vec<u8>, entry: Entry) {
    out.extend_from_slice(&entry.prefix.0.to_le_bytes());
    out.extend_from_slice(&entry.place.0.to_le_bytes());
}

/// The entries of a run.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = Entry> {
    bytes
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| Entry { prefix: Prefix(u64_at(entry, 0)), place: Place(u64_at(entry, 8)) })
}

impl End {
    /// Class, segment and incarnation of each use.
    pub fn uses_by_class(&self) -> HashSet<(Class, SegmentId, u64)> {
        self.uses.iter().map(|it| (it.class, it.segment, it.incarnation.0)).collect()
    }

    /// The payload of its record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; END_HEAD_BYTES];
        put(&mut out, 0, &self.number.to_le_bytes());
        put(&mut out, 8, &self.runs.to_le_bytes());
        put(&mut out, 12, &[END]);
        let numbers = [self.settled_serial, self.begun_serial, self.last_serial, self.hour].into_iter();
        let numbers = numbers.chain(self.marks.map(|mark| mark.0)).chain(self.origins).chain(self.counts);
        numbers.enumerate().for_each(|(at, number)| put(&mut out, 16 + 8 * at, &number.to_le_bytes()));
        put(&mut out, 168, &(self.uses.len() as u32).to_le_bytes());
        put(&mut out, 172, &(self.shadows.len() as u32).to_le_bytes());
        for Use { class, segment, incarnation } in &self.uses {
            out.extend_from_slice(&[*class as u8, 0, 0, 0]);
            out.extend_from_slice(&segment.0.to_le_bytes());
            out.extend_from_slice(&incarnation.0.to_le_bytes());
        }
        for (family, prefix, hour) in &self.shadows {
            out.push(*family as u8);
            out.extend_from_slice(&prefix.0.to_le_bytes());
            out.extend_from_slice(&hour.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(END_HEAD_BYTES)?;
        let (uses, shadows) = (u32_at(head, 168) as usize, u32_at(head, 172) as usize);
        let (uses, shadows) =
            rest.split_at_checked(uses.checked_mul(SEGMENT_BYTES)?).zip(Some(shadows)).and_then(
                |((uses, rest), shadows)| Some((uses, rest.get(..shadows.checked_mul(SHADOW_BYTES)?)?)),
            )?;
        let number_at = |at: usize| u64_at(head, 16 + 8 * at);
        Some(Self {
            number: u64_at(head, 0),
            runs: u32_at(head, 8),
            settled_serial: number_at(0),
            begun_serial: number_at(1),
            last_serial: number_at(2),
            hour: number_at(3),
            marks: std::array::from_fn(|at| Lsn(number_at(4 + at))),
            origins: std::array::from_fn(|at| number_at(7 + at)),
            counts: std::array::from_fn(|at| number_at(7 + TREES + at)),
            uses: uses.chunks_exact(SEGMENT_BYTES).map(decode_use).collect::<Option<_>>()?,
            shadows: shadows.chunks_exact(SHADOW_BYTES).map(decode_shadow).collect::<Option<_>>()?,
        })
    }
}

fn decode_use(bytes: &[u8]) -> Option<Use> {
    let class = *Class::ALL.get(usize::from(bytes[0]))?;
    Some(Use { class, segment: SegmentId(u32_at(bytes, 4)), incarnation: Incarnation(u64_at(bytes, 8)) })
}

fn decode_shadow(bytes: &[u8]) -> Option<(Family, Prefix, u64)> {
    Some((Family::from_byte(bytes[0])?, Prefix(u64_at(bytes, 1)), u64_at(bytes, 9)))
}

impl<'a> Part<'a> {
    /// Takes the payload of a record apart; `None` if it is none of a checkpoint.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let head: &[u8; RUN_HEAD_BYTES] = payload.first_chunk()?;
        match head[12] {
            RUN => {
                let entries = &payload[RUN_HEAD_BYTES..];
                let tree = Family::from_byte(head[13])?.at() * Tree::ALL.len() + usize::from(head[14]);
                let fits = head[14] < Tree::ALL.len() as u8 && entries.len().is_multiple_of(ENTRY_BYTES);
                fits.then_some(Self::Run { number: u64_at(head, 0), run: u32_at(head, 8), tree, entries })
            }
            END => End::decode(payload).map(Self::End),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end() -> End {
        let one = Use { class: Class::Days, segment: SegmentId(7), incarnation: Incarnation(70) };
        End {
            number: 1,
            runs: 2,
            settled_serial: 3,
            begun_serial: 2,
            last_serial: 4,
            hour: 5,
            marks: [6, 7, 8].map(Lsn),
            origins: [9, 10, 11, 12, 13, 14],
            counts: [15, 16, 17, 18, 19, 20],
            uses: vec![one, Use { class: Class::Years, ..one }],
            shadows: vec![(Family::Shard, Prefix(21), 22)],
        }
    }

    #[test]
    fn what_was_written_is_read_and_the_layout_is_what_it_was() {
        let mut run = run_head(1, 9, 3).to_vec();
        let entry = Entry { prefix: Prefix(5), place: Place(6) };
        push_entry(&mut run, entry);
        let Some(Part::Run { number: 1, run: 9, tree: 3, entries: bytes }) = Part::parse(&run) else {
            panic!("{:?}", Part::parse(&run))
        };
        assert!(entries(bytes).eq([entry]));
        assert_eq!(Part::parse(&end().encode()), Some(Part::End(end())));
        let digest = blake3::hash(&[run, end().encode()].concat()).to_hex();
        assert_eq!(digest.as_str(), "020fa639389e475bbb0ce8dac1cda5d29ae39ab32ce5fde083ed9fb8749dcefd");
    }

    #[test]
    fn what_claims_more_than_there_is_is_refused() {
        let mut bytes = end().encode();
        for cut in 0..bytes.len() {
            assert_eq!(Part::parse(&bytes[..cut]), None, "{cut} bytes");
        }
        bytes[168..172].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Part::parse(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..4u8,
        ) {
            if let Some(at) = bytes.get_mut(12) {
                *at = kind;
            }
            let _ = Part::parse(&bytes);
        }
    }
}
