//! Descriptions of the series, beside the fields they describe.

use super::cell::{Counter, Gauge, Oldest, Peak};
use super::coded::{ByClass, CLASS_COUNT, Coded};
use super::histogram::Histogram;

/// What the whole steps of a number stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Micros,
    /// An instant in wall-clock milliseconds, of which the age is shown.
    Since,
}

/// Which list of codes an index means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vocabulary {
    /// Why a link was closed.
    Close,
    /// Why a connection was refused before it had a link.
    Refuse,
    /// How a login ended, other than well.
    Login,
    /// Message class: durable or ephemeral.
    Class,
    /// Status of a receipt.
    Status,
    /// Why a message was rejected.
    Reject,
}

impl Vocabulary {
    /// The label under which a code of this list is shown.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Status => "status",
            Self::Close | Self::Refuse | Self::Login | Self::Reject => "reason",
        }
    }
}

/// What a reader needs to know about a series.
#[derive(Debug)]
pub struct About {
    /// Name without prefix and unit, e.g. `relay_queued`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Unit of the number.
    pub unit: Unit,
    /// For coded series, what the codes mean.
    pub codes: Option<Vocabulary>,
}

/// One reading of a series. The variant tells its kind, and how the cores' readings are put together.
#[derive(Debug)]
pub enum Value<'a> {
    /// Rises only; summed.
    Counter(u64),
    /// Rises and falls; summed.
    Gauge(u64),
    /// Highest so far; the highest counts.
    Peak(u64),
    /// An instant; the earliest counts.
    Oldest(Option<u64>),
    /// One counter per code.
    Coded(&'a [Counter]),
    /// One counter per class and code.
    ByClass([&'a [Counter]; CLASS_COUNT]),
    /// A distribution.
    Histogram(&'a Histogram),
}

/// A cell that can be read.
pub trait Measure {
    /// The current reading.
    fn value(&self) -> Value<'_>;
}

/// One series of a group of fields.
#[derive(Debug)]
pub struct Series<G> {
    /// Name, help, unit.
    pub about: About,
    /// Reads the field.
    pub read: fn(&G) -> Value<'_>,
}

/// A struct of cells with the table that describes every one of them.
pub trait Group: Sized + 'static {
    /// One entry per field, in order of declaration.
    const SERIES: &'static [Series<Self>];
}

impl Measure for Counter {
    fn value(&self) -> Value<'_> {
        Value::Counter(self.get())
    }
}

impl Measure for Gauge {
    fn value(&self) -> Value<'_> {
        Value::Gauge(self.get())
    }
}

impl Measure for Peak {
    fn value(&self) -> Value<'_> {
        Value::Peak(self.get())
    }
}

impl Measure for Oldest {
    fn value(&self) -> Value<'_> {
        Value::Oldest(self.get())
    }
}

impl<const N: usize> Measure for Coded<N> {
    fn value(&self) -> Value<'_> {
        Value::Coded(self.counters())
    }
}

impl<const N: usize> Measure for ByClass<N> {
    fn value(&self) -> Value<'_> {
        Value::ByClass(self.rows())
    }
}

impl Measure for Histogram {
    fn value(&self) -> Value<'_> {
        Value::Histogram(self)
    }
}

/// Declares a struct of cells and its [`Group`] table. Each field reads
/// `/// Help text.` / `field: Cell => "metric_name", Unit, codes;`.
macro_rules! series {
    (
        $(#[$group_doc:meta])*
        pub struct $group:ident {
            $(
                #[doc = $help:literal]
                $field:ident: $cell:ty => $name:literal, $unit:ident, $codes:expr;
            )*
        }
    ) => {
        $(#[$group_doc])*
        #[derive(Debug, Default)]
        pub struct $group {
            $(#[doc = $help] pub $field: $cell,)*
        }

        impl $crate::stats::series::Group for $group {
            const SERIES: &'static [$crate::stats::series::Series<Self>] = &[$(
                $crate::stats::series::Series {
                    about: $crate::stats::series::About {
                        name: $name,
                        help: $help.trim_ascii(),
                        unit: $crate::stats::series::Unit::$unit,
                        codes: $codes,
                    },
                    read: |group| $crate::stats::series::Measure::value(&group.$field),
                },
            )*];
        }
    };
}
pub(super) use series;
