//! The data of a benchmark: trades that are made once and kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use streamlines::Error;

use super::super::errors::say;
use super::super::generate::{Format, Trades};
use super::super::summary::count;
use super::options::BenchOptions;
use super::scratch::Leftovers;

const LATENESS: Duration = Duration::from_secs(5);
const SPAN: Duration = Duration::from_secs(3600);
const SEED: u64 = 7;

/// Trades in files.
#[derive(Debug, Clone)]
pub struct DataSet {
    pub rows: u64,
    pub keys: u64,
    pub files: u64,
    /// Whether each symbol is in every file.
    pub spread: bool,
    pub skew: bool,
    pub format: Format,
    pub folder: PathBuf,
}

impl DataSet {
    /// Makes the trades, if they are not there.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn make(options: &BenchOptions, keys: u64, spread: bool, leftovers: &Leftovers) -> Result<Self, Error> {
        let root = options.data.clone().unwrap_or_else(|| std::env::temp_dir().join("streamlines-bench"));
        let files = if spread { options.files() } else { options.files().min(keys) };
        let (rows, skew, format) = (options.rows, options.skew, options.format);
        let extension = format.extension();
        let name = format!(
            "trades-{rows}-rows-{keys}-keys-{files}-files{}{}-{extension}",
            if spread { "-spread" } else { "" },
            if skew { "-skew" } else { "" }
        );
        let folder = std::path::absolute(root.join(name)).map_err(|error| Error::data(error.to_string()))?;
        let set = Self { rows, keys, files, spread, skew, format, folder };
        // Files get their names when they are whole.
        if !set.paths().iter().all(|path| path.exists()) {
            say(&format!("making {} in {}", set.describe(), set.folder.display()));
            let trades = set.trades();
            let unfinished = (0..files).map(|file| trades.unfinished(file)).collect();
            leftovers.while_making(unfinished, || trades.write())?;
        }
        Ok(set)
    }

    fn trades(&self) -> Trades {
        Trades {
            rows: self.rows,
            keys: self.keys,
            partitions: self.files,
            spread: self.spread,
            skew: self.skew,
            lateness: LATENESS,
            span: SPAN,
            seed: SEED,
            format: self.format,
            out: self.folder.clone(),
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let extension = self.format.extension();
        (0..self.files).map(|file| self.folder.join(format!("trades-{file}.{extension}"))).collect()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.paths().iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The stream of these files.
    pub fn create_stream(&self) -> String {
        // Text that holds no rows does not say what its columns are.
        let (stored_as, columns) = match self.format {
            Format::Parquet => ("PARQUET", ""),
            Format::Csv => {
                ("CSV", "symbol VARCHAR, event_time TIMESTAMP(6), price DOUBLE, quantity BIGINT, trade_id BIGINT, ")
            }
        };
        let partitions = if self.spread { "'partitions' 'files'" } else { "'partitioned_by' 'symbol'" };
        format!(
            "CREATE STREAM trades ({columns}WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND) \
             STORED AS {stored_as} LOCATION '{}/' OPTIONS ({partitions});",
            quoted(&self.folder)
        )
    }

    /// The same as a view of DuckDB's.
    pub fn create_view(&self) -> String {
        let columns = "auto_detect = false, header = true, columns = {'symbol': 'VARCHAR', 'event_time': 'TIMESTAMP', 'price': 'DOUBLE', 'quantity': \
                       'BIGINT', 'trade_id': 'BIGINT'}";
        let folder = quoted(&self.folder);
        let files = match self.format {
            Format::Parquet => format!("read_parquet('{folder}/*.parquet')"),
            Format::Csv => format!("read_csv('{folder}/*.csv', {columns})"),
        };
        format!("CREATE VIEW trades AS SELECT * FROM {files};")
    }

    /// The trades in words.
    pub fn describe(&self) -> String {
        format!(
            "{} trades of {} symbols in {} {} files{}{}",
            count(self.rows),
            count(self.keys),
            self.files,
            self.format.extension(),
            if self.spread { ", each symbol in every file" } else { ", each symbol in one file" },
            if self.skew { ", 90 % of the rows of one symbol" } else { "" }
        )
    }
}

/// A path within quotes.
pub fn quoted(path: &Path) -> String {
    path.display().to_string().replace('\'', "''")
}
