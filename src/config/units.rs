//! Sizes, durations and core counts as an operator writes them: `"64 KiB"`, `"30d"`, `"auto"`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

const SIZE_UNITS: &[(&str, u64)] =
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPAN_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    ms: u64,
}

/// A number that the node can choose for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCount {
    /// What suits this machine.
    Auto,
    /// This many, from 1.
    Count(u16),
}

/// Why a text is no size, duration or core count.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Not a size.
    #[error("`{0}` is no size; write a whole number and a unit, such as \"64 KiB\" (B, KiB, MiB, GiB, TiB)")]
    Size(String),
    /// Not a duration.
    #[error(
        "`{0}` is no duration; write a whole number and a unit, such as \"3s\" or \"30d\" (ms, s, m, h, d)"
    )]
    Span(String),
    /// Not a number of cores or lanes.
    #[error("`{0}` is no number to use here; write \"auto\" or a whole number from 1 to 1024")]
    Count(String),
}

impl Size {
    /// `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The size in bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl Span {
    /// `n` milliseconds.
    pub const fn ms(n: u64) -> Self {
        Self { ms: n }
    }

    /// `n` seconds.
    pub const fn seconds(n: u64) -> Self {
        Self { ms: n * 1_000 }
    }

    /// `n` hours.
    pub const fn hours(n: u64) -> Self {
        Self { ms: n * 3_600_000 }
    }

    /// `n` days.
    pub const fn days(n: u64) -> Self {
        Self { ms: n * 86_400_000 }
    }

    /// The length in milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.ms
    }

    /// The length in microseconds; the longest span if it does not fit.
    pub const fn as_us(self) -> u64 {
        self.ms.saturating_mul(1_000)
    }

    /// The length as the standard library's type.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

/// Splits `text` into a whole number and a unit, and multiplies. A unit is required unless `bare` gives one.
fn parse_scaled(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    let scale = match unit {
        "" => bare?,
        _ => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.checked_mul(scale)
}

/// The largest unit that divides `value`, with its name.
fn largest_unit(value: u64, units: &[(&'static str, u64)]) -> (u64, &'static str) {
    let fits = |&&(_, scale): &&(&str, u64)| value != 0 && value.is_multiple_of(scale);
    units.iter().find(fits).map_or((value, units[units.len() - 1].0), |&(name, scale)| (value / scale, name))
}

impl FromStr for Size {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse_scaled(text, SIZE_UNITS, Some(1)).map(Self).ok_or_else(|| UnitError::Size(text.into()))
    }
}

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse_scaled(text, SPAN_UNITS, None).map(Self::ms).ok_or_else(|| UnitError::Span(text.into()))
    }
}

impl FromStr for AutoCount {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            count => match count.parse() {
                Ok(count @ 1..=1024) => Ok(Self::Count(count)),
                _ => Err(UnitError::Count(text.into())),
            },
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = largest_unit(self.0, SIZE_UNITS);
        write!(f, "{number} {unit}")
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = largest_unit(self.ms, SPAN_UNITS);
        write!(f, "{number}{unit}")
    }
}

impl fmt::Display for AutoCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// Reads a `T` from a text or, for a value that needs no unit, from an integer.
struct TextOrInteger<T>(PhantomData<T>);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for TextOrInteger<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number with its unit, in quotes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextOrInteger(PhantomData))
            }
        }
    )*};
}
as_text!(Size, Span, AutoCount);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(n in 0..=u64::MAX) {
            prop_assert_eq!(Size(n).to_string().parse(), Ok(Size(n)));
            prop_assert_eq!(Span::ms(n).to_string().parse(), Ok(Span::ms(n)));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*") {
            let (_, _, _) = (text.parse::<Size>(), text.parse::<Span>(), text.parse::<AutoCount>());
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_space_and_unit() {
        for (text, bytes) in
            [("64 KiB", 65_536), ("64KiB", 65_536), ("1 gib", 1 << 30), ("17", 17), ("0 B", 0)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [("3s", 3_000), ("30d", 2_592_000_000), ("250 ms", 250), ("5m", 300_000)] {
            assert_eq!(text.parse(), Ok(Span::ms(ms)), "{text}");
        }
        assert_eq!("3".parse::<Span>(), Err(UnitError::Span("3".into())));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "KiB", "-1 B", "1.5 GiB", "1 KB", "99999999999 TiB", "é"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["0", "1025", "all", "-1"] {
            assert!(text.parse::<AutoCount>().is_err(), "{text}");
        }
    }
}
