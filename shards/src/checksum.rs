//! CRC32C, the checksum of everything on disk. It classifies faults; it does not resist an adversary.

/// CRC32C (Castagnoli) of `bytes`, by the CPU's own instructions where it has them.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn crc32c_gives_the_check_value_of_its_definition() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }
}
