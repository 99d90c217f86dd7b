//! Panics: those of libraries that become errors are told once, as errors; any other is told as the bug that it is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::errors::say;

/// What a program that has a bug exits with, as Rust has it.
const PANICKED: u8 = 101;

/// Runs the program. With `RUST_BACKTRACE` every panic is told where it happens, too.
pub fn told(run: impl FnOnce() -> u8) -> u8 {
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|wanted| wanted == "0") {
        std::panic::set_hook(Box::new(|_| {}));
    }
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        say(&format!("error: the program panicked: {}", text.unwrap_or("it did not say why")));
        say("  help: this is a bug; RUST_BACKTRACE=1 shows where it is");
        PANICKED
    })
}
