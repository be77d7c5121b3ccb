//! Arithmetic in GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11D), generator 2.
//!
//! All tables are made by the compiler. Addition is xor.

/// The polynomial without its highest term.
const POLYNOMIAL: u8 = 0x1D;

/// `x * 2`.
const fn double(x: u8) -> u8 {
    (x << 1) ^ (if x & 0x80 == 0 { 0 } else { POLYNOMIAL })
}

/// Product, bit by bit: the definition that everything else is tested against.
pub(super) const fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut term, mut bit) = (0, a, 0);
    while bit < 8 {
        if b >> bit & 1 == 1 {
            product ^= term;
        }
        term = double(term);
        bit += 1;
    }
    product
}

/// Product, by two look-ups.
pub(super) fn product(a: u8, b: u8) -> u8 {
    let tables = &NIBBLES[usize::from(a)];
    tables[usize::from(b & 15)] ^ tables[usize::from(16 + (b >> 4))]
}

/// The number whose product with `x` is 1; 0 for 0.
pub(super) const fn inverse(x: u8) -> u8 {
    // The multiplicative group has 255 elements: x^254 = x^-1.
    let (mut power, mut step) = (1, 0);
    while step < 254 {
        power = multiply(power, x);
        step += 1;
    }
    power
}

/// `base` to the power `exponent`; 0 to the power 0 is 1.
pub(super) const fn power(base: u8, exponent: usize) -> u8 {
    let (mut result, mut step) = (1, 0);
    while step < exponent {
        result = multiply(result, base);
        step += 1;
    }
    result
}

/// For each number, its products with all numbers below 16, then those with the multiples of 16: one product
/// is two look-ups and a xor.
pub(super) static NIBBLES: [[u8; 32]; 256] = nibbles();

const fn nibbles() -> [[u8; 32]; 256] {
    let mut tables = [[0; 32]; 256];
    let mut number = 0;
    while number < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            tables[number][nibble] = multiply(number as u8, nibble as u8);
            tables[number][16 + nibble] = multiply(number as u8, (nibble << 4) as u8);
            nibble += 1;
        }
        number += 1;
    }
    tables
}

/// For each number, multiplication by it as the 8x8 matrix over GF(2) that GF2P8AFFINEQB takes: byte `7 - i`
/// selects the input bits whose parity is output bit `i`. (The instruction's own multiplication has another
/// polynomial.)
#[cfg(any(target_arch = "x86_64", test))]
pub(super) static MATRICES: [u64; 256] = matrices();

#[cfg(any(target_arch = "x86_64", test))]
const fn matrices() -> [u64; 256] {
    let mut all = [0; 256];
    let mut number = 0;
    while number < 256 {
        let (mut matrix, mut input) = (0u64, 0);
        while input < 8 {
            let product = multiply(number as u8, 1 << input);
            let mut output = 0;
            while output < 8 {
                if product >> output & 1 == 1 {
                    matrix |= 1 << ((7 - output) * 8 + input);
                }
                output += 1;
            }
            input += 1;
        }
        all[number] = matrix;
        number += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_generates_all_numbers_but_zero() {
        let mut powers: Vec<u8> = (0..255).map(|exponent| power(2, exponent)).collect();
        assert_eq!((powers[8], powers[254]), (0x1D, inverse(2)));
        powers.sort_unstable();
        assert_eq!(powers, (1..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn every_number_times_its_inverse_is_one() {
        assert!((1..=255).all(|x| multiply(x, inverse(x)) == 1));
    }

    #[test]
    fn tables_and_matrices_multiply() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let matrix = MATRICES[usize::from(a)].to_le_bytes();
                let bits = (0..8).map(|bit| (((matrix[7 - bit] & b).count_ones() & 1) << bit) as u8);
                assert_eq!((product(a, b), bits.sum()), (multiply(a, b), multiply(a, b)), "{a} x {b}");
            }
        }
    }
}
