//! `trine init`: a node key and a formatted store, on request only.

use std::path::PathBuf;

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use super::node::{NodeOptions, load_config};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::store;
use crate::config::{Overrides, Profile};

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

/// Makes the directory, the key and the store.
pub fn run(options: &InitOptions) -> Result<Exit, CliError> {
    let node = NodeOptions {
        profile: Profile::Server,
        config: options.config.clone(),
        overrides: Overrides { data: Some(options.data.clone()), ..Overrides::default() },
        print_config: false,
    };
    let config = load_config(&node)?.config;
    let bar = spinner("zero-filling the first segments of each lane");
    let made = store::create(&config, store::wall_ms());
    bar.finish_and_clear();
    let made = made?;
    let mut output = Output::stdout();
    output.line(&format!("node id  {}", made.key.node_id()))?;
    output.line(&format!(
        "store    {} lanes, segments of {}, in {}",
        made.store.lanes(),
        config.store.segment_bytes,
        config.data.display()
    ))?;
    output.line(&format!("run it   trine node --data {}", config.data.display()))?;
    Ok(Exit::Ok)
}

/// Shows on a terminal that something takes a while.
fn spinner(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
