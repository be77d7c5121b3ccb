//! Counters indexed by a code of the wire protocol: close codes, reasons of refusal, statuses of receipts.
//!
//! The arrays are fixed. A code beyond the array is counted in the last place, which no code may use for
//! itself, so that a code added to the protocol without room here is still seen, as "other", and never
//! panics.

use super::cell::Counter;

/// Message classes that are counted apart: durable and ephemeral.
pub const CLASS_COUNT: usize = 2;

/// One counter per code `0..N - 1`, and one for every code above.
#[derive(Debug)]
pub struct Coded<const N: usize>([Counter; N]);

impl<const N: usize> Coded<N> {
    /// Counts one of `code`. Only the owning core may call this.
    pub fn inc(&self, code: u8) {
        self.0[usize::from(code).min(N - 1)].inc();
    }

    /// How many of `code` were counted; codes from `N - 1` up share one count.
    pub fn get(&self, code: u8) -> u64 {
        self.0[usize::from(code).min(N - 1)].get()
    }

    /// The sum over all codes.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }

    /// The counters in order of code; the last one is "other".
    pub fn counters(&self) -> &[Counter] {
        &self.0
    }
}

impl<const N: usize> Default for Coded<N> {
    fn default() -> Self {
        const { assert!(N > 1 && N <= 256, "codes are one byte, and one place is kept for all others") }
        Self([const { Counter::new() }; N])
    }
}

/// [`Coded`] once per message class, indexed by the class's wire code (durable 0, ephemeral 1).
#[derive(Debug, Default)]
pub struct ByClass<const N: usize>([Coded<N>; CLASS_COUNT]);

impl<const N: usize> ByClass<N> {
    /// Counts one of `code` in `class`. A class above the known ones is counted with the last.
    pub fn inc(&self, class: u8, code: u8) {
        self.class(class).inc(code);
    }

    /// The codes of one class.
    pub fn class(&self, class: u8) -> &Coded<N> {
        &self.0[usize::from(class).min(CLASS_COUNT - 1)]
    }

    /// The counters of every class, in order of the class's code.
    pub fn rows(&self) -> [&[Counter]; CLASS_COUNT] {
        [self.0[0].counters(), self.0[1].counters()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_beyond_the_array_is_counted_as_other() {
        let coded = Coded::<4>::default();
        [0, 2, 2, 3, 200].into_iter().for_each(|code| coded.inc(code));
        assert_eq!([coded.get(0), coded.get(1), coded.get(2), coded.get(255)], [1, 0, 2, 2]);
        assert_eq!(coded.total(), 5);
    }

    #[test]
    fn classes_are_counted_apart() {
        let coded = ByClass::<4>::default();
        coded.inc(0, 1);
        coded.inc(1, 1);
        coded.inc(1, 1);
        assert_eq!((coded.class(0).get(1), coded.class(1).get(1)), (1, 2));
    }
}
