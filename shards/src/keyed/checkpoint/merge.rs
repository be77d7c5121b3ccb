//! Putting together what the checkpoint says and what the log says after it.
//!
//! The records of the log are put in groups of one identity, in the order of their serials, and the last word
//! counts: a record replaces what came before, a tombstone takes it away, a lease lengthens the life of the
//! record that it names. The last word is kept, at least as a tombstone, for as long as anything of its
//! identity would live that is still on disk, also what was refused and is there nevertheless: so what it
//! overrules never outlives it.
//!
//! An entry of the checkpoint has no serial and only the front of its key. Whether it belongs to a group is
//! known from the group's *birth*: if something of the identity was durable when the checkpoint began, it is
//! in the checkpoint. One entry and one such group of a prefix belong together. Its serial is not above what
//! was settled when the checkpoint began, and what the log after that holds of no higher serial is a copy, or
//! was refused: so it comes after those, and before what is higher. Where several entries or groups begin
//! alike, or something was under way just then, the heads of the records on disk say.
//!
//! Left out of the checkpoint are entries into segments that were opened after it began, entries whose record
//! is in the log after it as well, and, in the end, what has expired.

use hashbrown::{HashMap, HashSet};

use crate::buffer::AlignedBuf;
use crate::format::record::{Kind, RECORD_HEADER_BYTES};
use crate::index::{Due, Entry, Place, Prefix};
use crate::io::{BLOCK_BYTES, SegmentId, Volume};
use crate::keyed::checkpoint::format::{End, TREES, trees};
use crate::keyed::checkpoint::load::Loaded;
use crate::keyed::family::Tree;
use crate::keyed::payload::{HEAD_BYTES, Head};
use crate::keyed::place::{is_same, unpack};
use crate::keyed::read::HEAD_BUFFER_BYTES;
use crate::keyed::{Class, Family, Identity, KeyedConfig, hour_of};
use crate::lane::{Lane, RecordLoc};

/// A record, as much as is needed to put those of one identity in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub family: Family,
    pub prefix: Prefix,
    /// A keyed hash of the whole identity.
    pub tag: u64,
    /// 0 for an entry of the checkpoint.
    pub serial: u64,
    pub birth: u64,
    pub kind: Kind,
    /// Of a lease: serial of the record that it extends.
    pub extends: u64,
    /// Hour from which it is gone.
    pub hour: u64,
    /// Without its due time.
    pub place: Place,
}

/// What the index is made of.
#[derive(Debug, Default)]
pub struct Merged {
    /// Entries of each tree, in rising order.
    pub entries: [Vec<Entry>; TREES],
    pub shadows: HashMap<(Family, Prefix), u64>,
}

/// What merging needs.
pub struct Merge<'m> {
    pub volume: &'m dyn Volume,
    pub config: &'m KeyedConfig,
    pub lanes: &'m [Lane; Class::ALL.len()],
    pub hour: u64,
}

/// A keyed hash of an identity. Without the secret nobody can make two that are taken for one.
pub fn tag(config: &KeyedConfig, identity: &Identity) -> u64 {
    let mut bytes = [0; 33];
    bytes[..32].copy_from_slice(&identity.key);
    bytes[32] = identity.index;
    let hash = blake3::keyed_hash(&config.mixing_secret, &bytes);
    crate::format::field::u64_at(hash.as_bytes(), 0)
}

/// Entries of a checkpoint that begin alike.
type Alike = Vec<(usize, Entry)>;

