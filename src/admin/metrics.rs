//! The counters of the cores as OpenMetrics text, read at the moment of the scrape.
//!
//! Every series carries the label `core`; sums are left to whoever asks, because a sum hides the one slow
//! core. Times are in seconds and sizes in bytes, as OpenMetrics wants; histograms have a bucket per power of
//! two.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit as MetricUnit};

use super::codes;
use super::{AdminState, Readiness};
use crate::stats::{About, CoreStats, Group, Histogram, Unit, Value, Vocabulary};

/// What `/metrics` answers with.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// A registry that shows `state`.
pub(super) fn registry(state: AdminState) -> Registry {
    let mut registry = Registry::with_prefix("trine");
    registry.register_collector(Box::new(NodeCollector { state }));
    registry
}

/// The whole exposition.
pub(super) fn render(registry: &Registry) -> Result<String, fmt::Error> {
    let mut out = String::new();
    text::encode(&mut out, registry)?;
    Ok(out)
}

#[derive(Debug)]
struct NodeCollector {
    state: AdminState,
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.node(&mut encoder)?;
        self.group(&mut encoder, |core| &core.link)?;
        self.group(&mut encoder, |core| &core.relay)?;
        self.group(&mut encoder, |core| &core.log)?;
        self.group(&mut encoder, |core| &core.rt)
    }
}

impl NodeCollector {
    fn node(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labels = [("version", self.state.version)];
        encoder
            .encode_descriptor("build", "The program that runs.", None, MetricType::Info)?
            .encode_info(&labels.as_slice())?;
        let ready = u32::from(self.state.readiness.get() == Readiness::Ready);
        encoder
            .encode_descriptor("ready", "Whether clients are served.", None, MetricType::Gauge)?
            .encode_gauge(&ready)?;
        encoder
            .encode_descriptor(
                "uptime",
                "Time since the process started.",
                Some(&MetricUnit::Seconds),
                MetricType::Gauge,
            )?
            .encode_gauge(&self.state.uptime_s())
    }

    fn group<G: Group>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        group: fn(&CoreStats) -> &G,
    ) -> fmt::Result {
        let Some(first) = self.state.stats.first() else { return Ok(()) };
        for series in G::SERIES {
            let about = &series.about;
            let unit = unit(about.unit);
            let kind = kind(&(series.read)(group(first)));
            let mut metric = encoder.encode_descriptor(about.name, about.help, unit.as_ref(), kind)?;
            for (number, core) in self.state.stats.iter().enumerate() {
                let labels = vec![("core", Cow::Owned(number.to_string()))];
                self.sample(&mut metric, about, labels, (series.read)(group(core)))?;
            }
        }
        Ok(())
    }

    fn sample(
        &self,
        metric: &mut MetricEncoder<'_>,
        about: &About,
        labels: Labels,
        value: Value<'_>,
    ) -> fmt::Result {
        match value {
            Value::Counter(count) => counter(metric, &labels, count),
            Value::Gauge(value) | Value::Peak(value) => metric.encode_family(&labels)?.encode_gauge(&value),
            Value::Oldest(since) => {
                let now_ms = (self.state.clock)().wall_ms;
                let age_s = since.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)) as f64 / 1e3;
                metric.encode_family(&labels)?.encode_gauge(&age_s)
            }
            Value::Coded(counters) => self.coded(metric, about, labels, counters),
            Value::ByClass(classes) => classes.into_iter().enumerate().try_for_each(|(class, counters)| {
                let mut labels = labels.clone();
                labels.push((Vocabulary::Class.label(), codes::class(self.state.code_name, class)));
                self.coded(metric, about, labels, counters)
            }),
            Value::Histogram(values) => histogram(metric, about.unit, &labels, values),
        }
    }

    fn coded(
        &self,
        metric: &mut MetricEncoder<'_>,
        about: &About,
        labels: Labels,
        counters: &[crate::stats::Counter],
    ) -> fmt::Result {
        let Some(vocabulary) = about.codes else { return Ok(()) };
        for (name, count) in codes::shown(self.state.code_name, vocabulary, counters) {
            let mut labels = labels.clone();
            labels.push((vocabulary.label(), name));
            counter(metric, &labels, count)?;
        }
        Ok(())
    }
}

fn counter(metric: &mut MetricEncoder<'_>, labels: &Labels, count: u64) -> fmt::Result {
    metric.encode_family(labels)?.encode_counter(&count, None::<&Exemplar<NoLabelSet, u64>>)
}

