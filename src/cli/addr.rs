//! `HOST:PORT` as typed. Names are looked up when the connection is made, and again at every reconnect.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Port, not 0.
    pub port: u16,
}

/// Why a text is no `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no HOST:PORT; write for example 127.0.0.1:9001, node.example:9001 or [::1]:9001")]
pub struct HostPortError(String);

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let split = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.parse().ok().filter(|&port| port != 0)?;
            let host = match host.strip_prefix('[') {
                Some(inner) => {
                    inner.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?
                }
                None => host,
            };
            let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let plain = !host.is_empty() && host.chars().all(named);
            (plain || text.starts_with('[')).then(|| Self { host: host.into(), port })
        };
        split().ok_or_else(|| HostPortError(text.into()))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_by_name_and_number_are_read_and_written_alike() {
        for text in ["127.0.0.1:9001", "node.example:1", "[::1]:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        assert_eq!("[::1]:80".parse::<HostPort>().unwrap().host, "::1");
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for text in
            ["", "host", "host:", "host:0", "host:65536", ":9001", "::1:9001", "[x]:1", "[::1:1", "a b:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
