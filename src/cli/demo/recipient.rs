//! A recipient: takes down what arrives, in the order in which it arrives.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::failed;
use super::sender::Numbering;
use crate::cli::error::CliError;
use crate::client::{ClientEvent, Driver, ReceivedMessage};

/// Who waits this long for a message that should be there waits in vain.
const QUIET_MAX: Duration = Duration::from_secs(20);

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Its number; `None` if nobody here sent it.
    pub(super) number: Option<usize>,
    pub(super) at_us: u64,
    pub(super) payload: Vec<u8>,
}

/// A connected recipient.
pub(super) struct Recipient {
    driver: Driver,
    numbering: Numbering,
    /// What arrived, oldest first.
    pub(super) arrivals: Vec<Arrival>,
    caught_up: bool,
    /// The node said that it lost part of this mailbox's past.
    pub(super) past_lost: bool,
}

impl Recipient {
    pub(super) fn new(driver: Driver, numbering: Numbering) -> Self {
        Self { driver, numbering, arrivals: Vec::new(), caught_up: false, past_lost: false }
    }

    /// Takes what arrives until there is as much as `enough` says, once it says so, or until nothing comes
    /// any more.
    pub(super) async fn receive_until(
        &mut self,
        mut enough: oneshot::Receiver<usize>,
    ) -> Result<(), CliError> {
        let mut expected = None;
        while expected.is_none_or(|expected| self.arrivals.len() < expected) {
            tokio::select! {
                event = timeout(QUIET_MAX, self.driver.next()) => match event {
                    Ok(event) => self.take(event.map_err(failed)?),
                    Err(_) if expected.is_some() => return Ok(()),
                    Err(_) => {}
                },
                count = &mut enough, if expected.is_none() => {
                    // The sender failed, and its error is on its way.
                    let Ok(count) = count else { return std::future::pending().await };
                    expected = Some(count);
                }
            }
        }
        Ok(())
    }

    /// Takes what arrives until everything that waited has arrived.
    pub(super) async fn catch_up(&mut self) -> Result<(), CliError> {
        while !self.caught_up {
            match timeout(QUIET_MAX, self.driver.next()).await {
                Ok(event) => self.take(event.map_err(failed)?),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Received(message) => self.arrived(message),
            ClientEvent::CaughtUp => self.caught_up = true,
            ClientEvent::EpochChanged => self.past_lost = true,
            _ => {}
        }
    }

    fn arrived(&mut self, message: ReceivedMessage) {
        self.driver.client().done(message.key());
        self.arrivals.push(Arrival {
            number: self.numbering.number(message.id),
            at_us: self.driver.clock().mono_us(),
            payload: message.payload,
        });
    }

    /// Acknowledges and goes offline.
    pub(super) async fn leave(self) -> Vec<Arrival> {
        self.driver.finish(Duration::from_secs(1)).await;
        self.arrivals
    }
}
