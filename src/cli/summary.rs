//! The closing summary of a run.

use indicatif::HumanBytes;
use streamlines::{Progress, Summary};

use super::errors::say;
use super::options::QueryOptions;

/// Prints what a run has done; with a line for each pipeline if that is asked for. Of a statement that is no query,
/// the rows that it wrote are its result.
pub fn print(summary: &Summary, is_query: bool, options: &QueryOptions) {
    let progress = &summary.progress;
    let is_batch = options.strategy.as_deref() == Some("batch");
    if progress.pipelines.is_empty() && !is_batch {
        return;
    }
    say(&line(summary, is_query));
    if options.verbose {
        progress.pipelines.iter().enumerate().for_each(|(index, pipeline)| {
            say(&format!(
                "  pipeline {index}: {} in, {} out, {} late, {} windows, {}",
                count(pipeline.rows_in),
                count(pipeline.rows_out),
                count(pipeline.late_rows),
                count(pipeline.windows_closed),
                pipeline.name
            ));
        });
    }
    if let Some(share) = progress.keys_checked.filter(|share| *share < 1.0) {
        say(&format!("  'partitioned_by' was checked on {:.0} % of the rows", share * 100.0));
    }
}

fn line(summary: &Summary, is_query: bool) -> String {
    let progress = &summary.progress;
    let seconds = progress.elapsed.as_secs_f64();
    let streams = !progress.pipelines.is_empty();
    let mut parts = vec![];
    if streams {
        parts.push(format!("{} rows in = {}", count(progress.rows_in), fates(progress)));
    }
    if is_query {
        parts.push(format!("{} rows out", count(summary.rows_written)));
    }
    parts.extend(optional(progress));
    if progress.spilled_bytes > 0 {
        parts.push(format!("{} of state spilled to disk", HumanBytes(progress.spilled_bytes)));
    }
    if progress.checkpoints > 0 {
        parts.push(format!(
            "{} checkpoints of {} in {} ms",
            count(progress.checkpoints),
            HumanBytes(progress.checkpoint_bytes),
            count(progress.checkpoint_time.as_millis() as u64)
        ));
    }
    parts.push(format!("{seconds:.2} s"));
    if streams {
        parts.push(format!("{} rows/s", count((progress.rows_in as f64 / seconds.max(1e-9)) as u64)));
    }
    if summary.interrupted {
        parts.push("interrupted".to_string());
    }
    parts.join(", ")
}

/// What has become of the rows that were read: the terms add up to them.
fn fates(progress: &Progress) -> String {
    let Progress { rows_in, used_rows, filtered_rows, late_rows, between_rows, skipped_rows, .. } = progress;
    let told = used_rows + filtered_rows + late_rows + between_rows + skipped_rows;
    let terms = [
        (*used_rows, "used", true),
        (*filtered_rows, "filtered", false),
        (*late_rows, "late", true),
        (*between_rows, "between windows", false),
        (*skipped_rows, "skipped as malformed", false),
        // A LIMIT had its rows, or the run was interrupted.
        (rows_in.saturating_sub(told), "not needed", false),
    ];
    let told = terms.into_iter().filter(|(rows, _, always)| *always || *rows > 0);
    told.map(|(rows, what, _)| format!("{} {what}", count(rows))).collect::<Vec<_>>().join(" + ")
}

fn optional(progress: &Progress) -> Vec<String> {
    let counts = [
        (progress.late_partial_rows, "late for some of their windows"),
        (progress.null_time_rows, "without event time"),
        (progress.windows_closed, "windows"),
        (progress.forgotten_keys, "keys forgotten"),
    ];
    counts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", count(number)))
        .collect()
}

/// A number with separators.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A time to the second.
pub fn time(value: &datafusion::common::ScalarValue) -> String {
    let text = value
        .to_array()
        .ok()
        .and_then(|array| datafusion::arrow::util::display::array_value_to_string(array.as_ref(), 0).ok());
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            ["0", "12", "1,234", "12,345,678"],
            [0, 12, 1234, 12_345_678].map(super::count).each_ref().map(String::as_str)
        );
    }
}
