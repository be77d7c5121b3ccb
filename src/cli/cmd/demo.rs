//! `trine demo`: the main job on real input, with a hard kill in the middle.

use std::path::PathBuf;

use clap::Args;

use crate::cli::demo;
use crate::cli::error::{CliError, Exit};

const EXAMPLES: &str = "\
Examples:
  trine demo
  trine demo --input /usr/share/dict/words
  trine demo --json

Makes a node in a directory of its own below TMPDIR, runs it as another process, and removes both at the end.
A text of fewer than 4000 lines is sent several times over, so that there is a middle to kill the node in.
Ends with 0 only if every line was acknowledged and arrived exactly once and in order.";

/// Shows a node at work: sends every line of a text, kills the node half way, and checks what arrived
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Text to send, one message per line [default: a text that comes with the program]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print what happened as one JSON object
    #[arg(long)]
    json: bool,
}

/// What the demo sends, and how it reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// A text file; `None` is the built-in text.
    pub input: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

impl DemoArgs {
    pub(in crate::cli) fn validate(self) -> DemoOptions {
        let Self { input, json } = self;
        DemoOptions { input, json }
    }
}

/// Runs the demonstration. Ends well only if every promise held.
pub fn run(options: &DemoOptions) -> Result<Exit, CliError> {
    demo::run(options)
}
