//! Compression of text output.

use std::io::Write;

use datafusion::common::Result;
use datafusion::common::config::TableOptions;
use datafusion::common::parsers::CompressionTypeVariant;

use super::OutputFormat;

/// Takes bytes and gives them compressed.
pub(super) enum Compressor {
    None,
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Whether output can be compressed so here.
pub(crate) fn compresses(compression: CompressionTypeVariant) -> bool {
    use CompressionTypeVariant::{GZIP, UNCOMPRESSED, ZSTD};
    matches!(compression, UNCOMPRESSED | GZIP | ZSTD)
}

/// What the options say of a format's compression; Parquet compresses inside of its files.
pub(super) fn compression_of(format: OutputFormat, options: &TableOptions) -> (CompressionTypeVariant, Option<u32>) {
    match format {
        OutputFormat::Csv => (options.csv.compression, options.csv.compression_level),
        OutputFormat::Json | OutputFormat::Ndjson => (options.json.compression, options.json.compression_level),
        _ => (CompressionTypeVariant::UNCOMPRESSED, None),
    }
}

/// What a file's extension says.
pub(super) fn compression_of_name(name: &str) -> CompressionTypeVariant {
    match std::path::Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("gz") => CompressionTypeVariant::GZIP,
        Some("zst") => CompressionTypeVariant::ZSTD,
        _ => CompressionTypeVariant::UNCOMPRESSED,
    }
}

/// What a compression adds to a file's name.
pub(super) fn suffix(compression: CompressionTypeVariant) -> &'static str {
    match compression {
        CompressionTypeVariant::GZIP => ".gz",
        CompressionTypeVariant::ZSTD => ".zst",
        _ => "",
    }
}

impl Compressor {
    /// A compressor at a level of its own scale, or at its usual one.
    ///
    /// # Errors
    /// A level that zstd does not have.
    pub(super) fn try_new((compression, level): (CompressionTypeVariant, Option<u32>)) -> Result<Self> {
        Ok(match compression {
            CompressionTypeVariant::GZIP => {
                let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
                Self::Gzip(flate2::write::GzEncoder::new(vec![], level))
            }
            CompressionTypeVariant::ZSTD => {
                let level = level.and_then(|level| i32::try_from(level).ok()).unwrap_or(0);
                Self::Zstd(zstd::stream::write::Encoder::new(vec![], level)?)
            }
            _ => Self::None,
        })
    }

    /// What has come out so far for these bytes and those before them.
    pub(super) fn compress(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(match self {
            Self::None => bytes,
            Self::Gzip(encoder) => {
                encoder.write_all(&bytes)?;
                std::mem::take(encoder.get_mut())
            }
            Self::Zstd(encoder) => {
                encoder.write_all(&bytes)?;
                std::mem::take(encoder.get_mut())
            }
        })
    }

    /// The rest.
    pub(super) fn finish(&mut self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::None => vec![],
            Self::Gzip(encoder) => {
                encoder.try_finish()?;
                std::mem::take(encoder.get_mut())
            }
            Self::Zstd(encoder) => {
                encoder.do_finish()?;
                std::mem::take(encoder.get_mut())
            }
        })
    }
}
