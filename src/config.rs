//! The `streamlines.*` settings: `SET streamlines.partitions = 2`, `--set`, or a session's configuration.

use std::any::Any;
use std::fmt::Display;
use std::time::Duration;

use datafusion::arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigField, ExtensionOptions, Visit};
use datafusion::common::{Result, config_namespace};

use crate::checkpoint::Interval;
use crate::error::Error;
use crate::source::Speed;

config_namespace! {
    /// Settings of the streaming engine.
    pub struct StreamlinesOptions {
        /// How a query runs: `partitioned` (a task for each worker, nothing shared), `inline` (one task, and a lock for each
        /// batch), `single_queue` (a reader, a coordinator and a writer with queues between them), or `batch` (plain
        /// DataFusion over the same files as tables: the oracle).
        pub strategy: String, default = "partitioned".to_string()
        /// How rows reach the pipeline that owns their key: `auto`, `aligned`, `merge_on_close`,
        /// `hash_at_source` or `exchange`.
        pub routing: String, default = "auto".to_string()
        /// How many pipelines run at once; 0 means one for each core.
        pub partitions: usize, default = 0
        /// Rows of a batch that a pipeline reads, up to 1048576; 0 means `datafusion.execution.batch_size`, by which a tail goes in any case.
        /// Where there are more keys than the processor's cache holds, a larger batch meets each of them more often.
        pub batch_rows: usize, default = 16_384
        /// Rows that the reader of `single_queue` hands over at once: 1 is each record by itself, 16384 whole batches.
        pub handoff_rows: usize, default = 1
        /// How fast rows come: `max`, as fast as they can be read; `1000rows/s`, so many in a second over all pipelines; or `60x`,
        /// by event time, so many times as fast as it went.
        pub speed: String, default = "max".to_string()
        /// Where late rows go, with the file and row that each comes from: a file, a folder (ending in `/`) with one file
        /// for each pipeline, or `:memory:`; empty for nowhere. A [`Job`](crate::Job) writes them.
        pub late: String, default = String::new()
        /// For how many workers data is divided; 0 means for as many as run at once, or, of a job that goes on from
        /// checkpoints, as many as when it began.
        pub divided_for: usize, default = 0
        /// A folder of checkpoints, or the URL of one in an object store that the session knows: a job saves its pipelines
        /// there, and goes on from where they were when it is run again; empty for none.
        pub checkpoint_dir: String, default = String::new()
        /// How often each pipeline saves itself: `10s`, `200ms`, `5min` or `1000000rows`.
        pub checkpoint_interval: String, default = "10s".to_string()
        /// How many checkpoints of each pipeline are kept.
        pub checkpoints_kept: usize, default = 3
        /// The bytes with which a file in a folder of output ends, and the next one begins; 0 for no end but that of the rows or,
        /// of a job that saves itself, of the epoch.
        pub roll_bytes: usize, default = 0
        /// How long a file in a folder of output is written to, or how many rows it gets: `15min` or `1000000rows`; empty for
        /// no end, as with `roll_bytes`.
        pub roll_interval: String, default = String::new()
        /// How long a run that gives no sign of life holds checkpoints in an object store before another one takes them over: `30s`,
        /// `5min`. A run that cannot reach the store for most of that time ends.
        pub checkpoint_lease: String, default = "30s".to_string()
        /// Whether a query over a stream that is followed may keep something of every key, or every value, that ever comes,
        /// and so grow for as long as new ones do.
        pub allow_unbounded_state: bool, default = false
        /// How long what is kept of a key without a window lives after the key's last row, in event time: `1h`, `30 days`; empty
        /// for ever. A row that comes later than that begins its key anew. It holds for EMIT CHANGES and OVER.
        pub state_ttl: String, default = String::new()
        /// Bytes to spend on checking that the keys of a declared `partitioned_by` live in one partition each.
        pub key_check_bytes: usize, default = 64 * 1024 * 1024
    }
}

impl ConfigExtension for StreamlinesOptions {
    const PREFIX: &'static str = "streamlines";
}

const DAY_NS: i64 = 86_400_000_000_000;

