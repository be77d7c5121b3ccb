//! What a configuration must satisfy. All problems are reported at once, each with its fix.

use std::fmt::{self, Display};

use shards::store::LANES_MAX;

use super::units::{AutoCount, Size, Span};
use super::{Config, Deadlines, Limits, SEGMENTS_PER_LANE_MIN, StoreConfig};

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid(pub Vec<String>);

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot work")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Invalid {}

impl Config {
    /// Refuses values that are out of range or contradict each other.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.addresses(self);
        check.store(&self.store, self.cores);
        check.limits(&self.limits);
        check.deadlines(&self.deadlines);
        if check.problems.is_empty() { Ok(()) } else { Err(Invalid(check.problems)) }
    }
}

#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn require(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    /// `value` must be from `min` to `max`.
    fn range<T: PartialOrd + Display>(&mut self, key: &str, value: T, min: T, max: T) {
        self.require(value >= min && value <= max, || {
            format!("{key} = {value} is out of range: set it between {min} and {max}")
        });
    }

    /// The value of `low` must not exceed the one of `high`.
    fn order<T: PartialOrd + Display>(&mut self, (low, low_value): (&str, T), (high, high_value): (&str, T)) {
        self.require(low_value <= high_value, || {
            format!("{low} = {low_value} is above {high} = {high_value}: lower the first or raise the second")
        });
    }

    fn addresses(&mut self, config: &Config) {
        let Config { data, listen, http, .. } = config;
        self.require(!data.as_os_str().is_empty(), || "data is empty: name a directory".into());
        self.require(listen != http || listen.port() == 0, || {
            format!("listen and http are both {listen}: give http another port")
        });
    }

    fn store(&mut self, store: &StoreConfig, cores: AutoCount) {
        let &StoreConfig { lanes, segment_bytes, max_bytes } = store;
        let lanes = match lanes {
            AutoCount::Count(lanes) => self.lanes(lanes, cores),
            AutoCount::Auto => 1,
        };
        let segments = u64::from(lanes) * SEGMENTS_PER_LANE_MIN;
        let needed = segments.saturating_mul(segment_bytes.as_bytes());
        self.require(max_bytes.as_bytes() >= needed, || {
            format!(
                "store.max_bytes = {max_bytes} is too little: {lanes} lanes need {segments} segments of \
                 {segment_bytes}; raise it to {} or make the segments smaller",
                Size::bytes(needed)
            )
        });
        self.range("store.segment_bytes", segment_bytes, Size::mib(4), Size::gib(1));
        self.require(segment_bytes.as_bytes().is_multiple_of(Size::mib(1).as_bytes()), || {
            format!("store.segment_bytes = {segment_bytes} is no multiple of 1 MiB: round it")
        });
    }

    fn lanes(&mut self, lanes: u16, cores: AutoCount) -> u16 {
        self.range("store.lanes", lanes, 1, LANES_MAX);
        self.require(lanes.is_power_of_two(), || {
            let lower = 1 << lanes.checked_ilog2().unwrap_or(0);
            format!("store.lanes = {lanes} is no power of two: set it to {lower} or {}", lower * 2)
        });
        if let AutoCount::Count(count) = cores {
            self.require(count <= lanes, || {
                format!(
                    "cores = {count} is above store.lanes = {lanes}: every core needs a lane; use fewer cores"
                )
            });
        }
        lanes
    }

    fn limits(&mut self, l: &Limits) {
        let million = 1_000_000;
        self.range("limits.connections_per_core_max", l.connections_per_core_max, 1, million);
        self.range("limits.half_open_per_core_max", l.half_open_per_core_max, 1, million);
        self.range("limits.connections_per_prefix_max", l.connections_per_prefix_max, 1, million);
        self.range("limits.connects_per_prefix_per_s", l.connects_per_prefix_per_s, 1, million);
        self.range("limits.connects_per_prefix_burst", l.connects_per_prefix_burst, 1, million);
        self.range("limits.mailboxes_per_core_max", l.mailboxes_per_core_max, 1, 64 * million);
        self.range("limits.queued_messages_per_core_max", l.queued_messages_per_core_max, 1, 1000 * million);
        self.range("limits.mailbox_messages_max", l.mailbox_messages_max, 1, 100 * million);
        self.range("limits.mailbox_bytes_max", l.mailbox_bytes_max, Size::kib(64), Size::gib(64));
        self.range("limits.devices_per_mailbox_max", l.devices_per_mailbox_max, 1, 64);
        self.range("limits.send_window_max", l.send_window_max, 1, 8192);
        self.range("limits.deliver_window_messages_max", l.deliver_window_messages_max, 1, 8192);
        // A window must hold the largest frame, or a message of that size could never be delivered.
        self.range(
            "limits.deliver_window_bytes_max",
            l.deliver_window_bytes_max,
            Size::kib(64),
            Size::mib(64),
        );
        self.range("limits.identity_messages_per_s", l.identity_messages_per_s, 1, 10 * million);
        self.range("limits.identity_messages_burst", l.identity_messages_burst, 1, 100 * million);
        self.range("limits.identity_bytes_per_s", l.identity_bytes_per_s, Size::kib(1), Size::gib(16));
        self.range("limits.identity_bytes_burst", l.identity_bytes_burst, Size::kib(64), Size::gib(16));
        self.range("limits.ttl_max", l.ttl_max, Span::seconds(1), Span::days(365));
        self.range("limits.ttl_default", l.ttl_default, Span::seconds(1), Span::days(365));
        self.range("limits.dedup_ids_max", l.dedup_ids_max, 1, million);
        self.range("limits.dedup_ids_per_core_max", l.dedup_ids_per_core_max, 1, 1000 * million);
        self.range("limits.dedup_window", l.dedup_window, Span::seconds(1), Span::days(30));
        self.order(("limits.ttl_default", l.ttl_default), ("limits.ttl_max", l.ttl_max));
        self.order(
            ("limits.half_open_per_core_max", l.half_open_per_core_max),
            ("limits.connections_per_core_max", l.connections_per_core_max),
        );
        self.order(
            ("limits.mailbox_messages_max", l.mailbox_messages_max),
            ("limits.queued_messages_per_core_max", l.queued_messages_per_core_max),
        );
        self.order(
            ("limits.dedup_ids_max", l.dedup_ids_max),
            ("limits.dedup_ids_per_core_max", l.dedup_ids_per_core_max),
        );
        // Else a resend after a lost connection could be taken for a new message.
        self.order(
            ("limits.send_window_max", u32::from(l.send_window_max)),
            ("limits.dedup_ids_max", l.dedup_ids_max),
        );
    }

    fn deadlines(&mut self, d: &Deadlines) {
        let (min, hour) = (Span::ms(100), Span::hours(1));
        self.range("deadlines.tls", d.tls, min, hour);
        self.range("deadlines.login", d.login, min, hour);
        self.range("deadlines.stall", d.stall, min, hour);
        self.range("deadlines.idle", d.idle, Span::seconds(1), Span::days(7));
        self.range("deadlines.drain", d.drain, min, hour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change that must be refused, and what the message must contain: the key and the fix.
    type Case = (fn(&mut Config), &'static str, &'static str);

    const SIXTEEN: AutoCount = AutoCount::Count(16);

    #[test]
    fn what_cannot_work_is_refused_with_the_key_and_the_fix() {
        let cases: &[Case] = &[
            (|c| c.data = "".into(), "data", "name a directory"),
            (|c| c.http = c.listen, "listen and http", "another port"),
            (|c| c.store.lanes = AutoCount::Count(12), "store.lanes = 12", "8 or 16"),
            (|c| c.store.lanes = AutoCount::Count(0), "store.lanes = 0", "1 or 2"),
            (|c| c.store.lanes = AutoCount::Count(512), "store.lanes = 512", "between 1 and 256"),
            (|c| (c.cores, c.store.lanes) = (AutoCount::Count(17), SIXTEEN), "cores = 17", "fewer cores"),
            (|c| c.store.segment_bytes = Size::kib(5_000), "store.segment_bytes", "round it"),
            (|c| (c.store.max_bytes, c.store.lanes) = (Size::gib(8), SIXTEEN), "8 GiB", "raise it to 16 GiB"),
            (|c| c.store.max_bytes = Size::mib(512), "store.max_bytes = 512 MiB", "raise it to 1 GiB"),
            (|c| c.limits.send_window_max = 0, "limits.send_window_max = 0", "between 1 and 8192"),
            (|c| c.limits.ttl_default = Span::days(31), "limits.ttl_default = 31d", "lower the first"),
            (|c| c.limits.dedup_ids_max = 100, "limits.send_window_max = 512", "raise the second"),
            (|c| c.limits.dedup_ids_per_core_max = 4_095, "limits.dedup_ids_max = 4096", "raise the second"),
            (|c| c.deadlines.drain = Span::hours(2), "deadlines.drain = 2h", "between 100ms and 1h"),
            (|c| c.deadlines.login = Span::ms(1), "deadlines.login = 1ms", "between 100ms and 1h"),
        ];
        for (change, key, fix) in cases {
            let mut config = Config::default();
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(key) && message.contains(fix), "{key}: {message}");
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut config = Config::default();
        config.limits.send_window_max = 0;
        config.limits.devices_per_mailbox_max = 0;
        assert_eq!(config.validate().unwrap_err().0.len(), 2);
    }

    #[test]
    fn ports_chosen_by_the_kernel_do_not_collide() {
        let mut config = Config::default();
        config.listen.set_port(0);
        config.http.set_port(0);
        assert_eq!(config.validate(), Ok(()));
    }
}
