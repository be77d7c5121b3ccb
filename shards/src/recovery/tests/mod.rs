//! Recovery: each case by itself, crashes at every point, and long runs against a model.

mod cases;
mod crash;
mod faults;
mod long_batches;
mod long_headers;
mod model;
