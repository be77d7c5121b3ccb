//! Tells what happens while it happens: lines on standard output, a progress bar on a terminal.

use std::cell::RefCell;
use std::io;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::error::CliError;
use crate::cli::output::Output;

/// Where the story is told.
pub(super) struct Narrator {
    bar: ProgressBar,
    output: RefCell<Output<io::Stdout>>,
    tells: bool,
}

impl Narrator {
    /// Tells of `messages` messages. With `json`, says nothing before the end.
    pub(super) fn new(messages: usize, json: bool) -> Self {
        // Nothing is drawn where standard error is no terminal.
        let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(messages as u64), target);
        let style = "{msg:22} [{bar:40}] {human_pos}/{human_len} receipts, {per_sec}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, output: RefCell::new(Output::stdout()), tells: !json }
    }

    /// Tells that something happened.
    pub(super) fn say(&self, what: &str, text: &str) -> Result<(), CliError> {
        if !self.tells {
            return Ok(());
        }
        self.bar.suspend(|| self.output.borrow_mut().line(&format!("  {what:<11} {text}")))
    }

    /// What the bar says beside it.
    pub(super) fn doing(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    /// One more receipt.
    pub(super) fn progress(&self) {
        self.bar.inc(1);
    }

    /// The bar is not needed any more.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
