//! The rows of pipelines that save themselves, kept beside the checkpoints until all pipelines have ended. What runs where
//! they meet (a last ORDER BY, an output that is one file) then begins with them, as often as it takes.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::ipc::reader::FileReader;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::checkpoint::ROWS;
use crate::error::Error;
use crate::exec::{no_expressions, streaming_properties};
use crate::runtime::boundary::PipelinesExec;
use crate::runtime::joined::joined;
use crate::sink::{Epochs, FileSink, OutputFormat, Sink};
use crate::store::root;

/// A folder with the rows of a job's pipelines, in files of Arrow IPC.
pub(super) struct KeptRows {
    folder: String,
    sink: FileSink,
}

impl KeptRows {
    /// The rows of the pipelines whose checkpoints are in `checkpoints`.
    ///
    /// # Errors
    /// A folder that cannot be.
    pub(super) fn open(checkpoints: &str, task: &TaskContext) -> Result<Self> {
        let folder = format!("{}/{ROWS}/", checkpoints.trim_end_matches('/'));
        let sink = FileSink::open(&folder, OutputFormat::Arrow, &task.runtime_env(), task.session_config())?;
        // They are asked for by name.
        let sink = sink.without_rolling();
        Ok(Self { folder, sink })
    }

    /// Where the pipelines put them.
    ///
    /// # Errors
    /// A folder that cannot be.
    pub(super) fn epochs(&self) -> Result<Arc<dyn Epochs>> {
        self.sink.epochs().ok_or_else(|| Error::data("is no folder").in_file(&self.folder).into())
    }

    /// The rows that are kept of the pipelines of a plan's node, the first of which has that number, once all of them are
    /// there: as many of each pipeline as it has given, in so many epochs.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) fn rows_of(
        &self,
        pipelines: &PipelinesExec,
        first: usize,
        epochs: &[u64],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (workers, given) = (pipelines.workers(), pipelines.rows_out());
        let mut expected = vec![0; workers];
        given.iter().enumerate().for_each(|(pipeline, rows)| expected[pipeline % workers] += rows);
        let numbers = first..first + given.len();
        Ok(Arc::new(KeptRowsExec {
            folder: self.folder.clone(),
            files: match self.sink.remote() {
                None => self.files(numbers, workers)?.into_iter().map(Files::Local).collect(),
                Some((store, folder)) => {
                    let numbered: Vec<(usize, u64)> = numbers.zip(epochs.iter().copied()).collect();
                    let objects = |worker| self.objects(folder, numbered.iter().skip(worker).step_by(workers.max(1)));
                    let files = |worker| Files::Remote { store: Arc::clone(store), objects: objects(worker) };
                    (0..workers).map(files).collect()
                }
            },
            expected,
            properties: streaming_properties(pipelines.rows_schema(), workers),
        }))
    }

    /// The same plan over rows that are kept, in place of the pipelines that have given them.
    pub(super) fn under(
        plan: &Arc<dyn ExecutionPlan>,
        all: &[&PipelinesExec],
        rows: &[Arc<dyn ExecutionPlan>],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows_of = |node: &PipelinesExec| {
            let place = all.iter().position(|pipelines| std::ptr::eq(*pipelines, node))?;
            rows.get(place).cloned()
        };
        let replaced = Arc::clone(plan).transform_up(|node| match node.downcast_ref().and_then(rows_of) {
            Some(rows) => Ok(Transformed::yes(rows)),
            None => Ok(Transformed::no(node)),
        });
        replaced.data()
    }

    /// The files for each worker: those of whole pipelines, in order.
    fn files(&self, numbers: Range<usize>, workers: usize) -> Result<Vec<Vec<PathBuf>>> {
        let mut files = vec![vec![]; workers];
        // Where no row was given there is no folder; rows that are missing are told when they are read.
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Ok(files) };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        let pipeline =
            |path: &Path| path.file_stem().and_then(|name| name.to_str()?.split('-').nth(1)?.parse::<usize>().ok());
        for path in paths {
            if let Some(pipeline) = pipeline(&path).filter(|pipeline| numbers.contains(pipeline)) {
                files[(pipeline - numbers.start) % workers].push(path);
            }
        }
        Ok(files)
    }
}

