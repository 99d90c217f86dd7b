//! Errors as a person reads them.

use std::io::{IsTerminal, Write};

use datafusion::error::DataFusionError;

/// Prints an error with the place in `sql`, if it has one.
pub fn print(sql: &str, error: &DataFusionError) {
    let bold = std::io::stderr().is_terminal();
    let label = if bold { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    say(&format!("{label} {}", streamlines::render_error(sql, error)));
}

/// Prints a line to standard error. That nobody reads it is no failure of the run.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
