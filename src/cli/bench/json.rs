//! Everything that was measured, for programs.

use serde_json::{Value, json};

use super::candidate::Candidate;
use super::results::{Asked, AtRate, Measured, Results};

/// The whole benchmark as one object.
pub fn json(results: &Results) -> Value {
    let machine = &results.machine;
    let named = |pairs: &[(&str, String)]| {
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(value.clone())))
            .collect::<serde_json::Map<_, _>>()
    };
    json!({
        "machine": {
            "cpu": machine.cpu,
            "cores": machine.cores,
            "memory_bytes": machine.memory_bytes,
            "os": machine.os,
            "load_before": machine.load,
        },
        "versions": named(&machine.versions),
        "conditions": results.conditions.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>(),
        "throughput": results.throughput.iter().map(|row| throughput(results, row)).collect::<Vec<_>>(),
        "latency": results.latency.iter().map(latency).collect::<Vec<_>>(),
    })
}

fn candidate(asked: &Asked, candidate: &Candidate) -> serde_json::Map<String, Value> {
    let setup = &candidate.setup;
    let pairs = [
        ("scenario", Value::from(asked.scenario.clone())),
        ("what", Value::from(asked.what.clone())),
        ("keys", Value::from(asked.keys)),
        ("engine", Value::from(candidate.engine.name())),
        ("strategy", Value::from(setup.strategy)),
        ("routing", Value::from(setup.routing)),
        ("partitions", Value::from(setup.partitions)),
        ("batch_rows", Value::from(setup.batch_rows)),
        ("handoff_rows", Value::from(setup.handoff_rows)),
        ("is_process", Value::from(candidate.is_process)),
        ("keys_in_every_file", Value::from(candidate.spread)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn throughput(results: &Results, row: &Measured) -> Value {
    let mut object = candidate(&row.asked, &row.candidate);
    let range = row.range();
    let memory = row.memory.as_ref();
    let samples = memory.map(|memory| memory.samples.iter().map(|(at, bytes)| json!([at, bytes])).collect::<Vec<_>>());
    let pairs = [
        ("rows_in", Value::from(row.rows_in)),
        ("rows_out", Value::from(row.rows_out)),
        ("checksum", Value::from(row.checksum.clone())),
        ("seconds", Value::from(row.seconds.clone())),
        ("median_s", Value::from(row.median())),
        ("min_s", Value::from(range.map(|range| range.0))),
        ("max_s", Value::from(range.map(|range| range.1))),
        ("rows_per_s", Value::from(row.rows_per_s())),
        ("ratio", Value::from(results.ratio(row))),
        ("share_of_scan", Value::from(results.share_of_scan(row))),
        ("memory_peak_bytes", Value::from(memory.map(|memory| memory.peak_bytes))),
        ("memory_samples_s_bytes", Value::from(samples)),
        ("note", Value::from(row.note.clone())),
    ];
    object.extend(pairs.into_iter().map(|(name, value)| (name.to_string(), value)));
    Value::Object(object)
}

fn latency(row: &AtRate) -> Value {
    let mut object = candidate(&row.asked, &row.candidate);
    let latency = row.latency.as_ref();
    let ms = |share: f64| latency.map(|latency| latency.at(share).as_secs_f64() * 1e3);
    let curve = super::curve::curve(row).into_iter().map(|(share, ms)| json!([share, ms])).collect::<Vec<_>>();
    let pairs = [
        ("rate_rows_per_s", Value::from(row.rate)),
        ("achieved_rows_per_s", Value::from(row.achieved())),
        ("waiting_rows", Value::from(if row.keeps_up() { 0 } else { row.waiting })),
        ("kept_up", Value::from(row.keeps_up())),
        ("rows", Value::from(latency.map(|latency| latency.rows()))),
        ("p50_ms", Value::from(ms(0.5))),
        ("p99_ms", Value::from(ms(0.99))),
        ("p99_9_ms", Value::from(ms(0.999))),
        ("max_ms", Value::from(ms(1.0))),
        ("curve_share_ms", Value::from(curve)),
        ("note", Value::from(row.note.clone())),
    ];
    object.extend(pairs.into_iter().map(|(name, value)| (name.to_string(), value)));
    Value::Object(object)
}
