//! Pearson's correlation.

use super::RunningAggregate;
use super::moments::{Moments, moments};

/// The running correlation.
pub(super) fn correlation() -> Option<Box<dyn RunningAggregate>> {
    moments(Correlation)
}

struct Correlation;

/// For each column its mean and the sum of squares around it, and the sum of products around both.
impl Moments<5> for Correlation {
    fn take([mean_x, squares_x, mean_y, squares_y, products]: &mut [f64; 5], count: f64, x: f64, y: f64) {
        let (before_x, before_y) = (x - *mean_x, y - *mean_y);
        *mean_x += before_x / count;
        *mean_y += before_y / count;
        *squares_x += before_x * (x - *mean_x);
        *squares_y += before_y * (y - *mean_y);
        *products += before_x * (y - *mean_y);
    }

    fn merge(into: &mut [f64; 5], from: &[f64; 5], here: f64, there: f64) {
        let [mean_x, squares_x, mean_y, squares_y, products] = into;
        let (total, delta_x, delta_y) = (here + there, *mean_x - from[0], *mean_y - from[2]);
        *mean_x = *mean_x * here / total + from[0] * there / total;
        *mean_y = *mean_y * here / total + from[2] * there / total;
        *squares_x = *squares_x + from[1] + delta_x * delta_x * here * there / total;
        *squares_y = *squares_y + from[3] + delta_y * delta_y * here * there / total;
        *products = *products + from[4] + delta_x * delta_y * here * there / total;
    }

    fn value(&self, count: u64, [mean_x, squares_x, mean_y, squares_y, products]: &[f64; 5]) -> Option<f64> {
        // As DataFusion has it: NaN if both columns have one, none if one of them has.
        if mean_x.is_nan() && mean_y.is_nan() {
            return Some(f64::NAN);
        }
        if mean_x.is_nan() || mean_y.is_nan() || count < 2 {
            return None;
        }
        let rows = count as f64;
        let (deviation_x, deviation_y) = ((squares_x / rows).sqrt(), (squares_y / rows).sqrt());
        let is_constant = deviation_x == 0.0 || deviation_y == 0.0;
        (!is_constant).then(|| products / rows / deviation_x / deviation_y)
    }
}