/// How a query may run; `batch` is the oracle of all others.
pub(crate) const STRATEGIES: [&str; 4] = ["partitioned", "inline", "single_queue", "batch"];
/// How rows may reach pipelines.
pub(crate) const ROUTINGS: [&str; 5] = ["auto", "aligned", "merge_on_close", "hash_at_source", "exchange"];

impl StreamlinesOptions {
    /// Whether jobs save themselves.
    pub(crate) fn saves(&self) -> bool {
        !self.checkpoint_dir.is_empty()
    }

    /// How long a run that gives no sign of life holds its checkpoints.
    ///
    /// # Errors
    /// Text that is no length of time.
    pub(crate) fn lease(&self) -> std::result::Result<Duration, Error> {
        match Interval::parse(&self.checkpoint_lease) {
            Ok(Interval::Time(lease)) => Ok(lease),
            _ => {
                let error = Error::sql(format!("checkpoint_lease '{}' is no length of time", self.checkpoint_lease));
                Err(error.help("write 30s or 5min"))
            }
        }
    }

    /// How long keys without a window live after their last row, in nanoseconds; none for ever.
    ///
    /// # Errors
    /// Text that is no length of time, or none that is fixed.
    pub(crate) fn ttl_ns(&self) -> std::result::Result<Option<i64>, Error> {
        if self.state_ttl.is_empty() {
            return Ok(None);
        }
        let parsed = parse_interval_month_day_nano(&self.state_ttl).ok().filter(|parsed| parsed.months == 0);
        let ns = parsed.and_then(|parsed| i64::from(parsed.days).checked_mul(DAY_NS)?.checked_add(parsed.nanoseconds));
        match ns.filter(|ns| *ns > 0) {
            Some(ns) => Ok(Some(ns)),
            None => {
                let error = Error::sql(format!("state_ttl '{}' is no length of time", self.state_ttl));
                Err(error.help("write 30min, 1h or 7 days; RESET streamlines.state_ttl keeps state for ever"))
            }
        }
    }

    /// When a file in a folder of output ends; none for never.
    ///
    /// # Errors
    /// Text that is no interval.
    pub(crate) fn roll_interval(&self) -> std::result::Result<Option<Interval>, Error> {
        let text = self.roll_interval.as_str();
        if text.is_empty() { Ok(None) } else { Interval::parse(text).map(Some) }
    }

    /// Checks the settings that have few values. A program may have put anything into the fields.
    ///
    /// # Errors
    /// A value that is none of them.
    pub(crate) fn check(&self) -> std::result::Result<(), Error> {
        for (key, value, accepted) in
            [("strategy", &self.strategy, &STRATEGIES[..]), ("routing", &self.routing, &ROUTINGS[..])]
        {
            if !accepted.contains(&value.as_str()) {
                let help = format!("streamlines.{key} is {}", accepted.join(" or "));
                return Err(Error::sql(format!("unknown {key} '{value}'")).help(help));
            }
        }
        if self.handoff_rows == 0 {
            let error = Error::sql("a handoff of no rows");
            return Err(error.help("streamlines.handoff_rows is 1 for each record by itself, or more"));
        }
        Interval::parse(&self.checkpoint_interval)?;
        self.roll_interval()?;
        self.lease()?;
        self.ttl_ns()?;
        Speed::parse(&self.speed).map(|_| ())
    }
}

impl ExtensionOptions for StreamlinesOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let mut changed = self.clone();
        ConfigField::set(&mut changed, key, value)?;
        changed.check()?;
        *self = changed;
        Ok(())
    }

    /// Under their full names, so that SHOW finds a setting by the name that SET takes.
    fn entries(&self) -> Vec<ConfigEntry> {
        let mut entries = Entries(vec![]);
        self.visit(&mut entries, Self::PREFIX, "");
        entries.0
    }
}

struct Entries(Vec<ConfigEntry>);

impl Visit for Entries {
    fn some<V: Display>(&mut self, key: &str, value: V, description: &'static str) {
        self.0.push(ConfigEntry { key: key.to_string(), value: Some(value.to_string()), description });
    }

    fn none(&mut self, key: &str, description: &'static str) {
        self.0.push(ConfigEntry { key: key.to_string(), value: None, description });
    }
}
