//! The percentile curve of a latency: how long the slowest tenth, hundredth, thousandth of the rows takes.

use super::results::AtRate;

/// Points between one power of ten and the next.
const POINTS: u32 = 8;

/// Shares of rows that a curve shows, the slowest ones closer and closer: up to the last one of `rows`.
pub fn shares(rows: u64) -> Vec<f64> {
    let nines = (rows.max(1) as f64).log10();
    let steps = (nines * f64::from(POINTS)).floor() as u32;
    let mut shares: Vec<f64> =
        (0..=steps).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(POINTS))).collect();
    shares.push(1.0);
    shares
}

/// How many nines a share has: 0.99 two, 0.999 three. All rows have those of the last one of them.
pub fn nines(share: f64, rows: u64) -> f64 {
    let most = (rows.max(1) as f64).log10().max(1.0);
    match share < 1.0 {
        true => (-(1.0 - share).log10()).min(most),
        false => most,
    }
}

/// Shares of the rows, and the milliseconds that they do not exceed.
pub fn curve(row: &AtRate) -> Vec<(f64, f64)> {
    let Some(latency) = &row.latency else { return vec![] };
    shares(latency.rows()).into_iter().map(|share| (share, latency.at(share).as_secs_f64() * 1e3)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_as_far_as_its_rows_say() {
        let of = |rows| shares(rows);
        assert_eq!(of(0), [0.0, 1.0]);
        assert_eq!(of(1), [0.0, 1.0]);
        assert_eq!(of(1000).len(), 3 * POINTS as usize + 2);
        assert!(of(1000).windows(2).all(|pair| pair[0] < pair[1]));
        assert!((of(1000)[POINTS as usize] - 0.9).abs() < 1e-9);
    }

    #[test]
    fn nines_are_counted() {
        assert!((nines(0.99, 1000) - 2.0).abs() < 1e-9);
        assert_eq!(nines(1.0, 1000), 3.0);
        assert_eq!(nines(0.0, 1000), 0.0);
        assert_eq!(nines(1.0, 1), 1.0);
    }
}
