//! Variance and standard deviation, of a sample or of a population.

use super::RunningAggregate;
use super::moments::{Moments, moments};

/// The running variance, of a sample or of the whole population.
pub(super) fn variance(is_sample: bool) -> Option<Box<dyn RunningAggregate>> {
    moments(Variance { is_sample, is_root: false })
}

/// The running standard deviation.
pub(super) fn stddev(is_sample: bool) -> Option<Box<dyn RunningAggregate>> {
    moments(Variance { is_sample, is_root: true })
}

struct Variance {
    is_sample: bool,
    /// Whether its root is asked for.
    is_root: bool,
}

/// The mean, and the sum of squares around it.
impl Moments<2> for Variance {
    fn take([mean, squares]: &mut [f64; 2], count: f64, x: f64, _: f64) {
        let before = x - *mean;
        *mean += before / count;
        *squares += before * (x - *mean);
    }

    fn merge([mean, squares]: &mut [f64; 2], from: &[f64; 2], here: f64, there: f64) {
        let (total, delta) = (here + there, *mean - from[0]);
        *mean = *mean * here / total + from[0] * there / total;
        *squares = *squares + from[1] + delta * delta * here * there / total;
    }

    fn value(&self, count: u64, [_, squares]: &[f64; 2]) -> Option<f64> {
        let variance = match (count, self.is_sample) {
            (0, _) | (1, true) => return None,
            (1, false) => 0.0,
            (_, true) => squares / (count - 1) as f64,
            (_, false) => squares / count as f64,
        };
        Some(if self.is_root { variance.sqrt() } else { variance })
    }
}
