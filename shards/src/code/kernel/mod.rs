//! Sums of products over GF(2^8), as fast as a core can: what all rows of a code come down to.
//!
//! `output[r] = sum over j of coefficient[r][j] x input[j]`, for whole buffers. One loop (`vector`) serves
//! all instruction sets; each of them says how it loads, stores, adds and multiplies. The set is chosen when
//! the program runs.
//!
//! **Promise.** Every kernel gives the same bytes for every length from 1 and every alignment. Nothing is
//! read or written outside of the buffers.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod vector;

#[cfg(target_arch = "x86_64")]
use super::field::MATRICES;
use super::field::NIBBLES;
use super::matrix::Matrix;

/// Rows computed in one pass over the inputs: their sums stay in registers.
const ROWS_MAX: usize = 5;
/// Columns per pass when there are more rows than that, in bytes: inputs stay in a cache between passes.
const TILE_BYTES: usize = 8 * 1024;

/// An instruction set to compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// x86-64 with GFNI, 64 bytes at a time.
    GfniAvx512,
    /// x86-64 with GFNI, 32 bytes at a time.
    GfniAvx2,
    /// x86-64, look-ups of nibbles 32 bytes at a time.
    Avx2,
    /// AArch64, look-ups of nibbles 16 bytes at a time.
    Neon,
    /// Any machine, a byte at a time: slow, and what the others are tested against.
    Scalar,
}

impl Kernel {
    /// All, the fastest first.
    const ALL: [Self; 5] = [Self::GfniAvx512, Self::GfniAvx2, Self::Avx2, Self::Neon, Self::Scalar];

    /// The fastest that this machine has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Self::Scalar)
    }

    /// All that this machine has, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available())
    }

    /// True if this machine has its instructions.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::GfniAvx512 => gfni::has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Self::GfniAvx2 => gfni::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::is_there(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::is_there(),
            Self::Scalar => true,
            #[allow(unreachable_patterns, reason = "the kernels of other processors")]
            _ => false,
        }
    }
}

/// Whether sums take the place of what is in the outputs, or are added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Replace,
    Add,
}

/// The numbers of a matrix, in the form and the order in which a kernel takes them.
#[derive(Clone, Debug)]
pub(super) struct Coefficients {
    kernel: Kernel,
    rows: usize,
    columns: usize,
    /// Row by row.
    numbers: Vec<u8>,
    groups: Vec<Group>,
}

/// Up to [`ROWS_MAX`] rows, column by column.
#[derive(Clone, Debug)]
struct Group {
    first: usize,
    rows: usize,
    factors: Factors,
}

/// Factors as a kernel takes them.
#[derive(Clone, Debug)]
enum Factors {
    /// For multiplication by a matrix of bits.
    #[cfg(target_arch = "x86_64")]
    Matrices(Vec<u64>),
    /// For multiplication by look-up of nibbles.
    Nibbles(Vec<[u8; 32]>),
}

impl Coefficients {
    /// # Panics
    /// If the machine does not have the kernel.
    pub(super) fn new(kernel: Kernel, matrix: &Matrix) -> Self {
        assert!(kernel.is_available(), "this machine has no {kernel:?}");
        let (rows, columns) = (matrix.rows(), matrix.columns());
        let numbers = (0..rows).flat_map(|row| matrix.row(row)).copied().collect();
        Self::of(kernel, rows, columns, numbers)
    }

    fn of(kernel: Kernel, rows: usize, columns: usize, numbers: Vec<u8>) -> Self {
        let group = |first: usize| {
            let rows = (rows - first).min(ROWS_MAX);
            let places = (0..columns).flat_map(|column| (first..first + rows).map(move |row| (row, column)));
            let factors = places.map(|(row, column)| usize::from(numbers[row * columns + column]));
            let factors = match kernel {
                #[cfg(target_arch = "x86_64")]
                Kernel::GfniAvx512 | Kernel::GfniAvx2 => {
                    Factors::Matrices(factors.map(|number| MATRICES[number]).collect())
                }
                _ => Factors::Nibbles(factors.map(|number| NIBBLES[number]).collect()),
            };
            Group { first, rows, factors }
        };
        let groups = (0..rows).step_by(ROWS_MAX).map(group).collect();
        Self { kernel, rows, columns, numbers, groups }
    }

    pub(super) fn is_for(&self, kernel: Kernel) -> bool {
        self.kernel == kernel
    }

    pub(super) fn number(&self, row: usize, column: usize) -> u8 {
        self.numbers[row * self.columns + column]
    }

    /// One column alone.
    pub(super) fn column(&self, column: usize) -> Self {
        let numbers = (0..self.rows).map(|row| self.number(row, column)).collect();
        Self::of(self.kernel, self.rows, 1, numbers)
    }

    /// Computes every output from all inputs.
    ///
    /// # Panics
    /// If there are not as many inputs as columns or outputs as rows, or if they are not of one size.
    pub(super) fn combine(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]], output: Output) {
        let Some(bytes) = inputs.first().map(|input| input.len()) else { return };
        assert!(inputs.len() == self.columns && outputs.len() == self.rows);
        assert!(inputs.iter().all(|input| input.len() == bytes));
        assert!(outputs.iter().all(|output| output.len() == bytes));
        let tile_bytes = if self.groups.len() > 1 { TILE_BYTES } else { bytes };
        for start in (0..bytes).step_by(tile_bytes.max(1)) {
            let tile = Tile { start, end: (start + tile_bytes).min(bytes) };
            for group in &self.groups {
                let outputs = &mut outputs[group.first..][..group.rows];
                group.combine(self.kernel, inputs, outputs, tile, output);
            }
        }
    }
}

/// Which columns to compute: a range of bytes of every buffer.
#[derive(Clone, Copy, Debug)]
struct Tile {
    start: usize,
    end: usize,
}

impl Group {
    fn combine(
        &self,
        kernel: Kernel,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        tile: Tile,
        output: Output,
    ) {
        match (kernel, &self.factors) {
            #[cfg(target_arch = "x86_64")]
            (Kernel::GfniAvx512, Factors::Matrices(factors)) => {
                gfni::combine_avx512(factors, inputs, outputs, tile, output);
            }
            #[cfg(target_arch = "x86_64")]
            (Kernel::GfniAvx2, Factors::Matrices(factors)) => {
                gfni::combine_avx2(factors, inputs, outputs, tile, output);
            }
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2, Factors::Nibbles(factors)) => {
                avx2::combine(factors, inputs, outputs, tile, output);
            }
            #[cfg(target_arch = "aarch64")]
            (Kernel::Neon, Factors::Nibbles(factors)) => {
                neon::combine(factors, inputs, outputs, tile, output);
            }
            (_, Factors::Nibbles(factors)) => scalar::combine(factors, inputs, outputs, tile, output),
            #[cfg(target_arch = "x86_64")]
            (kernel, Factors::Matrices(_)) => unreachable!("{kernel:?} takes no matrices"),
        }
    }
}
