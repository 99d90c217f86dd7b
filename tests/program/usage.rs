//! Help, wrong usage, completions.

use predicates::prelude::*;
use predicates::str::{contains, is_empty};

use crate::program;

#[test]
fn version_and_help() {
    let version = format!("streamlines {}\n", env!("CARGO_PKG_VERSION"));
    program().arg("--version").assert().success().stdout(version);
    let help = contains("Examples:").and(contains("streamlines sql"));
    program().arg("--help").assert().success().stdout(help);
    for command in ["run", "sql", "explain", "check", "completions"] {
        program().args([command, "--help"]).assert().success().stdout(contains("Example:\n  streamlines "));
    }
    program().args(["generate", "trades", "--help"]).assert().success().stdout(contains("--lateness"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["sql"],
        &["fly", "me"],
        &["sql", "SELECT 1", "--format", "xlsx"],
        &["sql", "SELECT 1", "--partitions", "0"],
        &["sql", "SELECT 1", "--progress", "sometimes"],
        &["sql", "SELECT 1", "--set", "partitions"],
        &["sql", "SELECT 1", "--set", "streamlines.nonsense=1"],
        &["explain", "SELECT 1", "--set", "nonsense.at_all=1"],
    ];
    for arguments in wrong {
        program().args(arguments).assert().code(2).stdout(is_empty()).stderr(is_empty().not());
    }
}

#[test]
fn completions_for_a_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        program().args(["completions", shell]).assert().success().stdout(contains("streamlines"));
    }
    program().args(["completions", "sed"]).assert().code(2);
}
