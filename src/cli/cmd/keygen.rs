//! `trine keygen`: a user's key.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  trine keygen --out alice.key

Prints the address that others send to. The file is readable by its owner only and is never overwritten.";

/// Makes a user's key and prints its address
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct KeygenArgs {
    /// File to write the key to; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Where to write a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeygenOptions {
    /// The file; must not exist.
    pub out: PathBuf,
}

impl KeygenArgs {
    pub(in crate::cli) fn validate(self) -> KeygenOptions {
        KeygenOptions { out: self.out }
    }
}
