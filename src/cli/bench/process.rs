//! A whole process, from start to exit, and its memory while it runs.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use streamlines::Error;

/// How often memory is looked at, and how often at first, for some processes soon end.
const SAMPLED_EVERY: Duration = Duration::from_millis(10);
const SAMPLED_EVERY_AT_FIRST: Duration = Duration::from_millis(1);
const AT_FIRST: Duration = Duration::from_millis(100);
/// What is resident of a process before it has become another program is less.
const LEAST_BYTES: u64 = 1 << 20;

/// What a process took.
#[derive(Debug, Clone)]
pub struct Used {
    pub seconds: f64,
    /// None where the system does not say.
    pub memory: Option<Memory>,
}

/// Resident memory of a process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    pub peak_bytes: u64,
    /// Seconds since the start, and bytes.
    pub samples: Vec<(f64, u64)>,
}

/// Runs a command to its end.
///
/// # Errors
/// A command that cannot be run, or that fails, with what it has to say.
pub fn run(command: &mut Command) -> Result<Used, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let wrong = |error: String| Error::data(format!("{name}: {error}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().map_err(|error| wrong(error.to_string()))?;
    let (process, has_ended) = (child.id(), AtomicBool::new(false));
    let mut errors = child.stderr.take();
    let (seconds, status, memory, said) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sampled(process, started, &has_ended));
        // What it says is taken while it runs: it must not wait for a reader.
        let reader = scope.spawn(|| {
            let mut said = String::new();
            // What cannot be read cannot be told.
            let _ = errors.as_mut().map(|errors| errors.read_to_string(&mut said));
            said
        });
        let status = child.wait();
        let seconds = started.elapsed().as_secs_f64();
        has_ended.store(true, Ordering::Relaxed);
        (seconds, status, sampler.join().unwrap_or_default(), reader.join().unwrap_or_default())
    });
    match status {
        Ok(status) if status.success() => Ok(Used { seconds, memory }),
        Ok(status) => Err(wrong(format!("{status}: {}", said.trim()))),
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn sampled(process: u32, started: Instant, has_ended: &AtomicBool) -> Option<Memory> {
    let mut memory = Memory::default();
    while !has_ended.load(Ordering::Relaxed) {
        if let Some((now, peak)) = resident(process).filter(|(now, _)| *now >= LEAST_BYTES) {
            memory.samples.push((started.elapsed().as_secs_f64(), now));
            memory.peak_bytes = memory.peak_bytes.max(peak).max(now);
        }
        std::thread::sleep(if started.elapsed() < AT_FIRST { SAMPLED_EVERY_AT_FIRST } else { SAMPLED_EVERY });
    }
    (!memory.samples.is_empty()).then_some(memory)
}

/// Bytes that are resident now, and the most that have been, of a process and those that it has started, on Linux.
fn resident(process: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let of_children = children.split_whitespace().filter_map(|child| resident(child.parse().ok()?));
    let (now, peak) = of_children.fold((0, 0), |total, child| (total.0 + child.0, total.1 + child.1));
    Some((bytes("VmRSS:")? + now, bytes("VmHWM:")? + peak))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_timed_and_its_memory_watched() {
        let used = run(Command::new("sleep").arg("0.1")).unwrap();
        assert!(used.seconds >= 0.1);
        if cfg!(target_os = "linux") {
            assert!(used.memory.is_some_and(|memory| memory.peak_bytes > 0 && memory.samples.len() > 1));
        }
    }

    #[test]
    fn what_a_failed_process_says_is_told() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
}
