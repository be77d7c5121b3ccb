//! Small matrices over GF(2^8): what a code is made of. Never on a path that runs per byte.

use super::field::{inverse, power, product};

/// A matrix, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    columns: usize,
    numbers: Vec<u8>,
}

impl Matrix {
    pub(super) fn from_fn(rows: usize, columns: usize, number: impl Fn(usize, usize) -> u8) -> Self {
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        Self { columns, numbers: places.map(|(row, column)| number(row, column)).collect() }
    }

    /// The rows of a systematic code: the identity for the data shards, then one row per parity shard. A
    /// Vandermonde matrix (row `r` is 1, r, r^2, ...) times the inverse of its own upper square, which keeps
    /// the property that any square of its rows can be inverted.
    pub(super) fn systematic(data: usize, shards: usize) -> Self {
        let vandermonde = Self::from_fn(shards, data, |row, column| power(row as u8, column));
        let upper = Self::from_fn(data, data, |row, column| vandermonde.row(row)[column]);
        // PANIC: its rows are those of different numbers, and so independent.
        let upper = upper.inverted().expect("an upper square of a Vandermonde matrix can be inverted");
        vandermonde.times(&upper)
    }

    pub(super) fn rows(&self) -> usize {
        self.numbers.len() / self.columns
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.numbers[row * self.columns..][..self.columns]
    }

    /// Some of its rows, in the order given.
    pub(super) fn select(&self, rows: impl Iterator<Item = usize>) -> Self {
        Self { columns: self.columns, numbers: rows.flat_map(|row| self.row(row)).copied().collect() }
    }

    pub(super) fn times(&self, right: &Self) -> Self {
        let number = |row: usize, column: usize| {
            let terms = self.row(row).iter().zip(0..right.rows());
            terms.fold(0, |sum, (left, at)| sum ^ product(*left, right.row(at)[column]))
        };
        Self::from_fn(self.rows(), right.columns, number)
    }

    /// Its inverse, by Gauss and Jordan. `None` if it is not square or has none.
    pub(super) fn inverted(&self) -> Option<Self> {
        let size = self.columns;
        if self.rows() != size {
            return None;
        }
        let mut left = self.clone();
        let mut right = Self::from_fn(size, size, |row, column| u8::from(row == column));
        for pivot in 0..size {
            let found = (pivot..size).find(|row| left.row(*row)[pivot] != 0)?;
            left.swap(pivot, found);
            right.swap(pivot, found);
            let scale = inverse(left.row(pivot)[pivot]);
            left.scale(pivot, scale);
            right.scale(pivot, scale);
            for row in (0..size).filter(|row| *row != pivot) {
                let factor = left.row(row)[pivot];
                left.add(row, pivot, factor);
                right.add(row, pivot, factor);
            }
        }
        Some(right)
    }

    fn swap(&mut self, a: usize, b: usize) {
        for column in 0..self.columns {
            self.numbers.swap(a * self.columns + column, b * self.columns + column);
        }
    }

    fn scale(&mut self, row: usize, factor: u8) {
        let numbers = &mut self.numbers[row * self.columns..][..self.columns];
        numbers.iter_mut().for_each(|number| *number = product(*number, factor));
    }

    /// Adds `factor` times the row `from` to the row `to`.
    fn add(&mut self, to: usize, from: usize, factor: u8) {
        for column in 0..self.columns {
            let term = product(self.numbers[from * self.columns + column], factor);
            self.numbers[to * self.columns + column] ^= term;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(size: usize) -> Matrix {
        Matrix::from_fn(size, size, |row, column| u8::from(row == column))
    }

    #[test]
    fn the_code_of_ten_and_five_has_the_rows_that_others_write() {
        let rows = Matrix::systematic(10, 15);
        assert_eq!(rows.select(0..10), identity(10));
        let parity = [
            [0x81, 0x96, 0xAF, 0xB8, 0xD2, 0xC4, 0xFE, 0xE8, 0x03, 0x02],
            [0x96, 0x81, 0xB8, 0xAF, 0xC4, 0xD2, 0xE8, 0xFE, 0x02, 0x03],
            [0xBF, 0xD6, 0x62, 0x0A, 0x06, 0x6F, 0xDF, 0xB7, 0x05, 0x04],
            [0xD6, 0xBF, 0x0A, 0x62, 0x6F, 0x06, 0xB7, 0xDF, 0x04, 0x05],
            [0xBF, 0xC0, 0x4C, 0x32, 0x55, 0x2B, 0xA0, 0xDF, 0x07, 0x06],
        ];
        parity.iter().enumerate().for_each(|(row, expected)| assert_eq!(rows.row(10 + row), expected));
    }

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity_and_a_singular_one_has_none() {
        let rows = Matrix::systematic(20, 255);
        let square = rows.select((0..20).map(|row| row * 12 + 7));
        assert_eq!(square.times(&square.inverted().unwrap()), identity(20));
        assert_eq!(rows.select([0, 1, 1].into_iter().chain(3..20)).inverted(), None);
        assert_eq!(rows.inverted(), None);
    }
}
