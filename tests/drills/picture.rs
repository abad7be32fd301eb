//! Pictures of drills: curves over time, in panels one below the other, as SVG that is readable on light and
//! on dark paper.
//!
//! They are written if `HOLDFAST_PICTURES` names a directory, which is what `make drills` does.

use std::path::Path;

use plotters::prelude::*;

/// As wide as a page of the manual; the height of the legend and of each panel.
const WIDTH: u32 = 860;
const LEGEND: u32 = 32;
const PANEL: u32 = 220;

/// What a curve is about decides its colour.
#[derive(Clone, Copy)]
pub enum Tone {
    Holdfast,
    Without,
    Limit,
}

/// The colours on light paper, and the same on dark paper.
const PAPER: [&str; 2] = ["#FFFFFF", "#0d1117"];
const INK: [&str; 2] = ["#1F2328", "#e6edf3"];
const GRID: [&str; 2] = ["#D8DEE4", "#30363d"];
const BAND: [&str; 2] = ["#9A6700", "#d29922"];
const TONES: [[&str; 2]; 3] = [["#0969DA", "#58a6ff"], ["#CF222E", "#ff7b72"], ["#57606A", "#9da7b3"]];

/// Points over time; the time is in the picture's unit.
pub struct Curve {
    pub name: &'static str,
    pub tone: Tone,
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    fn style(&self) -> ShapeStyle {
        colour(TONES[self.tone as usize]).stroke_width(2)
    }
}

/// Curves that share an axis.
pub struct Panel {
    pub title: &'static str,
    pub curves: Vec<Curve>,
}

/// Panels that share an axis of time.
pub struct Picture {
    /// What can be seen, for those who cannot see it.
    pub description: &'static str,
    /// The unit of time.
    pub unit: &'static str,
    /// Stretches of time with a name.
    pub bands: Vec<(f64, f64, &'static str)>,
    pub panels: Vec<Panel>,
}

impl Picture {
    /// Writes it as `NAME.svg`, if it is wanted.
    pub fn write(&self, name: &str) {
        let svg = self.svg();
        assert!(svg.len() < 60_000, "{name}.svg has {} bytes", svg.len());
        if let Some(directory) = std::env::var_os("HOLDFAST_PICTURES") {
            let file = Path::new(&directory).join(format!("{name}.svg"));
            std::fs::write(&file, svg).unwrap();
            println!("  picture: {}", file.display());
        }
    }

    fn svg(&self) -> String {
        let mut svg = String::new();
        let height = LEGEND + PANEL * u32::try_from(self.panels.len()).unwrap();
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&colour(PAPER)).unwrap();
        let (legend, panels) = root.split_vertically(LEGEND);
        self.draw_legend(&legend);
        for (panel, area) in self.panels.iter().zip(panels.split_evenly((self.panels.len(), 1))) {
            self.draw_panel(panel, &area);
        }
        drop((root, legend, panels));
        self.with_style(&svg)
    }

    fn draw_legend(&self, area: &Area) {
        let (mut names, mut x) = (Vec::new(), 60);
        for curve in self.panels.iter().flat_map(|panel| &panel.curves) {
            if names.contains(&curve.name) {
                continue;
            }
            names.push(curve.name);
            area.draw(&PathElement::new([(x, 20), (x + 20, 20)], curve.style())).unwrap();
            area.draw(&Text::new(curve.name, (x + 26, 13), text(16))).unwrap();
            x += 60 + 7 * i32::try_from(curve.name.len()).unwrap();
        }
    }

    fn draw_panel(&self, panel: &Panel, area: &Area) {
        let points =
            |panel: &Panel| panel.curves.iter().flat_map(|curve| curve.points.clone()).collect::<Vec<_>>();
        let last = self.panels.iter().flat_map(points).map(|(time, _)| time).fold(0.0, f64::max);
        // With room for the names of the bands.
        let highest = points(panel).into_iter().map(|(_, value)| value).fold(1.0, f64::max) * 1.25;
        let mut chart = ChartBuilder::on(area)
            .caption(panel.title, text(18))
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..last, 0.0..highest)
            .unwrap();
        for (from, to, name) in &self.bands {
            let shade = colour(BAND).mix(0.18).filled();
            chart.draw_series([Rectangle::new([(*from, 0.0), (*to, highest)], shade)]).unwrap();
            let name = Text::new(*name, (*from + last * 0.005, highest * 0.98), text(15));
            chart.draw_series([name]).unwrap();
        }
        chart
            .configure_mesh()
            .x_desc(self.unit)
            .x_labels(12)
            .y_labels(5)
            .x_label_formatter(&|value| format!("{value}"))
            .y_label_formatter(&|value| format!("{value}"))
            .label_style(text(15))
            .axis_style(colour(INK))
            .bold_line_style(colour(GRID))
            .light_line_style(TRANSPARENT)
            .draw()
            .unwrap();
        for curve in &panel.curves {
            chart.draw_series(LineSeries::new(curve.points.iter().copied(), curve.style())).unwrap();
        }
    }

    /// The picture as it was drawn for light paper, with what a dark one needs: a rule for each colour.
    fn with_style(&self, svg: &str) -> String {
        let colours = [PAPER, INK, GRID, BAND].into_iter().chain(TONES);
        let dark: String = colours
            .map(|[light, dark]| {
                format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
            })
            .collect();
        let head = format!(
            "<title>{}</title>\n<style>text{{font-family:system-ui,sans-serif}}\
             @media (prefers-color-scheme:dark){{{dark}}}</style>\n",
            self.description
        );
        let (tag, rest) = svg.split_once(">\n").unwrap();
        format!("{} role=\"img\">\n{head}{rest}", tag)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour(INK))
}

fn colour([light, _]: [&str; 2]) -> RGBColor {
    let part = |at: usize| u8::from_str_radix(&light[at..at + 2], 16).unwrap();
    RGBColor(part(1), part(3), part(5))
}
