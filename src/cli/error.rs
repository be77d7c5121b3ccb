//! How a command ends: exit codes for scripts, messages for people.

use std::fmt;
use std::process::ExitCode;

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All was done.
    Ok = 0,
    /// The work was not done, or a message was rejected.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The node could not be reached in time.
    Unreachable = 3,
    /// The node is not the one that is expected.
    IdentityMismatch = 4,
    /// The store is missing, foreign, in use or damaged.
    Store = 5,
    /// This machine lacks what a node needs.
    Host = 6,
    /// A signal ended the command before its work was done.
    Interrupted = 130,
}

impl Exit {
    const ALL: [(Self, &str); 8] = [
        (Self::Ok, "all was done"),
        (Self::Failed, "the work was not done; for send: at least one message was rejected"),
        (Self::Usage, "the command line or the configuration is wrong"),
        (Self::Unreachable, "the node could not be reached in time"),
        (Self::IdentityMismatch, "the node is not the one that is expected: do not send it anything"),
        (Self::Store, "the store is missing, foreign, in use by another process or damaged"),
        (Self::Host, "this machine lacks what a node needs; the message says what, and how to fix it"),
        (Self::Interrupted, "a signal ended the command before its work was done"),
    ];

    /// The number that scripts see.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// All codes with their meaning, one per line.
    pub fn table() -> String {
        let line = |(exit, meaning): &(Self, &str)| format!("  {:>3}  {meaning}", exit.code());
        let lines: Vec<_> = Self::ALL.iter().map(line).collect();
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    message: Option<String>,
}

impl CliError {
    /// Ends with `exit` after printing `message`, which says what happened, to what, and what to do.
    pub fn new(exit: Exit, message: String) -> Self {
        Self { exit, message: Some(message) }
    }

    /// Whoever read our output has gone; there is nobody to tell.
    pub const fn reader_gone() -> Self {
        Self { exit: Exit::Failed, message: None }
    }

    /// What the process ends with.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// What to print, if anything.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message().unwrap_or("the reader of the output has gone"))
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_that_scripts_rely_on_do_not_change() {
        let codes = Exit::ALL.map(|(exit, _)| exit.code());
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 130]);
    }
}
