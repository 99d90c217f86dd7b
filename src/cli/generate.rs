//! `streamlines generate`: data to try and to measure with.
//!
//! Trades come in order of arrival. The clock of arrivals moves evenly over the span; each event time is up to the
//! lateness behind it. Symbols are dealt to files, one partition each, so that a symbol lives in one file only, or are
//! in all of them. The same seed gives the same bytes: each file has a random sequence of its own.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use datafusion::arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use streamlines::Error;

use super::options::duration;
use super::summary::count;
use super::{FAILED, INTERRUPTED, errors, interrupts};

/// 2024-01-01T00:00:00 in µs.
const START_US: i64 = 1_704_067_200_000_000;
const BATCH_ROWS: u64 = 65_536;
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Kinds of data.
#[derive(Debug, Clone, Subcommand)]
pub enum Generate {
    /// Trades: symbol, event_time, price, quantity, trade_id.
    #[command(
        after_help = "Example:\n  streamlines generate trades --rows 10000000 --keys 200 --partitions 2 --lateness 5s --span 1h --seed 7 --format parquet --out data/"
    )]
    Trades(Trades),
}

impl Generate {
    /// Makes the data.
    pub fn run(self) -> u8 {
        let Self::Trades(trades) = self;
        match trades.write() {
            Ok(()) => 0,
            Err(error) => {
                errors::print("", &error.into());
                FAILED
            }
        }
    }
}

impl Generate {
    /// Waits for Ctrl-C from now on, takes away what is not finished, and ends the program.
    pub fn when_interrupted(self) -> impl Future<Output = ()> + Send + 'static {
        let Self::Trades(trades) = self;
        let is_new = !trades.out.exists();
        let pressed = interrupts::next();
        async move {
            if pressed.await.is_ok() {
                for partition in 0..trades.partitions {
                    // Those that have not begun, or are finished, are not there.
                    let _ = std::fs::remove_file(trades.unfinished(partition));
                }
                if is_new {
                    let _ = std::fs::remove_dir(&trades.out);
                }
                std::process::exit(i32::from(INTERRUPTED));
            }
        }
    }
}

/// Formats of generated files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// CSV with a header.
    Csv,
}

impl Format {
    /// What its files end in.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// Trades of shares.
#[derive(Debug, Clone, Args)]
pub struct Trades {
    /// Number of rows in all.
    #[arg(long, default_value_t = 1_000_000)]
    pub rows: u64,
    /// Number of symbols.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub keys: u64,
    /// Number of files; each symbol is in one of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub partitions: u64,
    /// Each symbol is in every file.
    #[arg(long)]
    pub spread: bool,
    /// 90 % of the rows are of one symbol.
    #[arg(long)]
    pub skew: bool,
    /// How far event times may be behind the clock: 5s, 500ms, 2m.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub lateness: Duration,
    /// How much event time the rows span: 1h, 1d.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub span: Duration,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Format of the files.
    #[arg(long, value_enum, default_value = "parquet")]
    pub format: Format,
    /// Folder to write to.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
}

impl Trades {
    /// Writes all files.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn write(&self) -> Result<(), Error> {
        if self.keys < self.partitions && !self.spread {
            use clap::CommandFactory;
            let message =
                format!("--keys {} for --partitions {}: every file needs a symbol", self.keys, self.partitions);
            super::Arguments::command().error(clap::error::ErrorKind::ValueValidation, message).exit();
        }
        let is_new = !self.out.exists();
        std::fs::create_dir_all(&self.out).map_err(|error| unwritable(&self.out, &error.to_string()))?;
        let written = self.write_partitions();
        if written.is_err() && is_new {
            // The error that is told is the first one.
            let _ = std::fs::remove_dir(&self.out);
        }
        written
    }

    /// Rows of the one symbol that has most of them, under --skew.
    fn rows_of_one_symbol(&self) -> u64 {
        if self.skew { self.rows / 10 * 9 } else { 0 }
    }

