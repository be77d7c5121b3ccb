//! Standard output of a command: lines for people or one JSON object per line for programs.
//!
//! A reader that goes away (`trine listen | head -1`) ends the command quietly instead of with a panic.

use std::io::{self, Write};

use serde::Serialize;

use super::error::{CliError, Exit};

/// Where results are printed. Every line is flushed, so that a pipe sees it at once.
#[derive(Debug)]
pub struct Output<W> {
    to: W,
}

impl Output<io::Stdout> {
    /// Prints to standard output.
    pub fn stdout() -> Self {
        Self { to: io::stdout() }
    }
}

impl<W: Write> Output<W> {
    /// Prints to `to`.
    pub const fn new(to: W) -> Self {
        Self { to }
    }

    /// Prints `text` and the end of the line.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.to, "{text}").and_then(|()| self.to.flush()).map_err(|error| failed(&error))
    }

    /// Prints `value` as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&text),
            Err(error) => {
                Err(CliError::new(Exit::Failed, format!("a result cannot be written as JSON: {error}")))
            }
        }
    }
}

fn failed(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::reader_gone(),
        _ => CliError::new(Exit::Failed, format!("standard output cannot be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails every write with one kind of error.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_object_is_one_line() {
        let mut bytes = Vec::new();
        Output::new(&mut bytes).json(&serde_json::json!({"payload": "a\nb"})).unwrap();
        assert_eq!(bytes, b"{\"payload\":\"a\\nb\"}\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_reason_to_shout() {
        let error = Output::new(Failing(io::ErrorKind::BrokenPipe)).line("x").unwrap_err();
        assert_eq!((error.exit(), error.message()), (Exit::Failed, None));
        let error = Output::new(Failing(io::ErrorKind::StorageFull)).line("x").unwrap_err();
        assert!(error.message().is_some());
    }
}
