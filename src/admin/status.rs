//! The same counters as JSON, with totals and quantiles, for people and for `trine status`.

use serde_json::{Map, Value as Json, json};

use super::{AdminState, codes};
use crate::stats::{About, CoreStats, Counter, Group, Histogram, Unit, Value, quantile};

/// The document that `/statusz` answers with.
pub(super) fn document(state: &AdminState) -> Json {
    let cores: Vec<&CoreStats> = state.stats.iter().collect();
    let sum = |read: fn(&CoreStats) -> u64| cores.iter().map(|core| read(core)).sum::<u64>();
    let latencies: Vec<&Histogram> = cores.iter().map(|core| &core.log.commit_latency_us).collect();
    json!({
        "version": state.version,
        "node_id": state.node_id,
        "state": state.readiness.get().as_str(),
        "uptime_s": state.uptime_s(),
        "cores": cores.len(),
        "store": {
            "used_bytes": sum(|core| core.log.store_used_bytes.get()),
            "limit_bytes": sum(|core| core.log.store_limit_bytes.get()),
        },
        "commit_latency_us": distribution(&latencies),
        "limits": state.limits,
        "total": figures(state, &cores),
        "per_core": cores.iter().map(|core| figures(state, &[core])).collect::<Vec<_>>(),
    })
}

/// Every series of `cores` put together.
fn figures(state: &AdminState, cores: &[&CoreStats]) -> Json {
    let mut all = Map::new();
    add_group(&mut all, state, cores, |core| &core.link);
    add_group(&mut all, state, cores, |core| &core.relay);
    add_group(&mut all, state, cores, |core| &core.log);
    add_group(&mut all, state, cores, |core| &core.rt);
    all.into()
}

fn add_group<G: Group>(
    all: &mut Map<String, Json>,
    state: &AdminState,
    cores: &[&CoreStats],
    group: fn(&CoreStats) -> &G,
) {
    for series in G::SERIES {
        let values: Vec<_> = cores.iter().map(|core| (series.read)(group(core))).collect();
        all.insert(key(&series.about), figure(state, &series.about, &values));
    }
}

/// Name of a series with its unit.
fn key(about: &About) -> String {
    let suffix = match about.unit {
        Unit::Count => "",
        Unit::Bytes => "_bytes",
        Unit::Micros => "_us",
        Unit::Since => "_ms",
    };
    format!("{}{suffix}", about.name)
}

/// One series of several cores put together as its kind asks.
fn figure(state: &AdminState, about: &About, values: &[Value<'_>]) -> Json {
    let numbers = || values.iter().filter_map(number);
    match values.first() {
        None => Json::Null,
        Some(Value::Counter(_) | Value::Gauge(_)) => numbers().sum::<u64>().into(),
        Some(Value::Peak(_)) => numbers().max().into(),
        Some(Value::Oldest(_)) => {
            let now_ms = (state.clock)().wall_ms;
            numbers().min().map_or(0, |since_ms| now_ms.saturating_sub(since_ms)).into()
        }
        Some(Value::Coded(_)) => {
            let rows = values
                .iter()
                .filter_map(|value| if let Value::Coded(row) = value { Some(*row) } else { None });
            coded(state, about, rows)
        }
        Some(Value::ByClass(classes)) => (0..classes.len())
            .map(|class| {
                let rows = values.iter().filter_map(|value| {
                    if let Value::ByClass(rows) = value { Some(rows[class]) } else { None }
                });
                (codes::class(state.code_name, class).into_owned(), coded(state, about, rows))
            })
            .collect::<Map<_, _>>()
            .into(),
        Some(Value::Histogram(_)) => {
            let all: Vec<_> = values
                .iter()
                .filter_map(|value| if let Value::Histogram(h) = value { Some(*h) } else { None })
                .collect();
            distribution(&all)
        }
    }
}

/// The number of a reading that has one.
fn number(value: &Value<'_>) -> Option<u64> {
    match *value {
        Value::Counter(n) | Value::Gauge(n) | Value::Peak(n) => Some(n),
        Value::Oldest(since) => since,
        Value::Coded(_) | Value::ByClass(_) | Value::Histogram(_) => None,
    }
}

/// The sums of several arrays of coded counters, by name; codes that were never counted are left out.
fn coded<'a>(state: &AdminState, about: &About, rows: impl Iterator<Item = &'a [Counter]>) -> Json {
    let mut sums = Map::new();
    let Some(vocabulary) = about.codes else { return Json::Null };
    for row in rows {
        for (name, count) in codes::shown(state.code_name, vocabulary, row).filter(|&(_, count)| count > 0) {
            let before = sums.get(name.as_ref()).and_then(Json::as_u64).unwrap_or(0);
            sums.insert(name.into_owned(), (before + count).into());
        }
    }
    sums.into()
}

fn distribution(histograms: &[&Histogram]) -> Json {
    json!({
        "count": histograms.iter().map(|h| h.count()).sum::<u64>(),
        "sum": histograms.iter().map(|h| h.sum()).sum::<u64>(),
        "p50": quantile(histograms, 0.5),
        "p99": quantile(histograms, 0.99),
        "p999": quantile(histograms, 0.999),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn totals_put_the_cores_together_as_their_kind_asks() {
        let state = testing::state(2);
        let [a, b] = [&state.stats[0], &state.stats[1]];
        a.link.bytes_in.add(1);
        b.link.bytes_in.add(2);
        a.rt.crossing_depth_max.observe(7);
        b.rt.crossing_depth_max.observe(5);
        b.relay.oldest_queued.set(Some(999_000));
        a.link.connections_closed.inc(3);
        b.link.connections_closed.inc(3);
        b.relay.receipts.inc(0, 1);
        b.log.store_limit_bytes.set(10);
        let document = document(&state);
        let total = &document["total"];
        assert_eq!(total["link_received_bytes"], 3);
        assert_eq!(total["rt_crossing_depth_max_bytes"], 7);
        assert_eq!(total["relay_oldest_queued_age_ms"], 1_000);
        assert_eq!(total["link_connections_closed"], json!({"code_3": 2}));
        assert_eq!(total["relay_receipts"], json!({"durable": {"accepted": 1}, "ephemeral": {}}));
        assert_eq!(document["per_core"][1]["link_received_bytes"], 2);
        assert_eq!(document["store"]["limit_bytes"], 10);
    }

    #[test]
    fn the_node_says_who_it_is_and_what_it_allows() {
        let document = document(&testing::state(1));
        assert_eq!(document["version"], "1.2.3");
        assert_eq!(document["node_id"], "node1test");
        assert_eq!(document["state"], "starting");
        assert_eq!(document["uptime_s"], 60);
        assert_eq!(document["limits"]["mailbox_bytes_max"], "64 MiB");
        assert_eq!(document["commit_latency_us"]["p99"], Json::Null);
    }

    #[test]
    fn latencies_of_all_cores_make_one_distribution() {
        let state = testing::state(2);
        (0..99).for_each(|_| state.stats[0].log.commit_latency_us.record(50));
        state.stats[1].log.commit_latency_us.record(100);
        let latency = &document(&state)["commit_latency_us"];
        assert_eq!([&latency["p50"], &latency["p99"], &latency["p999"]], [50, 50, 100]);
    }
}
