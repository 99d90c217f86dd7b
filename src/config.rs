//! The `streamlines.*` settings: `SET streamlines.partitions = 2`, `--set`, or a session's configuration.

use datafusion::common::config::ConfigExtension;
use datafusion::common::extensions_options;

extensions_options! {
    /// Settings of the streaming engine.
    pub struct StreamlinesOptions {
        /// How a query runs: `partitioned` (one task for each pipeline) or `batch` (plain DataFusion over the same
        /// files as tables: the oracle).
        pub strategy: String, default = "partitioned".to_string()
        /// How rows reach the pipeline that owns their key: `auto`, `aligned` or `merge_on_close`.
        pub routing: String, default = "auto".to_string()
        /// How many pipelines run at once; 0 means one for each core.
        pub partitions: usize, default = 0
        /// Bytes to spend on checking that the keys of a declared `partitioned_by` live in one partition each.
        pub key_check_bytes: usize, default = 64 * 1024 * 1024
    }
}

impl ConfigExtension for StreamlinesOptions {
    const PREFIX: &'static str = "streamlines";
}
