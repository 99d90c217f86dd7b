//! The closing summary of a run.

use streamlines::{Progress, Summary};

/// Prints what a run has done; with a line for each pipeline if `verbose`.
pub fn print(summary: &Summary, verbose: bool) {
    let progress = &summary.progress;
    if progress.pipelines.is_empty() {
        return;
    }
    eprintln!("{}", line(summary));
    if verbose {
        progress.pipelines.iter().enumerate().for_each(|(index, pipeline)| {
            eprintln!(
                "  pipeline {index}: {} in, {} out, {} late, {} windows, {}",
                count(pipeline.rows_in),
                count(pipeline.rows_out),
                count(pipeline.late_rows),
                count(pipeline.windows_closed),
                pipeline.name
            );
        });
    }
    if let Some(share) = progress.keys_checked.filter(|share| *share < 1.0) {
        eprintln!("  'partitioned_by' was checked on {:.0} % of the rows", share * 100.0);
    }
}

fn line(summary: &Summary) -> String {
    let progress = &summary.progress;
    let seconds = progress.elapsed.as_secs_f64();
    let mut parts = vec![
        format!("{} rows in", count(progress.rows_in)),
        format!("{} rows out", count(summary.rows_written)),
        format!("{} late", count(progress.late_rows)),
    ];
    parts.extend(optional(progress));
    parts.push(format!("{seconds:.2} s"));
    parts.push(format!("{} rows/s", count((progress.rows_in as f64 / seconds.max(1e-9)) as u64)));
    if summary.interrupted {
        parts.push("interrupted".to_string());
    }
    parts.join(", ")
}

fn optional(progress: &Progress) -> Vec<String> {
    let counts = [
        (progress.null_time_rows, "without event time"),
        (progress.skipped_rows, "skipped as malformed"),
        (progress.windows_closed, "windows"),
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
