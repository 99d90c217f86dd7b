//! Runs in turns, so that what disturbs the machine falls on all candidates alike.

use datafusion::error::{DataFusionError, Result};

use super::candidate::Candidate;
use super::ready::{Ground, Ready};

/// Runs all once to warm up, then each once in every round; who comes first changes from round to round.
///
/// # Errors
/// A query that fails.
pub async fn rounds(ground: &Ground<'_>, all: &mut [Ready], runs: u16) -> Result<()> {
    let mut order: Vec<usize> = (0..all.len()).filter(|index| all[*index].can_run).collect();
    for round in 0..=runs {
        for index in &order {
            let ready = &mut all[*index];
            let seconds = ready.run(ground).await.map_err(|error| while_running(&ready.candidate, error))?;
            if round > 0 {
                ready.measured.seconds.push(seconds);
            }
        }
        if !order.is_empty() {
            order.rotate_left(1);
        }
    }
    Ok(())
}

fn while_running(candidate: &Candidate, error: DataFusionError) -> DataFusionError {
    error.context(candidate.describe())
}
