//! What can go wrong with a benchmark, said so that the reader can do something about it.

use std::io;

/// The result of anything in this crate.
pub type Result<T> = std::result::Result<T, BenchError>;

/// Why a benchmark has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that is needed is not there.
    #[error("{0}")]
    Missing(String),
    /// A server said something that the scenario does not expect.
    #[error("{peer}: {what}")]
    Peer {
        /// Who.
        peer: &'static str,
        /// What.
        what: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s")]
    TooLate {
        /// What.
        what: String,
        /// The time given.
        seconds: u64,
    },
}

/// Says what was being done when the system refused.
pub trait Context<T> {
    /// Adds the words.
    fn context(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| BenchError::System { what: what.into(), source: error.into() })
    }
}
