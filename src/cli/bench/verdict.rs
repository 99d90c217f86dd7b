//! Whether an answer is that of plain DataFusion.

use datafusion::error::DataFusionError;
use streamlines::{Checksum, Error};

use super::results::{Asked, Measured};

/// What to note of an answer.
///
/// # Errors
/// An answer that is wrong, with the values.
pub fn verdict(measured: &Measured, expected: &Checksum, found: &Checksum) -> Result<Option<String>, Error> {
    if let Some(why) = &found.why_not_folded {
        return Ok(Some(format!("not compared: {why}")));
    }
    let Some(difference) = expected.difference(found) else { return Ok(None) };
    if found.late_rows > 0 {
        let late = found.late_rows;
        return Ok(Some(format!("not compared: {late} rows are late, which streamlines check tells apart")));
    }
    let Asked { scenario, keys, .. } = &measured.asked;
    let keys = keys.map(|keys| format!(", {keys} keys")).unwrap_or_default();
    let text = format!("{}, scenario {scenario}{keys}: wrong answer: {difference}", measured.candidate.describe());
    Err(Error::data(text).help(format!(
        "plain DataFusion gives {} rows {expected}, and this {} rows {found}; streamlines check says which rows differ",
        expected.final_rows, found.final_rows
    )))
}

/// An error in one line.
pub fn told(error: &DataFusionError) -> String {
    match Error::find(error) {
        Some(own) => own.to_string(),
        None => error.strip_backtrace(),
    }
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
        assert_eq!(verdict(&measured, &expected, &same).unwrap(), None);
        let wrong = checksum("SELECT * FROM (VALUES ('a', 1.5)) AS t (k, x)").await;
        let error = verdict(&measured, &expected, &wrong).unwrap_err().to_string();
        for part in
            ["partitioned, routing auto, 2 partitions", "scenario 2, 200 keys", "wrong answer: 1 rows and not 2"]
        {
            assert!(error.contains(part), "{error}");
        }
    }
}
