//! Scales of plots: where a value stands, and which values have a mark.

/// One direction of a plot.
#[derive(Debug, Clone)]
pub struct Axis {
    pub label: String,
    pub from: f64,
    pub to: f64,
    pub is_log: bool,
    /// Values that have a mark, with their text.
    pub marks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to a round number at or above the highest value.
    pub fn linear(label: &str, highest: f64) -> Self {
        let step = round_step(if highest > 0.0 { highest } else { 1.0 } / 5.0);
        let steps = (highest / step).ceil().max(1.0);
        let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        let marks = (0..=steps as u32).map(|mark| f64::from(mark) * step);
        let marks = marks.map(|value| (value, format!("{value:.digits$}"))).collect();
        Self { label: label.to_string(), from: 0.0, to: steps * step, is_log: false, marks }
    }

    /// The powers of ten around positive values.
    pub fn log(label: &str, lowest: f64, highest: f64) -> Self {
        let low = lowest.max(1e-6).log10().floor();
        let high = highest.max(1e-6).log10().ceil().max(low + 1.0);
        let marks = (low as i32..=high as i32).map(|power| 10_f64.powi(power));
        let marks = marks.map(|value| (value, format!("{value}"))).collect();
        Self { label: label.to_string(), from: 10_f64.powf(low), to: 10_f64.powf(high), is_log: true, marks }
    }

    /// Where a value is, from 0 to 1.
    pub fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.is_log { value.max(self.from).log10() } else { value };
        let (from, to) = (scaled(self.from), scaled(self.to));
        ((scaled(value) - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least so large.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_hold_all_values() {
        let marks = |highest| Axis::linear("", highest).marks.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(marks(9.3), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(marks(0.31), ["0.0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(marks(0.0), ["0.0", "0.2"]);
        let axis = Axis::log("", 0.02, 30.0);
        assert_eq!(
            axis.marks.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
            ["0.01", "0.1", "1", "10", "100"]
        );
        assert!((axis.place(1.0) - 0.5).abs() < 1e-9);
        assert_eq!(axis.place(0.0), 0.0);
    }
}
