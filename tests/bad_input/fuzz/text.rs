//! CSV and JSON: files of rows with bytes changed, and with fields that nobody writes, read in every way that there is.

use std::fs;

use datafusion::error::Result;
use datafusion::prelude::SessionConfig;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use streamlines::streaming_session;
use tempfile::TempDir;

use super::inputs::{mutated, mutated_words, words};
use super::{Target, run};
use crate::mutated::{CSV, JSON, columns, queries};

pub(super) struct Text {
    folder: TempDir,
    format: &'static str,
    rows: Vec<String>,
}

impl Text {
    pub(super) async fn new(format: &'static str) -> Self {
        let rows = words(if format == "csv" { CSV } else { JSON });
        Self { folder: TempDir::new().unwrap(), format, rows }
    }

    fn bytes(&self, random: &mut ChaCha8Rng) -> Vec<u8> {
        let rows = match random.random_range(0..3) {
            0 => self.rows.clone(),
            _ => mutated_words(&self.rows, std::slice::from_ref(&self.rows), random),
        };
        let mut bytes = rows.concat().into_bytes();
        if random.random_bool(0.2) {
            let at = random.random_range(0..=bytes.len());
            bytes.splice(at..at, odd_part(random));
        }
        if random.random_bool(0.6) {
            bytes = mutated(&bytes, random);
        }
        match random.random_range(0..10) {
            0 => [b"\xef\xbb\xbf", &bytes[..]].concat(),
            1 => String::from_utf8_lossy(&bytes).replace('\n', "\r\n").into_bytes(),
            // More than one batch, and more than one part of a file.
            2 => bytes.repeat(200),
            _ => bytes,
        }
    }

    fn options(&self, random: &mut ChaCha8Rng) -> String {
        let of_csv = [
            "'on_error' 'skip'",
            "'has_header' 'false'",
            "'delimiter' ';'",
            "'quote' ''''",
            "'escape' '\\'",
            "'comment' '#'",
            "'null_value' 'x'",
            "'timestamp_format' '%d.%m.%Y %H:%M'",
            "'compression' 'gzip'",
            "'compression' 'zstd'",
        ];
        let of_json = ["'compression' 'gzip'", "'compression' 'zstd'"];
        let known = if self.format == "csv" { &of_csv[..] } else { &of_json };
        let number = if random.random_bool(0.4) { random.random_range(0..3) } else { 0 };
        let chosen: Vec<_> = known.choose_multiple(random, number).copied().collect();
        if chosen.is_empty() { String::new() } else { format!("OPTIONS ({})", chosen.join(", ")) }
    }
}

/// A long field, many fields, deep lists, many empty lines.
fn odd_part(random: &mut ChaCha8Rng) -> Vec<u8> {
    let times = *[100, 3000, 100_000].choose(random).unwrap();
    let part: &[u8] =
        [&b"x"[..], b",", b"[", b"{\"a\":", b"\n", b"\"", b"9", b"\0", b"\\u0000", b"\"\""].choose(random).unwrap();
    part.repeat(times)
}

impl Target for Text {
    async fn case(&mut self, random: &mut ChaCha8Rng) -> (String, Result<()>) {
        let file = self.folder.path().join(format!("trips.{}", self.format));
        fs::write(&file, self.bytes(random)).unwrap();
        let ctx = streaming_session(SessionConfig::new().with_target_partitions(2));
        let bound = *["", " AS ts - INTERVAL '5' SECOND"].choose(random).unwrap();
        let sql = queries(self.format, bound, &self.options(random));
        let at = file.display().to_string();
        let sql = sql.replace(&format!("'trips.{}'", self.format), &format!("'{at}'"));
        let sql = match random.random_range(0..4) {
            0 => format!("SELECT * FROM '{at}'"),
            1 => sql.replace(columns(self.format), ""),
            _ => sql,
        };
        let sql = format!("SET streamlines.batch_rows = {}; {sql}", [1, 3, 8192].choose(random).unwrap());
        let ran = run(&ctx, &sql).await;
        (sql, ran)
    }
}
