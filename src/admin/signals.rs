//! The operator's wish to stop. The first signal asks the node to drain, the second to stop at once.

use std::io;

use tokio::signal::unix;

/// A signal that ends the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// From the service manager.
    Terminate,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Finish what was accepted, then stop.
    Drain(Signal),
    /// The operator asked again: stop now.
    AtOnce(Signal),
}

/// Catches SIGINT and SIGTERM for the rest of the process's life.
#[derive(Debug)]
pub struct ShutdownSignals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    asked: bool,
}

impl ShutdownSignals {
    /// Takes over both signals; from here on they no longer end the process by themselves. Must be called on
    /// a tokio runtime with I/O enabled. Fails if the kernel refuses the handler.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(unix::SignalKind::interrupt())?,
            terminate: unix::signal(unix::SignalKind::terminate())?,
            asked: false,
        })
    }

    /// Waits for the next signal. Nothing is lost if the wait is dropped and begun again.
    pub async fn next(&mut self) -> Shutdown {
        let signal = tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        };
        let asked = std::mem::replace(&mut self.asked, true);
        if asked { Shutdown::AtOnce(signal) } else { Shutdown::Drain(signal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Raw, getpid, kill_process};

    #[tokio::test]
    async fn the_second_signal_asks_to_stop_at_once() {
        let mut signals = ShutdownSignals::install().unwrap();
        kill_process(getpid(), Raw::TERM).unwrap();
        assert_eq!(signals.next().await, Shutdown::Drain(Signal::Terminate));
        kill_process(getpid(), Raw::INT).unwrap();
        assert_eq!(signals.next().await, Shutdown::AtOnce(Signal::Interrupt));
    }
}
