//! Shell completions.

use std::io::Write;

/// Prints the completions of a command.
pub fn print<C: clap::CommandFactory>(shell: clap_complete::Shell) -> u8 {
    let mut script = vec![];
    clap_complete::generate(shell, &mut C::command(), "streamlines", &mut script);
    // Nobody reading any more is no failure.
    let _ = std::io::stdout().write_all(&script);
    0
}