impl Merge<'_> {
    /// Puts together a checkpoint, if there is one, and the records of the log after it.
    pub fn run(&self, loaded: Option<Loaded>, mut seen: Vec<Seen>) -> Merged {
        seen.sort_unstable();
        let Loaded { end, entries: mut known } = loaded.unwrap_or_default();
        let mut merged = Merged::default();
        let shadows = end.shadows.iter().filter(|(.., until)| *until > self.hour);
        merged.shadows.extend(shadows.map(|(family, prefix, until)| ((*family, *prefix), *until)));
        self.leave_out_reused_segments(&end.uses_by_class(), &mut known);
        let mut replaced: HashSet<(usize, Entry)> = HashSet::new();
        for alike in seen.chunk_by(|a, b| (a.family, a.prefix) == (b.family, b.prefix)) {
            let mut of_checkpoint = self.alike(&known, alike[0].family, alike[0].prefix);
            let is_seen = |entry: &Entry| alike.iter().any(|seen| is_same(seen.place, entry.place));
            replaced.extend(of_checkpoint.extract_if(.., |(_, entry)| is_seen(entry)));
            let groups: Vec<&[Seen]> = alike.chunk_by(|a, b| a.tag == b.tag).collect();
            let owned = self.owned(&groups, of_checkpoint, &end);
            replaced.extend(owned.iter().filter(|it| it.group.is_some()).map(|it| (it.tree, it.entry)));
            for (at, group) in groups.into_iter().enumerate() {
                let own = owned.iter().filter(|it| it.group == Some(at));
                let known = own.map(|it| self.seen_of(group[0], it, &end)).collect();
                self.take(LastWord::of(group, known, end.settled_serial), &mut merged);
            }
        }
        for (tree, known) in known.into_iter().enumerate() {
            let words = &mut merged.entries[tree];
            let stays = |entry: &Entry| {
                !replaced.contains(&(tree, *entry)) && !self.is_expired(entry, end.origins[tree])
            };
            words.extend(known.into_iter().filter(stays));
            // Two sorted runs, up to the order of places of one prefix.
            words.sort();
        }
        merged
    }

    /// Adds what is kept of an identity.
    fn take(&self, word: LastWord, merged: &mut Merged) {
        for (tree, seen, gone_from) in word.alive_at(self.hour) {
            let place = seen.place.with_due(Due::of_hour(gone_from, self.hour));
            let entry = Entry { prefix: seen.prefix, place };
            merged.entries[seen.family.at() * Tree::ALL.len() + tree as usize].push(entry);
        }
        if let Some(live) = word.live.filter(|live| live.hour > self.hour && live.hour < word.until) {
            let until = merged.shadows.entry((live.family, live.prefix)).or_default();
            *until = word.until.max(*until);
        }
    }

    /// Takes out of a checkpoint what points into a segment that was opened after it began. What lived there
    /// is in the log.
    fn leave_out_reused_segments(
        &self,
        uses: &HashSet<(Class, SegmentId, u64)>,
        known: &mut [Vec<Entry>; TREES],
    ) {
        let now = Class::ALL.into_iter().flat_map(|class| {
            let uses = self.lanes[class as usize].uses();
            uses.map(move |(segment, incarnation)| (class, segment, incarnation.0))
        });
        let same: HashSet<(Class, SegmentId)> =
            now.filter(|it| uses.contains(it)).map(|(class, segment, _)| (class, segment)).collect();
        for entries in known {
            entries.retain(|entry| {
                let (class, loc) = unpack(entry.place);
                same.contains(&(class, loc.segment))
            });
        }
    }

    fn is_expired(&self, entry: &Entry, origin: u64) -> bool {
        entry.place.due().hour(origin).is_some_and(|hour| hour <= self.hour)
    }

    fn alike(&self, known: &[Vec<Entry>; TREES], family: Family, prefix: Prefix) -> Alike {
        let mut alike = Alike::new();
        for (number, _) in trees().enumerate().filter(|(_, (of, _))| *of == family) {
            let entries = &known[number];
            let first = entries.partition_point(|entry| entry.prefix < prefix);
            let same = entries[first..].iter().take_while(|entry| entry.prefix == prefix);
            alike.extend(same.map(|entry| (number, *entry)));
        }
        alike
    }

    /// For each entry, to which of the groups it belongs.
    fn owned(&self, groups: &[&[Seen]], entries: Alike, end: &End) -> Vec<Owned> {
        let is_old = |group: &&[Seen]| group.iter().any(|seen| seen.birth <= end.begun_serial);
        let mut old = groups.iter().enumerate().filter(|(_, group)| is_old(group));
        let only = match (&entries[..], old.next(), old.next()) {
            (_, None, _) => return Vec::new(),
            ([(tree, _)], Some((at, group)), None) if is_live(*tree) && end.is_settled(group) => Some(at),
            _ => None,
        };
        let owned = entries.into_iter().map(|(tree, entry)| match only {
            Some(_) => Owned { group: only, head: None, tree, entry },
            None => {
                let head = self.head_of(entry);
                let tag = head.map(|head| tag(self.config, &head.identity));
                let group = groups.iter().position(|group| Some(group[0].tag) == tag);
                Owned { group, head, tree, entry }
            }
        });
        owned.collect()
    }

    /// The head of a record, from disk; `None` if it cannot be read or is another's.
    fn head_of(&self, entry: Entry) -> Option<Head> {
        let (class, loc) = unpack(entry.place);
        let loc = RecordLoc { len: (RECORD_HEADER_BYTES + HEAD_BYTES) as u32, ..loc };
        let mut buf = AlignedBuf::zeroed(HEAD_BUFFER_BYTES);
        let (lane, span) = (class.lane(self.config.partition), loc.span_bytes());
        let read = self.volume.read_at(lane, loc.segment, loc.first_block(), &mut buf[..span]).ok()?;
        let head = Head::of_record(buf[..read].get(loc.offset as usize % BLOCK_BYTES..)?)?;
        (head.prefix() == entry.prefix).then_some(head)
    }

    /// An entry of the checkpoint as a record of the group that it belongs to.
    fn seen_of(&self, like: Seen, owned: &Owned, end: &End) -> Seen {
        let Owned { head, tree, entry, .. } = *owned;
        // Marks are always read. An expired record may be kept as a tombstone.
        let kind = match head.map(|head| head.kind) {
            Some(Kind::Lease) => Kind::Lease,
            _ if is_live(tree) => like.family.kind(),
            _ => Kind::Tombstone,
        };
        let due = entry.place.due().hour(end.origins[tree]);
        let (serial, birth, extends) =
            head.map_or((end.settled_serial, 0, 0), |head| (head.serial, head.birth, head.extends()));
        let (hour, place) = (due.unwrap_or(hour_of(u32::MAX)), entry.place.with_due(Due::LATER));
        Seen { serial, birth, kind, extends, hour, place, ..like }
    }
}

