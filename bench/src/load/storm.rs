//! A storm of logins: connections that are opened, taken through TLS and login, and closed, over and over.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::conn::Conn;
use super::{Load, Protocol, Throughput, source_of};
use crate::error::{Context, Result};
use crate::host;
use crate::server::Server;

impl<P: Protocol> Load<P> {
    /// Keeps `at_once` connections on their way to being ready; each is closed when it is, and `next` makes
    /// another. What is counted are those that became ready.
    pub fn storm(
        at_once: usize,
        server: &Server,
        mut next: impl FnMut() -> Result<P>,
        warm_up: Duration,
        measured: Duration,
    ) -> Result<Throughput> {
        let mut load = Self::new()?;
        for _ in 0..at_once {
            load.add(server.addr, 0, next()?)?;
        }
        load.churn(server.addr, &mut next, warm_up)?;
        let before = (server.cpu_us()?, host::thread_cpu_us()?, Instant::now());
        let messages = load.churn(server.addr, &mut next, measured)?;
        let elapsed = before.2.elapsed();
        let (server_us, own_us) = (server.cpu_us()? - before.0, host::thread_cpu_us()? - before.1);
        let generator = own_us as f64 / elapsed.as_micros() as f64;
        Ok(Throughput { messages, seconds: elapsed.as_secs_f64(), server_us, generator })
    }

    fn churn(
        &mut self,
        addr: SocketAddr,
        next: &mut impl FnMut() -> Result<P>,
        time: Duration,
    ) -> Result<u64> {
        let until = Instant::now() + time;
        let mut ready = 0;
        while Instant::now() < until {
            self.flush()?;
            self.pump(Some(Duration::from_millis(100)), |_, _| {})?;
            for at in 0..self.dirty.len() {
                let index = self.dirty[at];
                if self.conns[index].protocol.is_ready() {
                    self.replace(index, addr, next()?)?;
                    ready += 1;
                }
            }
        }
        Ok(ready)
    }

    /// Closes the connection number `index` and opens another in its place.
    fn replace(&mut self, index: usize, addr: SocketAddr, protocol: P) -> Result<()> {
        let mut conn = Conn::connect(source_of(0), addr, protocol)?;
        conn.protocol.open(self.clock.now(), &mut conn.unsent)?;
        conn.dirty = true;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.poll, conn.stream.as_fd(), data, epoll::EventFlags::IN)
            .context("watching a connection")?;
        let old: TcpStream = std::mem::replace(&mut self.conns[index], conn).stream;
        drop(old);
        Ok(())
    }
}
