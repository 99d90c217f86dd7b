//! Where and with what something was measured.

use super::duckdb::DuckDb;

/// The machine and the versions.
#[derive(Debug, Clone)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub os: String,
    /// Processes that ran or wanted to, before anything was measured.
    pub load: Option<f64>,
    /// Names and versions.
    pub versions: Vec<(&'static str, String)>,
}

impl Machine {
    /// Asks the system.
    pub fn here(duckdb: Option<&DuckDb>) -> Self {
        let mut versions = vec![
            ("streamlines", format!("{} ({})", env!("CARGO_PKG_VERSION"), build())),
            ("DataFusion", datafusion::DATAFUSION_VERSION.to_string()),
        ];
        versions.extend(duckdb.map(|found| ("DuckDB", found.describe())));
        let unknown = || format!("{} of unknown model", std::env::consts::ARCH);
        Self {
            cpu: field("/proc/cpuinfo", "model name", ':').unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal", ':').as_deref().and_then(kilobytes),
            os: os(),
            load: load(),
            versions,
        }
    }
}

/// A build without optimizations is no measure of anything.
fn build() -> &'static str {
    if cfg!(debug_assertions) { "development build: figures are not those of a release" } else { "release build" }
}

/// The value of the first line with a key.
fn field(path: &str, key: &str, separator: char) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(separator))?;
    Some(value.trim().trim_matches('"').to_string())
}

fn kilobytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The average of the last minute, on Linux.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

fn os() -> String {
    let name = field("/etc/os-release", "PRETTY_NAME", '=').unwrap_or_else(|| std::env::consts::OS.to_string());
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(kernel) => format!("{name}, Linux {}", kernel.trim()),
        Err(_) => name,
    }
}