impl KeptRows {
    /// The objects that there may be of pipelines in a store: one of each epoch. They are asked for by their names, because
    /// listings of stores may lag behind.
    fn objects<'a>(&self, folder: &ObjectPath, pipelines: impl Iterator<Item = &'a (usize, u64)>) -> Vec<ObjectPath> {
        let names = pipelines.flat_map(|(pipeline, last)| (1..=*last).map(move |epoch| (*pipeline, epoch)));
        names.map(|(pipeline, epoch)| folder.clone().join(self.sink.name_in_epoch(pipeline, epoch))).collect()
    }
}

/// Where the rows of a worker are.
#[derive(Debug, Clone)]
enum Files {
    Local(Vec<PathBuf>),
    /// Objects of a store, of which some may not be.
    Remote {
        store: Arc<dyn ObjectStore>,
        objects: Vec<ObjectPath>,
    },
}

impl Files {
    fn batches(self) -> BoxStream<'static, Result<RecordBatch>> {
        match self {
            Self::Local(files) => stream::iter(files.into_iter().flat_map(|file| or_error(batches(&file)))).boxed(),
            Self::Remote { store, objects } => {
                let all = stream::iter(objects).then(move |object| {
                    let store = Arc::clone(&store);
                    async move { stream::iter(or_error(batches_of(store.as_ref(), &object).await)) }
                });
                all.flatten().boxed()
            }
        }
    }
}

/// The batches of an object; of one that is not there none.
async fn batches_of(store: &dyn ObjectStore, object: &ObjectPath) -> Result<Batches> {
    let bytes = match store.get(object).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(Box::new(std::iter::empty())),
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| not_read(object.as_ref(), root(&error)))?;
    read(Cursor::new(bytes), object.to_string())
}

/// Gives the rows that have been kept.
#[derive(Debug)]
struct KeptRowsExec {
    folder: String,
    files: Vec<Files>,
    /// Rows of each worker.
    expected: Vec<u64>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for KeptRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "KeptRowsExec: folder={}", self.folder)
    }
}

impl ExecutionPlan for KeptRowsExec {
    fn name(&self) -> &str {
        "KeptRowsExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }
    no_expressions!();
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(&self, worker: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let files = self.files.get(worker).cloned().unwrap_or(Files::Local(vec![]));
        let batches = files.batches();
        let left = AtomicU64::new(self.expected.get(worker).copied().unwrap_or_default());
        let (left, folder) = (Arc::new(left), self.folder.clone());
        let counted = Arc::clone(&left);
        let batches = batches.inspect(move |batch| {
            let rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
            counted.fetch_sub(rows as u64, Ordering::Relaxed);
        });
        // Told when all batches have been counted.
        let end = std::iter::once_with(move || match left.load(Ordering::Relaxed) {
            0 => None,
            _ => Some(Err(not_all(&folder).into())),
        });
        let checked = batches.chain(stream::iter(end.flatten()));
        let rows = RecordBatchStreamAdapter::new(self.schema(), checked);
        Ok(joined(Box::pin(rows), task.session_config().batch_size()))
    }
}

fn not_all(folder: &str) -> Error {
    let error = Error::data("does not hold the rows that the job's pipelines have given").in_file(folder);
    error.help("remove the folder of checkpoints, and run the job anew")
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

fn batches(file: &Path) -> Result<Batches> {
    let shown = file.display().to_string();
    read(BufReader::new(File::open(file).map_err(|error| not_read(&shown, &error))?), shown)
}

fn read(bytes: impl Read + Seek + Send + 'static, shown: String) -> Result<Batches> {
    let reader = FileReader::try_new(bytes, None).map_err(|error| not_read(&shown, &error))?;
    Ok(Box::new(reader.map(move |batch| batch.map_err(|error| not_read(&shown, &error).into()))))
}

fn not_read(file: &str, error: &dyn std::error::Error) -> Error {
    let error = Error::data(format!("cannot be read: {error}")).in_file(file);
    error.help("remove the folder of checkpoints, and run the job anew")
}

fn or_error(batches: Result<Batches>) -> Batches {
    batches.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
}
