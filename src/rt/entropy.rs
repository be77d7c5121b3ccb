//! Where randomness comes from: the kernel's generator. Everything outside the runtime is given random bytes
//! or a seed.

use std::io;

/// Fills `bytes` from the kernel's generator. Blocks until it was seeded, which at boot may take a moment.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: `rest` is valid for writing its whole length.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn large_and_empty_requests_are_filled_whole() {
        let mut bytes = vec![0_u8; 1 << 16];
        super::fill(&mut bytes).expect("the kernel has randomness");
        assert!(bytes.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
        super::fill(&mut []).expect("nothing is asked for");
        assert_ne!(super::bytes::<32>().expect("random"), super::bytes::<32>().expect("random"));
    }
}
