//! `trine keygen`: a user's key.

use std::path::PathBuf;

use clap::Args;

use crate::cli::error::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::session;
use crate::link::{Seed, UserIdentity, key_file};
use crate::rt::clock::Clock;
use crate::rt::files;

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

/// A key works for this long, in milliseconds: ten years.
const GRANT_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// Makes the key and prints its address.
pub fn run(options: &KeygenOptions) -> Result<Exit, CliError> {
    let seed = |bytes: [u8; 32]| Seed::from(bytes);
    let expires_ms = Clock::start().now().wall_ms + GRANT_MS;
    let identity = UserIdentity::create(seed(session::random()?), seed(session::random()?), expires_ms)
        .map_err(|error| CliError::new(Exit::Failed, error.to_string()))?;
    let text = key_file::encode_user_identity(&identity);
    files::write_secret(&options.out, text.as_bytes())
        .map_err(|error| CliError::new(Exit::Failed, error.to_string()))?;
    Output::stdout().line(&identity.address().to_string())?;
    Ok(Exit::Ok)
}
