//! The plot: how many of the samples take at most how long.

use super::measure::{Distribution, STEPS};
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Pixels.
const SIZE: (u32, u32) = (960, 600);

/// Draws the cumulative distribution of each measure over a logarithmic axis
/// of time, as SVG.
pub(super) fn draw(title: &str, samples: &BTreeMap<String, Distribution>) -> Result<String> {
    let mut svg = String::new();
    render(&mut svg, title, samples).map_err(|e| anyhow!("the plot cannot be drawn: {e}"))?;
    Ok(svg)
}

fn render(
    svg: &mut String,
    title: &str,
    samples: &BTreeMap<String, Distribution>,
) -> Result<(), Box<dyn std::error::Error>> {
    let all = || samples.values().flat_map(|d| d.quantiles_ns.iter().map(|ns| ns / 1e3));
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((least * 0.8..most * 1.2).log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("time of one access or round trip in microseconds")
        .y_desc("samples that take at most this long, %")
        .draw()?;
    for (i, (name, distribution)) in samples.iter().enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        let points = distribution.quantiles_ns.iter().enumerate();
        let line = points.map(|(step, ns)| (ns / 1e3, step as f64 * 100.0 / STEPS as f64));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name.replace('_', " "))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_its_line_and_name() {
        let ramp = |base: f64| {
            let quantiles_ns = (0..=STEPS).map(|i| base * (1.0 + i as f64)).collect();
            Distribution { count: 7, quantiles_ns }
        };
        let samples =
            BTreeMap::from([("read_fault".into(), ramp(900.0)), ("null_rtt".into(), ramp(50.0))]);
        let svg = draw("a title", &samples).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["a title", "read fault", "null rtt"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.matches("<polyline").count() >= 2);
    }
}
