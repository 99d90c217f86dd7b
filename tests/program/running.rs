//! Programs that run beside a test.

use std::process::{Child, Command as Process};
use std::time::{Duration, Instant};

pub fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

/// A run, which does not outlive a test that fails.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub fn signal(&self, name: &str) {
        assert!(Process::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// The exit code, when it has ended.
    pub fn code(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

pub fn wait_until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it takes more than two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}