impl End {
    /// True if nothing of a group was under way, and nothing of it came to be, while the checkpoint began.
    fn is_settled(&self, group: &[Seen]) -> bool {
        let just_then = self.settled_serial + 1..=self.begun_serial;
        group.iter().all(|seen| !just_then.contains(&seen.birth) && !just_then.contains(&seen.serial))
    }
}

fn is_live(tree: usize) -> bool {
    tree.is_multiple_of(Tree::ALL.len())
}

/// An entry of the checkpoint that begins like records of the log.
struct Owned {
    /// The group that it belongs to.
    group: Option<usize>,
    /// If it had to be read.
    head: Option<Head>,
    tree: usize,
    entry: Entry,
}

/// What counts of one identity.
#[derive(Clone, Copy, Default)]
struct LastWord {
    /// With the hour that the lease gives it.
    live: Option<Seen>,
    lease: Option<Seen>,
    tombstone: Option<Seen>,
    /// Hour from which all is gone that the log after the checkpoint holds of this identity.
    until: u64,
}

impl LastWord {
    /// Of the records of a group and of what the checkpoint knew of its identity. Its serials are right if
    /// they were read, and otherwise `settled`, which puts them after what is older.
    fn of(group: &[Seen], known: Vec<Seen>, settled: u64) -> Self {
        let until = group.iter().map(|seen| seen.hour).max().unwrap_or(0);
        let mut all = known.clone();
        all.extend_from_slice(group);
        // Of one serial, what the checkpoint says comes last, but for a lease, which lengthens it.
        let rank = |seen: &Seen| (seen.serial, known.contains(seen), seen.kind == Kind::Lease);
        all.sort_by_key(rank);
        let word = all.iter().fold(Self { until, ..Self::default() }, |word, seen| match seen.kind {
            Kind::Lease => word.extended(&all, *seen),
            Kind::Tombstone => Self { tombstone: Some(*seen), live: None, lease: None, ..word },
            _ => Self { live: Some(*seen), tombstone: None, lease: None, ..word },
        });
        word.with_copied_lease(&all, settled)
    }

    /// A lease says, too, which record counted when it was taken: what stands between the two was refused and
    /// is on disk nevertheless. A record of the checkpoint whose serial is not known is the one that is meant
    /// if no other is.
    fn extended(self, all: &[Seen], lease: Seen) -> Self {
        let is_it = |seen: &&Seen| Tree::of(seen.kind) == Tree::Live && seen.serial == lease.extends;
        let is_unknown =
            |seen: &&Seen| Tree::of(seen.kind) == Tree::Live && seen.birth == 0 && seen.serial < lease.serial;
        match all.iter().rfind(is_it).or_else(|| all.iter().rfind(is_unknown)) {
            Some(live) => {
                let live = Seen { hour: live.hour.max(lease.hour), ..*live };
                Self { live: Some(live), lease: Some(lease), tombstone: None, ..self }
            }
            // The record that counted is lost. What came before it does not count for that.
            None => Self { live: None, lease: None, tombstone: Some(lease), ..self },
        }
    }

    /// A lease that was copied after the checkpoint began keeps its serial, and so comes before the record of
    /// the checkpoint that it lengthens. It is known by its hour, which is the one that the record has from
    /// it.
    fn with_copied_lease(self, all: &[Seen], settled: u64) -> Self {
        let Some(live) = self.live.filter(|live| self.lease.is_none() && live.birth == 0) else {
            return self;
        };
        let is_it =
            |seen: &&Seen| seen.kind == Kind::Lease && seen.serial <= settled && seen.hour == live.hour;
        Self { lease: all.iter().rfind(is_it).copied(), ..self }
    }

    /// Tree, record and last hour of what is kept of it. A record that has expired is kept as a tombstone
    /// while something on disk would outlive it.
    fn alive_at(&self, hour: u64) -> impl Iterator<Item = (Tree, Seen, u64)> {
        let (expired, live) = match self.live {
            Some(live) if live.hour <= hour => (Some(live), None),
            live => (None, live),
        };
        let lease = self.lease.filter(|_| live.is_some()).map(|lease| (Tree::Marks, lease, lease.hour));
        let overrules = self.tombstone.or(expired);
        let tombstone = overrules.map(|it| (Tree::Marks, it, self.until.max(it.hour)));
        let live = live.map(|live| (Tree::Live, live, live.hour));
        [live, lease, tombstone].into_iter().flatten().filter(move |(.., gone_from)| *gone_from > hour)
    }
}
