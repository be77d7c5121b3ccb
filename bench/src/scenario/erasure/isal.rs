//! ISA-L, the yardstick of erasure codes on x86: called through its C interface if the machine has it.

use libloading::Library;

use crate::error::{BenchError, Result};

/// The library as Debian's `libisal2` installs it.
const LIBRARY: &str = "libisal.so.2";
/// Bytes of its tables per coefficient.
const TABLE_BYTES: usize = 32;

// SAFETY: the signature is that of erasure_code.h.
type InitTables = unsafe extern "C" fn(i32, i32, *const u8, *mut u8);
// SAFETY: likewise.
type EncodeData = unsafe extern "C" fn(i32, i32, i32, *const u8, *const *const u8, *const *mut u8);

/// The library, loaded.
pub struct IsaL {
    library: Library,
}

impl IsaL {
    /// Loads it.
    pub fn load() -> Result<Self> {
        // SAFETY: loading runs the library's initialisers, which choose its kernels.
        let library = unsafe { Library::new(LIBRARY) };
        let missing = |error| BenchError::Missing(format!("{LIBRARY} (apt-get install libisal2): {error}"));
        Ok(Self { library: library.map_err(missing)? })
    }

    /// Prepares its tables for rows of coefficients, each as long as there are inputs.
    pub fn tables(&self, rows: &[Vec<u8>]) -> Result<Tables<'_>> {
        let (count, inputs) = (rows.len(), rows.first().map_or(0, Vec::len));
        let coefficients = rows.concat();
        if coefficients.len() != count * inputs {
            return Err(BenchError::Missing("rows of one length".into()));
        }
        let mut tables = vec![0; TABLE_BYTES * coefficients.len()];
        let unknown = |error| BenchError::Missing(format!("a function of {LIBRARY}: {error}"));
        // SAFETY: the signatures are those of erasure_code.h. The tables have 32 bytes for each coefficient.
        let encode = unsafe {
            let init = self.library.get::<InitTables>(b"ec_init_tables").map_err(unknown)?;
            init(inputs as i32, count as i32, coefficients.as_ptr(), tables.as_mut_ptr());
            self.library.get::<EncodeData>(b"ec_encode_data").map_err(unknown)?
        };
        Ok(Tables { encode, tables, inputs, rows: count })
    }
}

/// Coefficients in its own form.
pub struct Tables<'l> {
    encode: libloading::Symbol<'l, EncodeData>,
    tables: Vec<u8>,
    inputs: usize,
    rows: usize,
}

impl Tables<'_> {
    /// Computes every output from all inputs.
    ///
    /// # Panics
    /// If there are not as many buffers as coefficients, or not of one size.
    pub fn combine(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let bytes = inputs[0].len();
        assert!(inputs.len() == self.inputs && outputs.len() == self.rows);
        assert!(inputs.iter().all(|input| input.len() == bytes));
        assert!(outputs.iter().all(|output| output.len() == bytes));
        let inputs: Vec<*const u8> = inputs.iter().map(|input| input.as_ptr()).collect();
        let outputs: Vec<*mut u8> = outputs.iter_mut().map(|output| output.as_mut_ptr()).collect();
        // SAFETY: as many pointers as it was told, each to `bytes` bytes; outputs are ours alone.
        unsafe {
            (self.encode)(
                bytes as i32,
                self.inputs as i32,
                self.rows as i32,
                self.tables.as_ptr(),
                inputs.as_ptr(),
                outputs.as_ptr(),
            );
        }
    }
}
