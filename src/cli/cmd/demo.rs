//! `trine demo`: the main job on real input, with a hard kill in the middle.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  trine demo
  trine demo --input /usr/share/dict/words

Ends with 0 only if every acknowledged line arrived exactly once and in order.";

/// Shows a node at work: sends every line of a text, kills the node half way, and checks what arrived
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Text to send, one message per line [default: a text that comes with the program]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// What the demo sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// A text file; `None` is the built-in text.
    pub input: Option<PathBuf>,
}

impl DemoArgs {
    pub(in crate::cli) fn validate(self) -> DemoOptions {
        DemoOptions { input: self.input }
    }
}
