//! Whether an answer is that of plain DataFusion.

use datafusion::error::DataFusionError;
use streamlines::{Checksum, Error};

use super::candidate::Engine;
use super::results::{Asked, Measured};

/// Judges the answers to one question over the same files.
#[derive(Debug)]
pub struct Judge {
    /// That of plain DataFusion.
    batch: Checksum,
    /// Whether that breaks ties as a stream does.
    breaks_ties: bool,
    /// Where plain DataFusion may answer otherwise, the first answer of this engine.
    first: Option<Checksum>,
}

impl Judge {
    /// By the answer of plain DataFusion, which may break ties as a stream does.
    pub fn new(batch: Checksum, breaks_ties: bool) -> Self {
        Self { batch, breaks_ties, first: None }
    }

    /// What to note of an answer.
    ///
    /// # Errors
    /// An answer that is wrong, with the values.
    pub fn verdict(&mut self, measured: &Measured, found: &Checksum) -> Result<Option<String>, Error> {
        if let Some(why) = &found.why_not_folded {
            return Ok(Some(format!("not compared: {why}")));
        }
        let Some(difference) = self.batch.difference(found) else { return Ok(None) };
        if measured.candidate.engine == Engine::Streamlines
            && measured.candidate.is_process
            && let Some(first) = &self.first
        {
            // What it wrote does not say which rows were late, or what was left open: that of this process does.
            return match first.difference(found) {
                None => Ok(Some("compared with the first answer of this engine".to_string())),
                Some(difference) => Err(wrong(measured, "the first candidate", &difference, first, found)),
            };
        }
        let is_batch = measured.candidate.engine == Engine::DataFusion;
        let is_open = |_: &&str| (is_batch || !self.breaks_ties) && self.batch.final_rows == found.final_rows;
        let why = match (found.late_rows, found.left_open.filter(is_open)) {
            (0, None) => return Err(wrong(measured, "plain DataFusion", &difference, &self.batch, found)),
            (0, Some(open)) => open.to_string(),
            (late, _) => format!("{late} rows are late, and in plain DataFusion's answer"),
        };
        if is_batch {
            return Ok(Some(format!("{why}: only the number of rows is compared")));
        }
        let Some(first) = &self.first else {
            self.first = Some(found.clone());
            let how =
                "the others of this engine are compared with it; streamlines check compares with plain DataFusion";
            return Ok(Some(format!("{why}: {how}")));
        };
        match first.difference(found) {
            None if first.late_rows == found.late_rows => {
                let how =
                    "compared with the first answer of this engine; streamlines check compares with plain DataFusion";
                Ok(Some(format!("{why}: {how}")))
            }
            None => {
                let difference = format!("{} late rows and not {}", found.late_rows, first.late_rows);
                Err(wrong(measured, "the first candidate", &difference, first, found))
            }
            Some(difference) => Err(wrong(measured, "the first candidate", &difference, first, found)),
        }
    }
}

/// A timed run that gave another number of rows than the one whose answer was compared.
pub fn miscounted(measured: &Measured, rows: u64) -> Error {
    let text = format!("{}: wrong answer: a timed run gave {rows} rows", measured.candidate.describe());
    Error::data(text)
        .help(format!("the run whose answer was compared gave {}: is a function random?", measured.rows_out))
}

fn wrong(measured: &Measured, other: &str, difference: &str, expected: &Checksum, found: &Checksum) -> Error {
    let Asked { scenario, keys, .. } = &measured.asked;
    let keys = keys.map(|keys| format!(", {keys} keys")).unwrap_or_default();
    let text = format!("{}, scenario {scenario}{keys}: wrong answer: {difference}", measured.candidate.describe());
    Error::data(text).help(format!(
        "{other} gives {} rows {expected}, and this {} rows {found}; streamlines check says which rows differ",
        expected.final_rows, found.final_rows
    ))
}

/// An error in one line.
pub fn told(error: &DataFusionError) -> String {
    match Error::find(error) {
        Some(own) => own.to_string(),
        None => error.strip_backtrace(),
    }
    .replace("\n  help: ", "; ")
    .replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use streamlines::{Setup, StreamlinesContext};

    use super::super::candidate::Candidate;
    use super::*;

    async fn checksum(sql: &str) -> Checksum {
        let ctx = Setup::batch().session().unwrap();
        Checksum::of(ctx.stream_sql(sql).await.unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_wrong_answer_names_the_candidate_and_the_values() {
        let measured = Measured {
            asked: Asked { scenario: "2".to_string(), what: String::new(), keys: Some(200) },
            candidate: Candidate::new(Engine::Streamlines, Setup { partitions: 2, ..Setup::stream() }),
            rows_in: 2,
            rows_out: 2,
            checksum: None,
            seconds: vec![],
            memory: None,
            note: None,
        };
        let expected = checksum("SELECT * FROM (VALUES ('a', 1.5), ('b', 2.5)) AS t (k, x)").await;
        let same = checksum("SELECT * FROM (VALUES ('b', 2.5), ('a', 1.5)) AS t (k, x)").await;
        let mut judge = Judge::new(expected, false);
        assert_eq!(judge.verdict(&measured, &same).unwrap(), None);
        let wrong = checksum("SELECT * FROM (VALUES ('a', 1.5)) AS t (k, x)").await;
        let error = judge.verdict(&measured, &wrong).unwrap_err().to_string();
        for part in
            ["partitioned, routing auto, 2 partitions", "scenario 2, 200 keys", "wrong answer: 1 rows and not 2"]
        {
            assert!(error.contains(part), "{error}");
        }
        // Late rows are no excuse for two answers of the same engine that differ.
        let late = |sum: &Checksum| {
            let mut late = sum.clone();
            late.late_rows = 1;
            late
        };
        assert!(judge.verdict(&measured, &late(&wrong)).unwrap().unwrap().contains("1 rows are late"));
        assert!(judge.verdict(&measured, &late(&wrong)).unwrap().is_some());
        let other = checksum("SELECT * FROM (VALUES ('c', 1.5)) AS t (k, x)").await;
        let error = judge.verdict(&measured, &late(&other)).unwrap_err().to_string();
        assert!(error.contains("the first candidate gives"), "{error}");
        // What SQL leaves open is none either, where the ties of the expected answer are broken.
        let tied = "SELECT a, row_number() OVER (ORDER BY b ROWS UNBOUNDED PRECEDING) AS n FROM (VALUES (1, 1), (2, 1)) AS t (a, b)";
        let (tied, other) = (checksum(tied).await, checksum(&tied.replace("ORDER BY b", "ORDER BY a DESC")).await);
        assert!(Judge::new(other.clone(), false).verdict(&measured, &tied).unwrap().unwrap().contains("rows that tie"));
        assert!(Judge::new(other, true).verdict(&measured, &tied).is_err());
    }
}
