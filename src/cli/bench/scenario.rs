//! What is asked of each candidate: the scenarios on generated trades, or the user's own query.

use std::path::Path;

use streamlines::{Check, Error, Location, Setup, parse_statements};

/// The names of scenarios.
pub const SCENARIOS: [&str; 6] = ["0", "1", "2", "2c", "3a", "3b"];

const AGGREGATES: &str =
    "count(*) AS n, sum(quantity) AS total, avg(price) AS mean, min(price) AS low, max(price) AS high";

/// A question in the words of each engine.
#[derive(Debug, Clone)]
pub struct Question {
    pub name: String,
    pub what: String,
    /// What is measured as a stream.
    pub stream: String,
    /// What is measured as plain DataFusion: of changes, the final answer.
    pub datafusion: String,
    /// The same with ties broken as a stream breaks them, to compare answers.
    pub oracle: String,
    /// The same in DuckDB's words; or why there is none.
    pub duckdb: Result<String, String>,
    /// Whether rows are written as Parquet, and not just counted.
    pub is_written: bool,
    /// Whether what is measured as a stream are changes.
    pub is_changes: bool,
}

/// A scenario on trades in so many files.
pub fn scenario(name: &str, files: u64) -> Question {
    let group = format!("SELECT symbol, {AGGREGATES} FROM trades GROUP BY symbol");
    let window = format!(
        "SELECT symbol, window_start, {AGGREGATES} FROM trades GROUP BY symbol, tumble(event_time, INTERVAL '1 minute')"
    );
    match name {
        "0" => {
            let select =
                "SELECT symbol, event_time, price * quantity AS notional, trade_id FROM trades WHERE quantity > 500";
            Question { is_written: true, ..same(name, "filter and expressions to Parquet", select, select) }
        }
        "1" => rows_window(files),
        "2" => same(name, "GROUP BY", &group, &for_duckdb(&group)),
        "2c" => changes(same(name, "GROUP BY, a change for each row", &group, &for_duckdb(&group))),
        "3a" => same(name, "tumbling minutes", &window, &for_duckdb(&window)),
        _ => changes(same(name, "tumbling minutes, a change for each row", &window, &for_duckdb(&window))),
    }
}

fn same(name: &str, what: &str, sql: &str, duckdb: &str) -> Question {
    Question {
        name: name.to_string(),
        what: what.to_string(),
        stream: sql.to_string(),
        datafusion: sql.to_string(),
        oracle: sql.to_string(),
        duckdb: Ok(duckdb.to_string()),
        is_written: false,
        is_changes: false,
    }
}

fn changes(question: Question) -> Question {
    Question { stream: format!("{} EMIT CHANGES", question.stream), is_changes: true, ..question }
}

fn rows_window(files: u64) -> Question {
    let over = |order: &str| {
        format!(
            "SELECT symbol, event_time, avg(price) OVER (PARTITION BY symbol ORDER BY {order} \
             ROWS BETWEEN 99 PRECEDING AND CURRENT ROW) AS mean FROM trades"
        )
    };
    // Rows of one time keep the order of the files, then that in the file, which is that of trade_id.
    let tied = over(&format!("event_time, trade_id % {files}, trade_id"));
    Question { oracle: tied.clone(), ..same("1", "mean of the last 100 rows of a key", &over("event_time"), &tied) }
}

/// DuckDB has another name for the window, and sums whole numbers into 128 bits.
fn for_duckdb(sql: &str) -> String {
    sql.replace("sum(quantity)", "CAST(sum(quantity) AS BIGINT)")
        .replace("window_start,", "time_bucket(INTERVAL '1 minute', event_time) AS window_start,")
        .replace("tumble(event_time, INTERVAL '1 minute')", "window_start")
}

/// The query of a file.
///
/// # Errors
/// A file that cannot be read, or is empty.
pub fn own(path: &Path) -> datafusion::error::Result<Question> {
    let shown = path.display().to_string();
    let help = "--sql takes a file of one query, and --init one of its CREATE statements";
    let wrong = |error: String| Error::data(error).in_file(&shown).help(help);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let sql = text.trim().trim_end_matches(';').trim_end();
    let statements = parse_statements(&Setup::stream().session()?, sql)?;
    let only = match statements.as_slice() {
        [only] if Check::is_query(only) => only,
        [] | [_] => return Err(wrong("holds no query".to_string()).into()),
        several => return Err(wrong(format!("holds {} statements", several.len())).into()),
    };
    let emit = only.emit_at().map_or("", |at| emit_clause(sql, at));
    // Of what writes its rows somewhere only the query is measured.
    let of_rows = match only.is_query() {
        true => only.emit_at().map_or(sql, |at| before(sql, at)).to_string(),
        false => Check::query_text(only).unwrap_or_default(),
    };
    let name = path.file_stem().map_or(shown.clone(), |stem| stem.to_string_lossy().into_owned());
    let why = "--sql is in the words of DataFusion, which need not be those of DuckDB".to_string();
    let stream = format!("{of_rows} {emit}").trim_end().to_string();
    Ok(Question {
        stream,
        is_changes: only.emits_changes(),
        duckdb: Err(why),
        ..same(&name, "the query of --sql", &of_rows, "")
    })
}

/// The EMIT clause that begins at a place, up to the parenthesis that may enclose it.
fn emit_clause(text: &str, at: Location) -> &str {
    text[before(text, at).len()..].split(')').next().unwrap_or_default().trim()
}

/// The text before a place in it.
fn before(text: &str, at: Location) -> &str {
    let line = text.split_inclusive('\n').take(usize::try_from(at.line).unwrap_or(1).saturating_sub(1));
    let lines: usize = line.map(str::len).sum();
    let column = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
    let end = text[lines..].char_indices().nth(column).map_or(text.len(), |(offset, _)| lines + offset);
    text[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_before_a_place() {
        let at = |line, column| Location { line, column };
        assert_eq!(
            before("SELECT a -- é emit changes\n FROM t\n  EMIT CHANGES", at(3, 3)),
            "SELECT a -- é emit changes\n FROM t"
        );
        assert_eq!(before("SELECT 'é' EMIT FINAL", at(1, 12)), "SELECT 'é'");
    }

    #[test]
    fn what_is_written_is_measured_as_its_query() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.sql");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            own(&path).unwrap()
        };
        let copied = read("COPY (SELECT a FROM t GROUP BY a EMIT  changes per batch) TO 'x/' STORED AS PARQUET;");
        assert_eq!(copied.stream, "SELECT a FROM t GROUP BY a EMIT  changes per batch");
        assert_eq!((copied.datafusion.as_str(), copied.is_changes), ("SELECT a FROM t GROUP BY a", true));
        let plain = read("INSERT INTO s SELECT (a) FROM t");
        assert_eq!((plain.stream.as_str(), plain.is_changes), ("SELECT (a) FROM t", false));
        assert_eq!(read("SELECT 1 AS a emit FINAL -- of course").stream, "SELECT 1 AS a emit FINAL -- of course");
    }

    #[test]
    fn duckdb_has_the_same_columns() {
        let sql = scenario("3b", 2).duckdb.unwrap();
        assert!(sql.contains("AS window_start, count(*) AS n, CAST(sum(quantity) AS BIGINT) AS total"), "{sql}");
        assert!(sql.ends_with("GROUP BY symbol, window_start"), "{sql}");
    }
}
