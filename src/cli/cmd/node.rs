//! `trine node`: runs a node. Here: where its configuration comes from.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::error::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::{serve, store};
use crate::config::{self, AutoCount, Budget, ConfigFile, Loaded, Overrides, Profile};

const EXAMPLES: &str = "\
Examples:
  trine node --dev
  trine node --data /var/lib/trine --listen 0.0.0.0:9001 --cores 4
  trine node --config trine.toml --print-config > effective.toml

Settings come from the defaults, then --config, then the environment (TRINE_LISTEN, TRINE_LIMITS_TTL_MAX...),
then flags; the later wins. docs/LIMITS.md lists them. SIGTERM or Ctrl-C drains; a second one stops at once.";

/// Runs a node
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NodeArgs {
    /// Directory of the node key and the store, made by `trine init` [default: /var/lib/trine]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:9001]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where health, metrics and status are served [default: 127.0.0.1:8081]
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// Cores to use, or `auto` [default: auto]
    #[arg(long, value_name = "N")]
    cores: Option<AutoCount>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For developing: ./trine-data, made on first use, with small segments
    #[arg(long)]
    dev: bool,
    /// Print the settings in effect as a configuration file, and what memory they allow, and end
    #[arg(long)]
    print_config: bool,
}

/// How to run a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// The defaults to start from.
    pub profile: Profile,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// What flags set.
    pub overrides: Overrides,
    /// Only print the settings.
    pub print_config: bool,
}

impl NodeArgs {
    pub(in crate::cli) fn validate(self) -> NodeOptions {
        let Self { data, listen, http, cores, config, dev, print_config } = self;
        let profile = if dev { Profile::Dev } else { Profile::Server };
        NodeOptions { profile, config, overrides: Overrides { data, listen, http, cores }, print_config }
    }
}

/// Reads the file and the environment and puts them together with the flags.
pub fn load_config(options: &NodeOptions) -> Result<Loaded, CliError> {
    let usage = |message| CliError::new(Exit::Usage, message);
    let file = match &options.config {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| usage(format!("the configuration file {name} cannot be read: {error}")))?;
            Some((name, text))
        }
    };
    let file = file.as_ref().map(|(name, text)| ConfigFile { name, text });
    // A variable that is not text cannot be one of ours.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    config::load(options.profile, file, env, options.overrides.clone())
        .map_err(|error| usage(error.to_string()))
}

/// Runs the node. With `--dev`, its directory is made on first use.
pub fn run(options: &NodeOptions) -> Result<Exit, CliError> {
    let Loaded { config, warnings } = load_config(options)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let dir = if options.profile == Profile::Dev && store::is_fresh(&config.data) {
        tracing::info!(dir = %config.data.display(), "making a node");
        store::create(&config, store::wall_ms())?
    } else {
        store::open(&config.data)?
    };
    serve::run(config, dir)
}

/// Prints the settings in effect and their memory budget, as TOML.
pub fn print_config(options: &NodeOptions) -> Result<Exit, CliError> {
    let loaded = load_config(options)?;
    for warning in &loaded.warnings {
        eprintln!("trine: {warning}");
    }
    let cores = match loaded.config.cores {
        AutoCount::Count(count) => count,
        AutoCount::Auto => u16::try_from(store::processors()).unwrap_or(u16::MAX),
    };
    let budget = Budget::of(&loaded.config, cores).to_string().replace('\n', "\n# ");
    Output::stdout().line(&format!("{}\n# {budget}", loaded.config.to_toml()))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;
    use crate::cli::testing::parse;

    fn options(line: &str) -> NodeOptions {
        match parse(line).unwrap() {
            Command::Node(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_reach_the_configuration() {
        let options = options("trine node --dev --data d --listen 127.0.0.1:0 --http 127.0.0.1:0 --cores 2");
        let config = load_config(&options).unwrap().config;
        assert_eq!(config.data, PathBuf::from("d"));
        assert_eq!((config.listen.port(), config.http.port(), config.cores), (0, 0, AutoCount::Count(2)));
        assert_eq!(config.store, config::Config::of(Profile::Dev).store);
    }

    #[test]
    fn a_missing_configuration_file_is_a_usage_error_that_names_it() {
        let error = load_config(&options("trine node --config /nowhere/trine.toml")).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("/nowhere/trine.toml"));
    }
}
