//! Whether an answer is that of plain DataFusion.

use datafusion::error::DataFusionError;
use streamlines::{Checksum, Error};

use super::results::{Asked, Measured};

/// Judges the answers to one question over the same files.
#[derive(Debug)]
pub struct Judge {
    /// That of plain DataFusion.
    batch: Checksum,
    /// Where rows are late, the first answer without them.
    in_time: Option<Checksum>,
}

impl Judge {
    /// By the answer of plain DataFusion.
    pub fn new(batch: Checksum) -> Self {
        Self { batch, in_time: None }
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
        if found.late_rows == 0 {
            return Err(wrong(measured, "plain DataFusion", &difference, &self.batch, found));
        }
        let first = self.in_time.get_or_insert_with(|| found.clone());
        match first.difference(found) {
            None if first.late_rows == found.late_rows => Ok(Some(format!(
                "{} rows are late, so plain DataFusion answers otherwise: compared with the first answer; streamlines check \
                 tells whether they explain it",
                found.late_rows
            ))),
            None => {
                let difference = format!("{} late rows and not {}", found.late_rows, first.late_rows);
                Err(wrong(measured, "the first candidate", &difference, first, found))
            }
            Some(difference) => Err(wrong(measured, "the first candidate", &difference, first, found)),
        }
    }
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

    use super::super::candidate::{Candidate, Engine};
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
        let mut judge = Judge::new(expected);
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
    }
}
