//! Covariance of a sample or of a population.

use super::RunningAggregate;
use super::moments::{Moments, moments};

/// The running covariance, of a sample or of the whole population.
pub(super) fn covariance(is_sample: bool) -> Option<Box<dyn RunningAggregate>> {
    moments(Covariance { is_sample })
}

struct Covariance {
    is_sample: bool,
}

/// Two means, and the sum of products around them.
impl Moments<3> for Covariance {
    fn take([mean_x, mean_y, products]: &mut [f64; 3], count: f64, x: f64, y: f64) {
        let before = x - *mean_x;
        *mean_x += before / count;
        *mean_y += (y - *mean_y) / count;
        *products += before * (y - *mean_y);
    }

    fn merge([mean_x, mean_y, products]: &mut [f64; 3], from: &[f64; 3], here: f64, there: f64) {
        let (total, delta_x, delta_y) = (here + there, *mean_x - from[0], *mean_y - from[1]);
        *mean_x = *mean_x * here / total + from[0] * there / total;
        *mean_y = *mean_y * here / total + from[1] * there / total;
        *products = *products + from[2] + delta_x * delta_y * here * there / total;
    }

    fn value(&self, count: u64, [_, _, products]: &[f64; 3]) -> Option<f64> {
        let rows = count.saturating_sub(u64::from(self.is_sample));
        (rows > 0).then(|| products / rows as f64)
    }
}
