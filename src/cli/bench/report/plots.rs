//! Which plots there are: for each question speeds, what more pipelines gain, memory and latency.

use super::super::super::summary::count;
use super::super::candidate::Engine;
use super::super::curve::{curve, nines};
use super::super::results::{Asked, AtRate, Measured, Results};
use super::axis::Axis;
use super::bars::{Bar, bars};
use super::lines::{Line, Plot};
use super::names::Names;
use super::svg::escaped;

/// Sections of the page; those without a plot are empty.
pub struct Plots {
    pub throughput: String,
    pub scaling: String,
    pub memory: String,
    pub latency: String,
}

/// All plots.
pub fn all(results: &Results) -> Plots {
    let names = Names::of(results);
    let questions = groups(&results.throughput, title_of);
    let each = |title: &str, plot: &dyn Fn(&[&Measured]) -> Option<String>| {
        section(title, questions.iter().filter_map(|(_, rows)| plot(rows)).collect())
    };
    let at_rates = groups(&results.latency, |row| format!("{}, {} rows/s", question(&row.asked), count(row.rate)));
    Plots {
        throughput: each("Throughput", &|rows| throughput(rows, &names)),
        scaling: each("Scaling by partitions", &|rows| scaling(rows, &names)),
        memory: each("Memory over time", &|rows| memory(rows, &names)),
        latency: section("Latency", at_rates.iter().filter_map(|(at, rows)| latency(at, rows, &names)).collect()),
    }
}

/// Rows by what they have in common, in order.
fn groups<T>(rows: &[T], key: impl Fn(&T) -> String) -> Vec<(String, Vec<&T>)> {
    let mut groups: Vec<(String, Vec<&T>)> = vec![];
    for row in rows {
        let key = key(row);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups
}

/// Processes are compared with each other.
fn title_of(row: &Measured) -> String {
    let question = question(&row.asked);
    if row.candidate.is_process { format!("{question}, whole processes to Parquet") } else { question }
}

fn question(asked: &Asked) -> String {
    let keys = asked.keys.map(|keys| format!(", {} keys", count(keys))).unwrap_or_default();
    format!("{}: {}{keys}", asked.scenario, asked.what)
}

fn section(title: &str, figures: Vec<String>) -> String {
    match figures.is_empty() {
        true => String::new(),
        false => {
            format!("<section>\n<h2>{title}</h2>\n<div class=\"figures\">\n{}</div>\n</section>\n", figures.concat())
        }
    }
}

fn figure(title: &str, what: &str, drawn: &str) -> String {
    let (title, what) = (escaped(title), escaped(what));
    format!("<figure>\n<figcaption>{title} <small>{what}</small></figcaption>\n{drawn}</figure>\n")
}

fn throughput(rows: &[&Measured], names: &Names) -> Option<String> {
    let bar = |row: &&&Measured| {
        let value = row.rows_per_s()? / 1e6;
        let told = format!("{value:.2} M rows/s");
        Some(Bar { name: names.name(&row.candidate), value, told, color: names.color(&row.candidate) })
    };
    let all: Vec<_> = rows.iter().filter_map(|row| bar(&row)).collect();
    let title = title_of(rows.first()?);
    let drawn = bars(&all, &format!("Throughput of {title}; the table has the same figures"));
    (!all.is_empty()).then(|| figure(&title, "million rows read per second, median; × partitions", &drawn))
}

fn scaling(rows: &[&Measured], names: &Names) -> Option<String> {
    let mut lines: Vec<Line> = vec![];
    for row in rows {
        let Some(speed) = row.rows_per_s() else { continue };
        let (name, color) = (names.without_partitions(&row.candidate), names.color(&row.candidate));
        let point = (row.candidate.setup.partitions as f64, speed / 1e6);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name, points: vec![point], color, dash: 0, has_dots: true }),
        }
    }
    lines.retain(|line| line.points.len() > 1);
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let mut partitions: Vec<usize> = rows.iter().map(|row| row.candidate.setup.partitions).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let most = *partitions.last()? as f64;
    let highest = lines.iter().flat_map(|line| &line.points).map(|(_, speed)| *speed).fold(0.0, f64::max);
    let marks = partitions.iter().map(|count| (*count as f64, count.to_string())).collect();
    let x = Axis { label: "partitions".to_string(), from: 0.0, to: most, is_log: false, marks };
    let own = rows.iter().find(|row| row.candidate.engine == Engine::Streamlines)?;
    let first = lines.iter().find(|line| line.name == names.without_partitions(&own.candidate))?.points.first()?;
    let each = first.1 / first.0;
    let ideal = Some(("as fast for each partition as the first".to_string(), vec![(0.0, 0.0), (most, each * most)]));
    let y = Axis::linear("million rows/s", highest.max(each * most));
    let title = title_of(rows.first()?);
    let drawn = Plot { x, y, lines, ideal }.draw(&format!("Throughput of {title} by the number of partitions"));
    Some(figure(&title, "median", &drawn))
}

fn memory(rows: &[&Measured], names: &Names) -> Option<String> {
    let most = rows.iter().map(|row| row.candidate.setup.partitions).max()?;
    let line = |row: &&Measured| {
        let memory = row.memory.as_ref().filter(|_| row.candidate.setup.partitions == most)?;
        let points = memory.samples.iter().map(|(at, bytes)| (*at, *bytes as f64 / 1e6)).collect();
        Some(Line {
            name: names.name(&row.candidate),
            points,
            color: names.color(&row.candidate),
            dash: names.dash(&row.candidate),
            has_dots: false,
        })
    };
    let lines: Vec<_> = rows.iter().filter_map(line).collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let highest = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let (x, y) = (Axis::linear("seconds since start", highest(|p| p.0)), Axis::linear("resident MB", highest(|p| p.1)));
    let title = title_of(rows.first()?);
    let is_empty = lines.is_empty();
    let drawn = Plot { x, y, lines, ideal: None }.draw(&format!("Resident memory of {title} over time"));
    (!is_empty).then(|| figure(&title, "one run by a process of its own; × partitions", &drawn))
}

fn latency(title: &str, rows: &[&AtRate], names: &Names) -> Option<String> {
    let most = rows.iter().filter_map(|row| row.latency.as_ref()).map(|latency| latency.rows()).max()?;
    let line = |row: &&AtRate| {
        let points: Vec<_> = curve(row).into_iter().map(|(share, ms)| (nines(share, most), ms.max(1e-3))).collect();
        let behind = if row.keeps_up() { "" } else { " (did not keep up)" };
        let name = format!("{}{behind}", names.name(&row.candidate));
        (!points.is_empty()).then(|| Line {
            name,
            points,
            color: names.color(&row.candidate),
            dash: names.dash(&row.candidate),
            has_dots: false,
        })
    };
    let lines: Vec<_> = rows.iter().filter_map(line).collect();
    let ms = || lines.iter().flat_map(|line| &line.points).map(|(_, ms)| *ms);
    let y = Axis::log("milliseconds", ms().fold(f64::MAX, f64::min), ms().fold(0.0, f64::max));
    let to = nines(1.0, most);
    let shares = [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %"), (5.0, "99.999 %")];
    let marks = shares.into_iter().filter(|(nines, _)| *nines <= to).map(|(nines, text)| (nines, text.to_string()));
    let x = Axis { label: "share of the rows".to_string(), from: 0.0, to, is_log: false, marks: marks.collect() };
    let drawn = Plot { x, y, lines, ideal: None }.draw(&format!("Latency of {title} by percentile"));
    Some(figure(title, "from when a row was due to when what it caused was written", &drawn))
}
