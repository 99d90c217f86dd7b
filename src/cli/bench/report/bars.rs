//! Bars that lie one below the other, each with its name and its number.

use super::svg::{Anchor, Svg};

const WIDTH: f64 = 640.0;
const ROW: f64 = 26.0;
const THICK: f64 = 17.0;
/// Room of a character.
const CHARACTER: f64 = 7.8;

/// One bar.
pub struct Bar {
    pub name: String,
    pub value: f64,
    /// The value as text, with its unit.
    pub told: String,
    /// Which of the colors it has.
    pub color: usize,
}

/// Draws bars; `label` says what they show.
pub fn bars(bars: &[Bar], label: &str) -> String {
    let room = |text: fn(&Bar) -> &String| {
        let longest = bars.iter().map(|bar| text(bar).chars().count()).max().unwrap_or_default();
        longest as f64 * CHARACTER + 12.0
    };
    let left = room(|bar| &bar.name).min(WIDTH * 0.66);
    let right = room(|bar| &bar.told);
    let highest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = Svg::new(WIDTH, ROW * bars.len() as f64 + 6.0);
    for (index, bar) in bars.iter().enumerate() {
        let top = index as f64 * ROW + 4.0;
        let width = ((WIDTH - left - right) * bar.value / highest).max(1.0);
        let middle = top + THICK / 2.0 + 4.5;
        svg.text("", Anchor::End, (left - 8.0, middle), &bar.name);
        svg.bar(&format!("bar{}", bar.color % 8), (left, top), (width, THICK));
        svg.text("soft", Anchor::Start, (left + width + 7.0, middle), &bar.told);
    }
    svg.finish(label)
}
