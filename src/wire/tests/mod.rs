//! Tests of the codec as a whole: round trips, refusals, splits, garbage, and the committed vectors.

mod refusals;
mod round_trip;
mod stream;
mod text;
mod vectors;
