//! Drawing: the outermost functions at the top, each as wide as its share. Names that have no room show when pointed at.

use std::fmt::Write as _;

use skald_figures::chart::{escape, number};

use super::Frame;

const WIDTH: f64 = 1600.0;
const ROW: f64 = 17.0;
const TITLE: f64 = 26.0;
/// Thinner ones cannot be seen.
const WIDTH_MIN: f64 = 0.4;
const LETTER: f64 = 6.2;

/// A picture that needs nothing else.
pub fn svg(whole: &Frame, title: &str) -> String {
    let height = TITLE + ROW * whole.depth() as f64;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="10">
<text x="4" y="17" font-size="14">{}</text>
"#,
        escape(title)
    );
    let drawing = Drawing { samples: whole.samples.max(1) };
    drawing.draw(&mut svg, "all", whole, Place { x: 0.0, row: 0 });
    svg.push_str("</svg>\n");
    svg
}

struct Drawing {
    /// Of the whole width.
    samples: u64,
}

#[derive(Clone, Copy)]
struct Place {
    x: f64,
    row: usize,
}

impl Drawing {
    fn draw(&self, svg: &mut String, name: &str, frame: &Frame, Place { x, row }: Place) {
        let share = frame.samples as f64 / self.samples as f64;
        let width = WIDTH * share;
        if width < WIDTH_MIN {
            return;
        }
        let y = TITLE + ROW * row as f64;
        let _ = writeln!(
            svg,
            r##"<g><title>{}: {} %</title><rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{}" stroke="#fff" stroke-width="0.5"/>"##,
            escape(name),
            number(share * 100.0),
            ROW - 1.0,
            colour(name)
        );
        let letters = (width / LETTER) as usize;
        if letters > 3 {
            let shown: String = name.chars().take(letters).collect();
            let _ = writeln!(svg, r#"<text x="{:.1}" y="{:.1}">{}</text>"#, x + 2.0, y + 12.0, escape(&shown));
        }
        svg.push_str("</g>\n");
        let mut x = x;
        for (name, called) in &frame.called {
            self.draw(svg, name, called, Place { x, row: row + 1 });
            x += WIDTH * called.samples as f64 / self.samples as f64;
        }
    }
}

/// A warm one, the same for the same name.
fn colour(name: &str) -> String {
    let mark = name.bytes().fold(0_u32, |mark, byte| mark.wrapping_mul(31).wrapping_add(byte.into()));
    format!("hsl({}, 80%, {}%)", 12 + mark % 40, 62 + (mark >> 8) % 14)
}
