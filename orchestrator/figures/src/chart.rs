//! Charts as SVG text. Colours and fonts are the page's: charts only name classes.

use std::fmt::Write as _;

use crate::Point;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 34.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
const PLOT_HEIGHT: f64 = HEIGHT - TOP - BOTTOM;
/// What a bar's value takes; a thinner bar shows it when pointed at.
const VALUE_WIDTH: f64 = 30.0;
const STACK_ROW: f64 = 74.0;
const STACK_LEFT: f64 = 110.0;
const STACK_KEY: f64 = 36.0;

/// Values side by side: for each group one per series.
#[derive(Debug)]
pub struct Bars<'a> {
    /// Read out to those who cannot see it.
    pub title: &'a str,
    /// The class of each series.
    pub series: &'a [&'a str],
    pub groups: Vec<(String, Vec<Option<f64>>)>,
}

/// Shares that rise over a time, on a logarithmic axis.
#[derive(Debug)]
pub struct Curves<'a> {
    pub title: &'a str,
    /// Class and points of each series.
    pub series: Vec<(&'a str, &'a [Point])>,
}

/// Wholes and what shares they consist of, with the same parts in all of them.
#[derive(Debug)]
pub struct Stacks<'a> {
    pub title: &'a str,
    pub stacks: Vec<Stack<'a>>,
}

#[derive(Debug)]
pub struct Stack<'a> {
    pub name: &'a str,
    pub parts: Vec<Part<'a>>,
}

#[derive(Debug)]
pub struct Part<'a> {
    pub class: &'a str,
    pub name: &'a str,
    /// From 0 to 1.
    pub share: f64,
}

impl Bars<'_> {
    pub fn svg(&self) -> String {
        let values = self.groups.iter().flat_map(|(_, values)| values.iter().flatten());
        let scale = Linear::up_to(values.copied().fold(0.0, f64::max));
        let mut svg = open(self.title, HEIGHT);
        for tick in scale.ticks() {
            grid_across(&mut svg, scale.y(tick), &number(tick));
        }
        let group_width = PLOT_WIDTH / self.groups.len().max(1) as f64;
        let bar_width = (group_width * 0.7 / self.series.len().max(1) as f64).min(64.0);
        for (index, (name, values)) in self.groups.iter().enumerate() {
            let middle = LEFT + group_width * (index as f64 + 0.5);
            let _ = write!(
                svg,
                r#"<text class="axis" x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                HEIGHT - 12.0,
                escape(name)
            );
            let first = middle - bar_width * values.len() as f64 / 2.0;
            for (place, (class, value)) in self.series.iter().zip(values).enumerate() {
                let Some(value) = value else { continue };
                let (x, y) = (first + bar_width * place as f64, scale.y(*value));
                let _ = write!(
                    svg,
                    r#"<rect class="{class}" x="{:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="2"><title>{}</title></rect>"#,
                    x + 1.0,
                    bar_width - 2.0,
                    (TOP + PLOT_HEIGHT - y).max(0.5),
                    number(*value)
                );
                if bar_width >= VALUE_WIDTH {
                    let _ = write!(
                        svg,
                        r#"<text class="value" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                        x + bar_width / 2.0,
                        y - 4.0,
                        number(*value)
                    );
                }
            }
        }
        close(svg)
    }
}

impl Curves<'_> {
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|(_, points)| points.iter());
        let scale = Log::over(points().map(|point| point.ms));
        let y = |share: f64| TOP + PLOT_HEIGHT * (1.0 - share);
        let mut svg = open(self.title, HEIGHT);
        for percent in [0_u8, 25, 50, 75, 100] {
            grid_across(&mut svg, y(f64::from(percent) / 100.0), &format!("{percent} %"));
        }
        for tick in scale.ticks() {
            let x = scale.x(tick);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{:.1}"/><text class="axis" x="{x:.1}" y="{:.1}" text-anchor="middle">{} ms</text>"#,
                TOP + PLOT_HEIGHT,
                HEIGHT - 12.0,
                number(tick)
            );
        }
        for (class, points) in &self.series {
            let place = |point: &Point| format!("{:.1},{:.1}", scale.x(point.ms), y(point.share));
            let places: Vec<String> = points.iter().map(place).collect();
            let _ = write!(svg, r#"<polyline class="line {class}" points="{}"/>"#, places.join(" "));
        }
        close(svg)
    }
}

