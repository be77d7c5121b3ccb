//! The trine binary: allocator, logging and what happens on a panic; the rest is in the library.

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    stop_on_panic();
    log_to_stderr();
    trine::cli::main(std::env::args_os())
}

/// A panic anywhere ends the process: half of a share-nothing state cannot be trusted.
fn stop_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        eprintln!(
            "trine: this is a bug, and the process stops. What was acknowledged is on disk: start it again. \
             Please report the lines above together with `trine --version`."
        );
        std::process::abort();
    }));
}

/// `TRINE_LOG` sets the level, `info` without it.
fn log_to_stderr() {
    let wanted = std::env::var("TRINE_LOG").unwrap_or_else(|_| "info".into());
    let (filter, wrong) = match EnvFilter::try_new(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if let Some(error) = wrong {
        tracing::warn!(%error, "TRINE_LOG cannot be understood; logging at level info");
    }
}
