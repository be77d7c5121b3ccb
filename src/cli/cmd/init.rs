//! `trine init`: a node key and a formatted store, on request only.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  trine init --data /var/lib/trine
  trine init --data /srv/trine --config trine.toml

Refuses to overwrite a key or a store. Lanes and segment size are fixed here.";

/// Makes a node key and formats a store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Directory of the node key and the store; made if it does not exist
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Configuration file, for the number of lanes and the size of segments
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where to make a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// The directory.
    pub data: PathBuf,
    /// The configuration file.
    pub config: Option<PathBuf>,
}

impl InitArgs {
    pub(in crate::cli) fn validate(self) -> InitOptions {
        let Self { data, config } = self;
        InitOptions { data, config }
    }
}
