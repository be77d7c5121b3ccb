//! Closed loop: a window of messages under way per flow. For throughput and cost per message, never for
//! latency.

use std::time::{Duration, Instant};

use super::{Load, Protocol};
use crate::error::Result;
use crate::host;
use crate::server::Server;

/// What a closed loop measured.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Messages that ended in the measured time.
    pub messages: u64,
    /// The measured time, in seconds.
    pub seconds: f64,
    /// Processor time of the server in it, in microseconds.
    pub server_us: u64,
    /// Share of its processor that the generator used, from 0 to 1.
    pub generator: f64,
}

impl Throughput {
    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Processor time of the server per message, in microseconds.
    pub fn cost_us(&self) -> f64 {
        self.server_us as f64 / self.messages.max(1) as f64
    }

    /// Share of one processor that the server used, from 0 to 1 per processor.
    pub fn server(&self) -> f64 {
        self.server_us as f64 / (self.seconds * 1e6)
    }
}

impl<P: Protocol> Load<P> {
    /// Runs with `window` messages per flow, and measures `server` after the warm-up.
    pub fn closed(
        &mut self,
        window: u32,
        warm_up: Duration,
        measured: Duration,
        server: &Server,
    ) -> Result<Throughput> {
        self.keep_busy(window, warm_up)?;
        let before = (server.cpu_us()?, host::thread_cpu_us()?, Instant::now());
        let messages = self.keep_busy(window, measured)?;
        let elapsed = before.2.elapsed();
        let (server_us, own_us) = (server.cpu_us()? - before.0, host::thread_cpu_us()? - before.1);
        Ok(Throughput {
            messages,
            seconds: elapsed.as_secs_f64(),
            server_us,
            generator: own_us as f64 / elapsed.as_micros() as f64,
        })
    }

    /// Sends exactly `messages` with `window` per flow and waits for the end of every one.
    pub fn exactly(&mut self, messages: u64, window: u32) -> Result<()> {
        let (mut sent, mut ended) = (0, 0);
        while ended < messages {
            let now = self.clock.now();
            for flow in 0..self.flows.len() {
                while self.flows[flow].outstanding < window && sent < messages {
                    self.flows[flow].outstanding += 1;
                    sent += 1;
                    self.send(flow, 0, now)?;
                }
            }
            self.flush()?;
            let mut freed = Vec::new();
            self.pump(Some(Duration::from_secs(1)), |flow, _| freed.push(flow))?;
            ended += freed.len() as u64;
            freed.into_iter().for_each(|flow| self.flows[flow].outstanding -= 1);
        }
        self.flush()
    }

    /// Keeps every flow's window full for `time`. Returns how many messages ended in it.
    pub fn keep_busy(&mut self, window: u32, time: Duration) -> Result<u64> {
        let until = Instant::now() + time;
        let mut ended = 0;
        let mut freed: Vec<usize> = (0..self.flows.len()).collect();
        loop {
            self.refill(window, &mut freed)?;
            self.flush()?;
            if Instant::now() >= until {
                return Ok(ended);
            }
            self.pump(Some(Duration::from_millis(100)), |flow, _| freed.push(flow))?;
            ended += freed.len() as u64;
            for flow in &freed {
                self.flows[*flow].outstanding -= 1;
            }
        }
    }

    fn refill(&mut self, window: u32, freed: &mut Vec<usize>) -> Result<()> {
        let now = self.clock.now();
        for flow in freed.drain(..) {
            while self.flows[flow].outstanding < window {
                self.flows[flow].outstanding += 1;
                let stamp_ns = self.now_ns();
                self.send(flow, stamp_ns, now)?;
            }
        }
        Ok(())
    }
}