impl Stacks<'_> {
    pub fn svg(&self) -> String {
        let rows = self.stacks.len() as f64;
        let mut svg = open(self.title, STACK_ROW * rows + STACK_KEY);
        for (index, Stack { name, parts }) in self.stacks.iter().enumerate() {
            let y = STACK_ROW * index as f64 + 10.0;
            let _ = write!(svg, r#"<text class="axis" x="0" y="{:.1}">{}</text>"#, y + 28.0, escape(name));
            stack(&mut svg, y, parts);
        }
        let mut x = STACK_LEFT;
        for Part { class, name, .. } in self.stacks.first().map_or(&[][..], |stack| &*stack.parts) {
            let y = STACK_ROW * rows + 12.0;
            let _ = write!(
                svg,
                r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="11" height="11" rx="2"/><text class="axis" x="{:.1}" y="{:.1}">{}</text>"#,
                x + 17.0,
                y + 10.0,
                escape(name)
            );
            x += 110.0;
        }
        close(svg)
    }
}

fn stack(svg: &mut String, y: f64, parts: &[Part<'_>]) {
    let mut x = STACK_LEFT;
    for Part { class, name, share } in parts.iter().filter(|part| part.share > 0.0) {
        let width = (WIDTH - STACK_LEFT) * share;
        let percent = format!("{} %", number(share * 100.0));
        let _ = write!(
            svg,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="46" rx="2"><title>{name}: {percent}</title></rect>"#,
            (width - 1.0).max(0.5)
        );
        // What has no room is in the table.
        if percent.chars().count() as f64 * 8.0 < width {
            let _ = write!(
                svg,
                r#"<text class="inside" x="{:.1}" y="{:.1}" text-anchor="middle">{percent}</text>"#,
                x + width / 2.0,
                y + 28.0,
            );
        }
        x += width;
    }
}

fn open(title: &str, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">"#, escape(title))
}

fn close(mut svg: String) -> String {
    svg.push_str("</svg>");
    svg
}

fn grid_across(svg: &mut String, y: f64, label: &str) {
    let _ = write!(
        svg,
        r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}"/><text class="axis" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0,
        escape(label)
    );
}

/// From 0 to a round number.
struct Linear {
    top: f64,
    step: f64,
}

impl Linear {
    fn up_to(max: f64) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let magnitude = 10_f64.powf((max / 4.0).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * magnitude);
        let step = steps.into_iter().find(|step| step * 4.0 >= max).unwrap_or(max);
        Self { top: step * 4.0, step }
    }

    fn y(&self, value: f64) -> f64 {
        TOP + PLOT_HEIGHT * (1.0 - value / self.top)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (0..=4).map(|tick| self.step * f64::from(tick))
    }
}

/// Between values of the form 1, 2, 5, 10, ..
struct Log {
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Log {
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).clamp(0.01, 1e7);
        let most = values.fold(0.0, f64::max).max(least);
        let steps: Vec<f64> =
            (-2..=8).flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(power))).collect();
        let below = steps.iter().rposition(|step| *step <= least).unwrap_or(0);
        let above = steps.iter().position(|step| *step >= most && *step > steps[below]).unwrap_or(steps.len() - 1);
        let ticks = steps[below..=above].to_vec();
        Self { from: steps[below].ln(), to: steps[above].ln(), ticks }
    }

    fn x(&self, value: f64) -> f64 {
        let place = (value.max(1e-3).ln() - self.from) / (self.to - self.from);
        LEFT + PLOT_WIDTH * place.clamp(0.0, 1.0)
    }

    /// No more than there is room for.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let every = self.ticks.len().div_ceil(9);
        self.ticks.iter().copied().step_by(every)
    }
}

/// With as many digits as say something.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text for HTML, in elements and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers_that_hold_every_value() {
        for max in [0.0, 0.003, 1.0, 7.0, 9.99, 42.0, 100.0, 1234.0] {
            let scale = Linear::up_to(max);
            assert!(scale.top >= max && scale.top <= (max * 2.6).max(1.0), "{max}: {}", scale.top);
        }
        let scale = Log::over([3.0, 140.0].into_iter());
        assert_eq!(scale.ticks().collect::<Vec<_>>(), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        assert!((scale.x(2.0) - LEFT).abs() < 0.01 && (scale.x(200.0) - LEFT - PLOT_WIDTH).abs() < 0.01);
        let one = Log::over([5.0].into_iter());
        assert!(one.x(5.0).is_finite());
        assert!(Log::over(std::iter::empty()).x(1.0).is_finite());
    }

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        for (value, text) in
            [(0.0, "0"), (1.5, "1.5"), (0.126, "0.13"), (12.34, "12.3"), (250.6, "251"), (100.0, "100")]
        {
            assert_eq!(number(value), text);
        }
        assert_eq!(escape(r#"<a b="c">&"#), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }

    #[test]
    fn a_value_that_is_missing_leaves_a_gap() {
        let bars = Bars { title: "t", series: &["a", "b"], groups: vec![("p50".to_owned(), vec![Some(1.0), None])] };
        let svg = bars.svg();
        assert_eq!(svg.matches("<rect").count(), 1, "{svg}");
        assert!(svg.contains(r#"class="a""#) && !svg.contains("NaN"), "{svg}");
    }
}
