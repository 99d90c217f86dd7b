//! The figures as text for a terminal.

use super::super::summary::count;
use super::candidate::Engine;
use super::results::{AtRate, Measured, Results};

/// A table of cells, of which those of the first columns are text and the others numbers. What is to know of a row, the
/// cell beyond the header, is below it.
fn table(header: &[&str], text_columns: usize, rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|cell| cell.to_string()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().chain([&header]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column < text_columns {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let note = row.get(header.len()).map(|note| format!("\n    └ {note}")).unwrap_or_default();
        format!("{}{note}", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let rule = widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  ");
    [line(&header), rule].into_iter().chain(rows.iter().map(line)).collect::<Vec<_>>().join("\n")
}

/// Everything, in sections.
pub fn text(results: &Results) -> String {
    let mut sections = vec![conditions(results)];
    if !results.throughput.is_empty() {
        sections.push(throughput(results));
    }
    if !results.latency.is_empty() {
        sections.push(latency(results));
    }
    sections.join("\n\n")
}

/// What the figures hold for, each with its name.
pub fn all_conditions(results: &Results) -> Vec<(String, String)> {
    let machine = &results.machine;
    let memory = machine.memory_bytes.map(|bytes| format!(", {:.1} GB of memory", bytes as f64 / 1e9));
    let named = |name: &str, value: String| (name.to_string(), value);
    let mut all = vec![
        named("machine", format!("{}, {} cores{}", machine.cpu, machine.cores, memory.unwrap_or_default())),
        named("system", machine.os.clone()),
    ];
    if let Some(load) = machine.load {
        all.push(named("load", format!("{load:.2} processes before the first run, on average over a minute")));
    }
    all.extend(machine.versions.iter().map(|(name, version)| named(name, version.clone())));
    all.extend(results.conditions.iter().map(|(name, value)| named(name, value.clone())));
    all
}

fn conditions(results: &Results) -> String {
    let all = all_conditions(results);
    let width = all.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    all.iter().map(|(name, value)| format!("{name:<width$}  {value}")).collect::<Vec<_>>().join("\n")
}

pub const THROUGHPUT: [&str; 12] = [
    "scenario",
    "keys",
    "candidate",
    "routing",
    "partitions",
    "batch rows",
    "median ms",
    "min–max ms",
    "rows/s",
    "ratio",
    "of scan",
    "peak MB",
];
/// Columns of text before the numbers.
pub const THROUGHPUT_TEXT: usize = 4;

/// The cells of a candidate; what is to know of it is last.
pub fn throughput_row(results: &Results, row: &Measured) -> Vec<String> {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "–".to_string());
    let setup = &row.candidate.setup;
    let range = row.range().map(|(low, high)| format!("{:.1}–{:.1}", low * 1e3, high * 1e3));
    let has_batches = matches!(row.candidate.engine, Engine::Scan | Engine::Streamlines);
    let mut cells = vec![
        row.asked.scenario.clone(),
        row.asked.keys.map(count).unwrap_or_default(),
        row.candidate.name(),
        row.candidate.routing().to_string(),
        setup.partitions.to_string(),
        if has_batches { count(setup.batch_rows as u64) } else { String::new() },
        shown(row.median().map(|median| format!("{:.1}", median * 1e3))),
        shown(range),
        shown(row.rows_per_s().map(|rows| count(rows as u64))),
        shown(results.ratio(row).map(|ratio| format!("{ratio:.2}"))),
        shown(results.share_of_scan(row).map(|share| format!("{:.0} %", share * 100.0))),
        shown(row.memory.as_ref().map(|memory| format!("{:.0}", memory.peak_bytes as f64 / 1e6))),
    ];
    cells.extend(row.note.clone());
    cells
}

fn throughput(results: &Results) -> String {
    let rows: Vec<_> = results.throughput.iter().map(|row| throughput_row(results, row)).collect();
    table(&THROUGHPUT, THROUGHPUT_TEXT, &rows)
}

pub const LATENCY: [&str; 12] = [
    "scenario",
    "keys",
    "candidate",
    "routing",
    "partitions",
    "batch rows",
    "rate, rows/s",
    "achieved, rows/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
];

/// The cells of a candidate at a rate; what is to know of it is last.
pub fn latency_row(row: &AtRate) -> Vec<String> {
    let ms = |share: f64| {
        let latency = row.latency.as_ref().map(|latency| latency.at(share));
        latency.map_or("–".to_string(), |latency| format!("{:.3}", latency.as_secs_f64() * 1e3))
    };
    let achieved = row.achieved().map(|rows| count(rows.round() as u64));
    let mut cells = vec![
        row.asked.scenario.clone(),
        row.asked.keys.map(count).unwrap_or_default(),
        row.candidate.name(),
        row.candidate.routing().to_string(),
        row.candidate.setup.partitions.to_string(),
        count(row.candidate.setup.batch_rows as u64),
        count(row.rate),
        achieved.unwrap_or_else(|| "–".to_string()),
        ms(0.5),
        ms(0.99),
        ms(0.999),
        ms(1.0),
    ];
    let behind = (row.latency.is_some() && !row.is_at_rate()).then(|| match (row.keeps_up(), row.waiting) {
        (true, _) => "kept up with what was due: partitions are uneven, and some had ended".to_string(),
        (false, _) if row.candidate.setup.routing == "exchange" => {
            "did not keep up: its one reader waits for the pipeline with most rows, and each takes rows at like speed"
                .to_string()
        }
        (false, 0) => "did not keep up".to_string(),
        (false, waiting) => format!("did not keep up: {} rows still waited", count(waiting)),
    });
    let notes: Vec<String> = behind.into_iter().chain(row.note.clone()).collect();
    cells.extend((!notes.is_empty()).then(|| notes.join("; ")));
    cells
}

fn latency(results: &Results) -> String {
    table(&LATENCY, THROUGHPUT_TEXT, &results.latency.iter().map(latency_row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_on_the_left_and_numbers_on_the_right() {
        let rows =
            vec![vec!["a".to_string(), "1".to_string()], vec!["bcd".to_string(), "23".to_string(), "note".to_string()]];
        assert_eq!(table(&["x", "number"], 1, &rows), "x    number\n───  ──────\na         1\nbcd      23\n    └ note");
    }
}
