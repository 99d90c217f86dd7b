//! DuckDB, if there is one: its program, or its Python module.

use std::path::Path;
use std::process::Command;

use super::data::quoted;

/// Runs the statements of its first argument.
const SCRIPT: &str = "import sys, duckdb; duckdb.execute(sys.argv[1])";
const VERSION: &str = "import duckdb; print(duckdb.__version__)";

/// How DuckDB is run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuckDb {
    program: String,
    is_python: bool,
    pub version: String,
}

impl DuckDb {
    /// Looks for it.
    ///
    /// # Errors
    /// There is none: what was looked for.
    pub fn find() -> Result<Self, String> {
        if let Some(version) = said(Command::new("duckdb").arg("--version")) {
            return Ok(Self { program: "duckdb".to_string(), is_python: false, version });
        }
        let python = std::env::var("STREAMLINES_PYTHON").unwrap_or_else(|_| "python3".to_string());
        match said(Command::new(&python).args(["-c", VERSION])) {
            Some(version) => Ok(Self { program: python, is_python: true, version }),
            None => Err(format!(
                "no duckdb program on PATH, and no module duckdb of {python} (STREAMLINES_PYTHON names another one)"
            )),
        }
    }

    /// What was found, in words.
    pub fn describe(&self) -> String {
        let way = if self.is_python { "as a module of Python, whose start is in its times" } else { "as its program" };
        format!("{} ({way})", self.version)
    }

    /// A process that writes the rows of a query as Parquet.
    pub fn command(&self, init: &str, sql: &str, threads: usize, output: &Path) -> Command {
        let output = quoted(output);
        let text =
            format!("SET threads = {threads}; {init} COPY ({sql}) TO '{output}' (FORMAT parquet, COMPRESSION snappy);");
        let mut command = Command::new(&self.program);
        command.args(if self.is_python { ["-c", SCRIPT] } else { ["-init", "/dev/null"] });
        if !self.is_python {
            command.args(["-bail", "-c"]);
        }
        command.arg(text);
        command
    }
}

/// What a command prints, if it ends well.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