fn histogram(metric: &mut MetricEncoder<'_>, unit: Unit, labels: &Labels, values: &Histogram) -> fmt::Result {
    let scale = if unit == Unit::Micros { 1e-6 } else { 1.0 };
    let mut buckets: Vec<_> = values.cumulative().map(|(bound, n)| (bound as f64 * scale, n)).collect();
    // The last bucket has no upper bound; the encoder writes this as `+Inf`.
    let count = buckets.last_mut().map_or(0, |last| {
        last.0 = f64::INFINITY;
        last.1
    });
    let sum = values.sum() as f64 * scale;
    let mut counts_before = 0;
    for bucket in &mut buckets {
        // The encoder adds the buckets up itself.
        (bucket.1, counts_before) = (bucket.1 - counts_before, bucket.1);
    }
    metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

const fn kind(value: &Value<'_>) -> MetricType {
    match value {
        Value::Counter(_) | Value::Coded(_) | Value::ByClass(_) => MetricType::Counter,
        Value::Gauge(_) | Value::Peak(_) | Value::Oldest(_) => MetricType::Gauge,
        Value::Histogram(_) => MetricType::Histogram,
    }
}

const fn unit(unit: Unit) -> Option<MetricUnit> {
    match unit {
        Unit::Count => None,
        Unit::Bytes => Some(MetricUnit::Bytes),
        Unit::Micros | Unit::Since => Some(MetricUnit::Seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn scrape(state: AdminState) -> String {
        render(&registry(state)).unwrap()
    }

    #[test]
    fn counters_are_shown_per_core_with_help_type_and_unit() {
        let state = testing::state(2);
        state.stats[1].link.bytes_in.add(700);
        let text = scrape(state);
        for line in [
            "# HELP trine_link_received_bytes Bytes received from the network, encrypted.",
            "# TYPE trine_link_received_bytes counter",
            "# UNIT trine_link_received_bytes bytes",
            "trine_link_received_bytes_total{core=\"0\"} 0",
            "trine_link_received_bytes_total{core=\"1\"} 700",
            "trine_build_info{version=\"1.2.3\"} 1",
            "trine_uptime_seconds 60",
            "trine_ready 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn receipts_are_labelled_by_class_and_status() {
        let state = testing::state(1);
        state.stats[0].relay.receipts.inc(1, 1);
        state.stats[0].relay.rejects.inc(0, 9);
        let text = scrape(state);
        assert!(
            text.contains("trine_relay_receipts_total{core=\"0\",class=\"durable\",status=\"accepted\"} 0")
        );
        assert!(
            text.contains("trine_relay_receipts_total{core=\"0\",class=\"ephemeral\",status=\"accepted\"} 1")
        );
        assert!(text.contains("trine_relay_rejects_total{core=\"0\",class=\"durable\",reason=\"code_9\"} 1"));
    }

    #[test]
    fn latencies_are_shown_in_seconds_with_cumulative_buckets() {
        let state = testing::state(1);
        [100, 100, 1_000].into_iter().for_each(|us| state.stats[0].log.commit_latency_us.record(us));
        let text = scrape(state);
        let bucket = |le: &str| {
            let start = format!("trine_log_commit_latency_seconds_bucket{{le=\"{le}\",core=\"0\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
        };
        assert_eq!(bucket("0.000064").as_deref(), Some("0"), "{text}");
        assert_eq!(bucket("0.000128").as_deref(), Some("2"));
        assert_eq!(bucket("0.001024").as_deref(), Some("3"));
        assert_eq!(bucket("+Inf").as_deref(), Some("3"));
        assert!(text.contains("trine_log_commit_latency_seconds_sum{core=\"0\"} 0.0012"));
        assert!(text.contains("trine_log_commit_latency_seconds_count{core=\"0\"} 3"));
    }

    #[test]
    fn the_age_of_the_oldest_message_grows_with_the_clock() {
        let state = testing::state(1);
        state.stats[0].relay.oldest_queued.set(Some(998_500));
        assert!(scrape(state).contains("trine_relay_oldest_queued_age_seconds{core=\"0\"} 1.5"));
    }

    #[test]
    fn no_name_is_used_twice_and_none_repeats_a_suffix() {
        let text = scrape(testing::state(1));
        let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(!text.contains("_total_total") && !text.contains("bytes_bytes"));
    }
}
