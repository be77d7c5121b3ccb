//! The checksum of every record, for offline tools. At a start that of its batch is enough; a read compares
//! that of the record.

use crate::checksum::crc32c;
use crate::format::Place;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::format::record::{parse_bound, walk};
use crate::io::{BLOCK_BYTES, Volume};
use crate::lane::{Lane, Sealed};
use crate::recovery::reader::Reader;

/// What was found in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCheck {
    /// Batches that are as they were written. Others are in the report of the recovery.
    pub batches: u64,
    /// Records of these whose checksum is right.
    pub records: u64,
    /// Records of these whose checksum is wrong, as no write leaves them.
    pub wrong: u64,
}

impl Lane {
    /// Reads every batch once more and compares the checksum of each record. To be called on a lane that was
    /// just recovered from the same volume.
    pub fn verify_records(&self, volume: &dyn Volume) -> RecordCheck {
        let mut reader = Reader::new(volume, self.id());
        let mut out = RecordCheck::default();
        for sealed in self.sealed() {
            verify_segment(&self.place_of(&sealed), &sealed, &mut reader, &mut out);
        }
        out
    }
}

fn verify_segment(place: &Place, sealed: &Sealed, reader: &mut Reader<'_>, out: &mut RecordCheck) {
    reader.open(sealed.segment, u64::from(sealed.end));
    let mut offset = BLOCK_BYTES as u32;
    while offset < sealed.end {
        let header = BatchHeader::decode(reader.bytes(u64::from(offset), BLOCK_BYTES));
        let header = header.ok().map(|(header, _)| header);
        let fits = |header: &BatchHeader| header.is_at(place, offset) && header.bytes <= sealed.end - offset;
        let Some(header) = header.filter(fits) else {
            offset += BLOCK_BYTES as u32;
            continue;
        };
        let batch = reader.bytes(u64::from(offset), header.bytes as usize);
        if crc32c(&batch[BATCH_HEADER_BYTES..]) == header.payload_crc {
            out.batches += 1;
            let records = &batch[BATCH_HEADER_BYTES..][..header.record_bytes as usize];
            for (at, _) in walk(records).take(header.records as usize) {
                let here = offset + (BATCH_HEADER_BYTES + at) as u32;
                match parse_bound(&records[at..], here, place.salt()) {
                    Some(_) => out.records += 1,
                    None => out.wrong += 1,
                }
            }
        }
        offset += header.bytes;
    }
}
