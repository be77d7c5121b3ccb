//! The command line: what a person types becomes validated options, and what happened becomes an exit code.
//!
//! Two stages. clap parses flags into the `…Args` of each command (`cmd/<name>.rs`), where help and examples
//! are written; `validate` turns these into `…Options`, in which combinations that make no sense cannot be
//! written. Then [`run`] dispatches, in one place. A command prints its results to standard output and
//! nothing else there; errors and logs go to standard error; the exit code tells scripts what happened
//! ([`Exit`]).

pub mod addr;
pub mod cmd;
pub mod demo;
pub mod error;
pub mod human;
pub mod output;
pub mod serve;
pub mod session;
pub mod store;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::{CliError, Exit};

const ABOUT: &str = "A message relay in one thread-per-core node: end-to-end delivery, live and offline";
const EXAMPLES: &str = "\
Examples:
  trine demo                                       see it work, kill -9 included
  trine node --dev                                 run a node in ./trine-data
  trine keygen --out alice.key                     make a user
  trine send --node 127.0.0.1:9001 --key alice.key --to ADDRESS \"hello\"
  trine listen --node 127.0.0.1:9001 --key bob.key
  trine status
  trine store check --data trine-data              is everything there? (node stopped)

`trine help COMMAND` shows more examples, `trine help exit-codes` what the exit codes mean.
TRINE_LOG sets what is logged to standard error, for example TRINE_LOG=debug.";

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "trine", version, about = ABOUT, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: CommandArgs,
}

#[derive(Debug, Subcommand)]
enum CommandArgs {
    Demo(cmd::demo::DemoArgs),
    Init(cmd::init::InitArgs),
    Node(cmd::node::NodeArgs),
    Keygen(cmd::keygen::KeygenArgs),
    Send(cmd::send::SendArgs),
    Listen(cmd::listen::ListenArgs),
    Status(cmd::status::StatusArgs),
    Store(cmd::store::StoreArgs),
    /// Shows what the exit codes mean
    #[command(after_help = Exit::table())]
    ExitCodes,
}

/// What shall be done, checked.
#[derive(Debug)]
pub enum Command {
    /// Show the main job, faults included.
    Demo(cmd::demo::DemoOptions),
    /// Make a node key and format a store.
    Init(cmd::init::InitOptions),
    /// Run a node.
    Node(cmd::node::NodeOptions),
    /// Make a user's key.
    Keygen(cmd::keygen::KeygenOptions),
    /// Send messages.
    Send(cmd::send::SendOptions),
    /// Receive messages.
    Listen(cmd::listen::ListenOptions),
    /// Ask a node how it is.
    Status(cmd::status::StatusOptions),
    /// Look at a store that no node has open.
    Store(cmd::store::StoreOptions),
    /// Show what the exit codes mean.
    ExitCodes,
}

impl Cli {
    /// The second stage: refuses what parses but makes no sense.
    pub fn validate(self) -> Result<Command, CliError> {
        Ok(match self.command {
            CommandArgs::Demo(args) => Command::Demo(args.validate()),
            CommandArgs::Init(args) => Command::Init(args.validate()),
            CommandArgs::Node(args) => Command::Node(args.validate()),
            CommandArgs::Keygen(args) => Command::Keygen(args.validate()),
            CommandArgs::Send(args) => Command::Send(args.validate()?),
            CommandArgs::Listen(args) => Command::Listen(args.validate()),
            CommandArgs::Status(args) => Command::Status(args.validate()),
            CommandArgs::Store(args) => Command::Store(args.validate()),
            CommandArgs::ExitCodes => Command::ExitCodes,
        })
    }
}

/// Parses, validates and runs; prints errors. What the process ends with.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too, with code 0. If even printing fails, the code is all there
            // is.
            let _ = error.print();
            return if error.exit_code() == 0 { Exit::Ok } else { Exit::Usage }.into();
        }
    };
    match cli.validate().and_then(run) {
        Ok(exit) => exit.into(),
        Err(error) => {
            if let Some(message) = error.message() {
                eprintln!("trine: {message}");
            }
            error.exit().into()
        }
    }
}

/// Carries a command out.
pub fn run(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Status(options) => cmd::status::run(&options),
        Command::Store(options) => cmd::store::run(&options),
        Command::Node(options) if options.print_config => cmd::node::print_config(&options),
        Command::Init(options) => cmd::init::run(&options),
        Command::Node(options) => cmd::node::run(&options),
        Command::Keygen(options) => cmd::keygen::run(&options),
        Command::Send(options) => cmd::send::run(&options),
        Command::Listen(options) => cmd::listen::run(&options),
        Command::ExitCodes => output::Output::stdout().line(&Exit::table()).map(|()| Exit::Ok),
        Command::Demo(options) => cmd::demo::run(&options),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Parsing of whole command lines, for the tests of this folder.

    use super::*;

    /// The command that `line` (words separated by spaces) asks for, or the text of the error.
    pub(crate) fn parse(line: &str) -> Result<Command, String> {
        let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        cli.validate().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_or_a_table_in_its_help() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            assert!(help.contains(&format!("trine {name}")) || help.contains("Exit codes:"), "{name}");
        }
    }

    #[test]
    fn every_example_in_the_help_parses() {
        let mut examples = 0;
        let commands = Cli::command();
        let helps = commands.get_subcommands().filter_map(clap::Command::get_after_help);
        for help in helps.map(ToString::to_string).chain([EXAMPLES.to_owned()]) {
            for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
                let Some(at) = line.find("trine ") else { continue };
                // The example ends before its explanation, which stands after two spaces.
                let line = line[at..].split("  ").next().unwrap_or_default();
                let line = line.split(['<', '>', '|']).next().unwrap_or_default().trim();
                if let Err(error) = testing::parse(line) {
                    panic!("{line}: {error}");
                }
                examples += 1;
            }
        }
        assert!(examples > 12, "only {examples} examples were found");
    }
}