    /// Rows of one file: as many as of any other, but for that of the symbol that has most of them.
    fn rows_of(&self, partition: u64) -> u64 {
        let of_one = if self.spread { 0 } else { self.rows_of_one_symbol() };
        let even = (self.rows - of_one + self.partitions - 1 - partition) / self.partitions;
        if partition == 0 { even + of_one } else { even }
    }

    /// How many of the rows of a file are of the symbol that has most of them.
    fn share_of_one_symbol(&self, partition: u64) -> Option<f64> {
        let rows = if self.spread { self.rows } else { self.rows_of(partition) };
        let is_there = self.skew && (self.spread || partition == 0);
        is_there.then(|| self.rows_of_one_symbol() as f64 / rows.max(1) as f64)
    }

    fn write_partitions(&self) -> Result<(), Error> {
        let bar = self.bar();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = std::sync::atomic::AtomicU64::new(0);
        let results = std::thread::scope(|scope| {
            let worker = || {
                loop {
                    let partition = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if partition >= self.partitions {
                        return Ok(());
                    }
                    self.write_partition(partition, &bar)?;
                }
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err(Error::data("a writer failed"))))
                .collect::<Vec<_>>()
        });
        bar.finish_and_clear();
        results.into_iter().collect::<Result<(), Error>>()?;
        self.remove_earlier_partitions()
    }

    fn bar(&self) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(self.rows);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {percent:>3} %  {human_pos} rows  {rate} rows/s  {eta} left")
        {
            let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                // A bar that cannot be drawn is no failure.
                let _ = write!(text, "{}", count(state.per_sec() as u64));
            };
            bar.set_style(style.with_key("rate", rate));
        }
        bar
    }

    /// Takes away what an earlier run with more partitions left in this format, so that only this run's rows are there.
    fn remove_earlier_partitions(&self) -> Result<(), Error> {
        let wrong = |error: std::io::Error| unwritable(&self.out, &error.to_string());
        for entry in std::fs::read_dir(&self.out).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let partition = name.strip_prefix("trades-").and_then(|rest| rest.strip_suffix(self.format.extension()));
            let partition = partition.and_then(|rest| rest.strip_suffix('.')?.parse::<u64>().ok());
            if partition.is_some_and(|partition| partition >= self.partitions) {
                std::fs::remove_file(entry.path()).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// Where a file is while it is being written.
    pub fn unfinished(&self, partition: u64) -> PathBuf {
        self.out.join(format!("_trades-{partition}.{}.unfinished", self.format.extension()))
    }

    /// Writes one file under a name of its own, and gives it its place when it is whole.
    fn write_partition(&self, partition: u64, bar: &ProgressBar) -> Result<(), Error> {
        let extension = self.format.extension();
        let path = self.out.join(format!("trades-{partition}.{extension}"));
        let unfinished = self.unfinished(partition);
        let written = self
            .write_rows(partition, &unfinished, bar)
            .and_then(|()| std::fs::rename(&unfinished, &path).map_err(|error| unwritable(&path, &error.to_string())));
        if written.is_err() {
            // The error that is told is the first one.
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    fn write_rows(&self, partition: u64, path: &Path, bar: &ProgressBar) -> Result<(), Error> {
        let wrong = |error: String| unwritable(path, &error);
        let file = File::create(path).map_err(|error| wrong(error.to_string()))?;
        let mut rows = Rows::new(self, partition);
        match self.format {
            Format::Parquet => {
                let options = ArrowWriterOptions::new().with_properties(parquet_properties());
                let mut writer = ArrowWriter::try_new_with_options(
                    file,
                    dictionary_schema(),
                    options.with_skip_arrow_metadata(true),
                )
                .map_err(|error| wrong(error.to_string()))?;
                while let Some(batch) = rows.next_batch().map_err(wrong)? {
                    writer.write(&batch).map_err(|error| wrong(error.to_string()))?;
                    bar.inc(batch.num_rows() as u64);
                }
                writer.close().map_err(|error| wrong(error.to_string()))?;
            }
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(std::io::BufWriter::new(file));
                while let Some(batch) = rows.next_batch().map_err(wrong)? {
                    let batch = plain_strings(&batch).map_err(wrong)?;
                    writer.write(&batch).map_err(|error| wrong(error.to_string()))?;
                    bar.inc(batch.num_rows() as u64);
                }
            }
        }
        Ok(())
    }
}

fn unwritable(path: &Path, error: &str) -> Error {
    Error::data(format!("cannot be written: {error}"))
        .in_file(path.display().to_string())
        .help("check that the folder may be written to and that the disk has room")
}

/// Snappy, because what is measured with this data should not be the unpacking.
fn parquet_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build()
}

fn schema(symbol: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("symbol", symbol, false),
        Field::new("event_time", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("price", DataType::Float64, false),
        Field::new("quantity", DataType::Int64, false),
        Field::new("trade_id", DataType::Int64, false),
    ]))
}

