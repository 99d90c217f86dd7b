//! Lines over two axes, with a legend below.

use super::axis::Axis;
use super::svg::{Anchor, Svg, escaped};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;

/// One line.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Which of the colors it has; those beyond the last one are dashed.
    pub color: usize,
    /// How it is dashed besides, to tell lines of one color apart.
    pub dash: usize,
    /// Whether each point has a dot.
    pub has_dots: bool,
}

/// Lines over axes.
pub struct Plot {
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// A thin dotted line that is nobody's, with its name.
    pub ideal: Option<(String, Vec<(f64, f64)>)>,
}

impl Plot {
    /// The drawing and its legend; `label` says what is shown.
    pub fn draw(&self, label: &str) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT);
        self.draw_axes(&mut svg);
        let at = |(x, y): &(f64, f64)| (self.across(*x), self.down(*y));
        if let Some((_, points)) = &self.ideal {
            svg.path("ideal", &points.iter().map(at).collect::<Vec<_>>());
        }
        for line in &self.lines {
            let points: Vec<_> = line.points.iter().map(at).collect();
            svg.path(&class(line), &points);
            let dots = points.iter().filter(|_| line.has_dots || points.len() == 1);
            dots.for_each(|point| svg.dot(&format!("dot{}", line.color % 8), *point));
        }
        format!("{}{}", svg.finish(label), self.legend())
    }

    fn across(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw_axes(&self, svg: &mut Svg) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, text) in &self.y.marks {
            let y = self.down(*value);
            svg.line("grid", (LEFT, y), (right, y));
            svg.text("soft", Anchor::End, (LEFT - 8.0, y + 4.5), text);
        }
        for (value, text) in &self.x.marks {
            let x = self.across(*value);
            svg.line("axis", (x, bottom), (x, bottom + 5.0));
            svg.text("soft", Anchor::Middle, (x, bottom + 19.0), text);
        }
        svg.line("axis", (LEFT, bottom), (right, bottom));
        svg.text("soft", Anchor::Start, (4.0, 14.0), &self.y.label);
        svg.text("soft", Anchor::End, (right, HEIGHT - 6.0), &self.x.label);
    }

    fn legend(&self) -> String {
        let swatch = |class: &str| {
            format!(
                "<svg viewBox=\"0 0 28 10\" aria-hidden=\"true\"><line class=\"{class}\" x1=\"0\" y1=\"5\" x2=\"28\" y2=\"5\"/></svg>"
            )
        };
        let own = self.lines.iter().map(|line| (class(line), line.name.as_str()));
        let ideal = self.ideal.iter().map(|(name, _)| ("ideal".to_string(), name.as_str()));
        let items = own.chain(ideal).map(|(class, name)| format!("<li>{}{}</li>\n", swatch(&class), escaped(name)));
        format!("<ul class=\"legend\">\n{}</ul>\n", items.collect::<String>())
    }
}

fn class(line: &Line) -> String {
    let color = line.color % 8;
    match (line.color / 8 + line.dash) % 4 {
        0 => format!("line line{color}"),
        dash => format!("line line{color} dash{dash}"),
    }
}