/// Symbols as numbers into a list: made, and written to Parquet, without touching their text for each row.
fn dictionary_schema() -> SchemaRef {
    schema(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))
}

fn plain_strings(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let symbols =
        datafusion::arrow::compute::cast(batch.column(0), &DataType::Utf8).map_err(|error| error.to_string())?;
    let mut columns = batch.columns().to_vec();
    columns[0] = symbols;
    RecordBatch::try_new(schema(DataType::Utf8), columns).map_err(|error| error.to_string())
}

/// The rows of one file.
struct Rows {
    random: ChaCha8Rng,
    symbols: ArrayRef,
    /// Price of each symbol, in hundredths.
    prices: Vec<i64>,
    /// How many of the rows are of the first symbol, if most are.
    share_of_first: Option<f64>,
    partition: u64,
    partitions: u64,
    rows: u64,
    done: u64,
    span_us: u64,
    lateness_us: u64,
    schema: SchemaRef,
}

impl Rows {
    fn new(trades: &Trades, partition: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(trades.seed);
        random.set_stream(partition);
        let digits = (trades.keys - 1).max(1).to_string().len();
        let (first, step) = if trades.spread { (0, 1) } else { (partition, trades.partitions) };
        let names = (first..trades.keys).step_by(step as usize).map(|key| format!("S{key:0digits$}"));
        let symbols = StringArray::from_iter_values(names);
        let prices =
            (0..datafusion::arrow::array::Array::len(&symbols)).map(|_| random.random_range(1_000..50_000)).collect();
        Self {
            random,
            symbols: Arc::new(symbols),
            prices,
            share_of_first: trades.share_of_one_symbol(partition),
            partition,
            partitions: trades.partitions,
            rows: trades.rows_of(partition),
            done: 0,
            span_us: trades.span.as_micros() as u64,
            lateness_us: trades.lateness.as_micros() as u64,
            schema: dictionary_schema(),
        }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, String> {
        let rows = BATCH_ROWS.min(self.rows - self.done);
        if rows == 0 {
            return Ok(None);
        }
        let (mut keys, mut times, mut prices, mut quantities, mut ids) = (vec![], vec![], vec![], vec![], vec![]);
        for row in self.done..self.done + rows {
            let key = match self.share_of_first {
                Some(share) if self.random.random_bool(share) => 0,
                _ => self.random.random_range(0..self.prices.len() as u32),
            };
            let price = &mut self.prices[key as usize];
            *price = (*price + self.random.random_range(-25..=25)).max(100);
            let clock = (u128::from(self.span_us) * u128::from(row) / u128::from(self.rows)) as i64;
            keys.push(key as i32);
            times.push(START_US + clock - self.random.random_range(0..=self.lateness_us) as i64);
            prices.push(*price as f64 / 100.0);
            quantities.push(self.random.random_range(1..=1_000));
            ids.push((row * self.partitions + self.partition) as i64);
        }
        self.done += rows;
        let symbols = DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), Arc::clone(&self.symbols));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(symbols.map_err(|error| error.to_string())?),
            Arc::new(TimestampMicrosecondArray::from(times)),
            Arc::new(Float64Array::from(prices)),
            Arc::new(Int64Array::from(quantities)),
            Arc::new(Int64Array::from(ids)),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map(Some).map_err(|error| error.to_string())
    }
}
