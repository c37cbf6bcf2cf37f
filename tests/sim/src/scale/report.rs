//! Tables and plots.

use super::contention::Contention;
use super::faults::{Faults, REPLICAS};
use super::join::Join;
use super::spread::{FRAMES, Pattern, Spread};
use plotters::prelude::*;
use std::fmt::Write;

/// Memory of one node, in pages and directory entries and the rest in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Nodes.
    pub nodes: u16,
    /// Frames of each node.
    pub frames: u64,
    /// Bytes of heap for protocol and frame pool at start.
    pub protocol: u64,
    /// Bytes of heap for the fabric once it has formed.
    pub fabric: u64,
    /// Frames kept for tables by a node that lends memory.
    pub lender_tables: u64,
    /// The same by the node that runs the guest.
    pub leader_tables: u64,
    /// Frames of the node that runs the guest which are not promised to the guest
    /// as memory, since tables may need them at worst.
    pub unpromised: u64,
}

impl Metadata {
    /// Heap per frame.
    #[must_use]
    pub fn bytes_per_frame(&self) -> f64 {
        (self.protocol + self.fabric) as f64 / self.frames as f64
    }
}

/// The table of faults, in Markdown.
#[must_use]
pub fn faults(rows: &[Faults]) -> String {
    let mut text = String::from(
        "| nodes | first touch of 2 MiB | read | write | upgrade | eviction | invalidations for 1, 2, \
         4, 5, 16, 48 replicas | eviction when 1, 2, 4, 5, 16, 48 replicas have been dropped |\n\
         |---:|---|---|---|---|---|---|---|\n",
    );
    for f in rows {
        let cost = |c: super::faults::Cost| format!("{} / {}", c.messages, c.hops as f64 / 2.0);
        let all: Vec<String> = f
            .shared
            .iter()
            .map(|(_, c)| c.map_or("-".to_owned(), |c| c.invalidations.to_string()))
            .collect();
        let chains: Vec<String> =
            f.evict_shared.iter().map(|c| c.map_or("-".to_owned(), cost)).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            f.nodes,
            cost(f.first),
            cost(f.read),
            cost(f.write),
            cost(f.upgrade),
            cost(f.evict),
            all.join(", "),
            chains.join(", "),
        );
    }
    text
}

/// The table of forming and keeping a cluster, in Markdown.
#[must_use]
pub fn joins(rows: &[Join]) -> String {
    let mut text = String::from(
        "| nodes | witnesses | formed after | frames sent by the leader | by all | by each | most that \
         came to one node | found a ring full | heartbeats of a node a second |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for j in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} ms | {} | {} | {:.1} | {} | {} | {} |",
            j.nodes,
            j.witnesses,
            j.formed_ms,
            j.leader_out,
            j.frames,
            j.each(),
            j.most_in,
            j.lost,
            j.heartbeats
        );
    }
    text
}

/// Half megabytes, rounded up: a field more in some structure is no news.
fn heap(bytes: u64) -> String {
    format!("{:.1} MiB", bytes.div_ceil(1 << 19) as f64 / 2.0)
}

/// The table of pages all over a large guest, in Markdown.
#[must_use]
pub fn spreads(rows: &[Spread]) -> String {
    let mut text = String::from(
        "| pages that are written | times | of these not here | messages each | pages in frames | nested \
         tables, at most | taken out |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for s in rows {
        let of = |pages: u64| format!("{:.0}% of the frames", pages as f64 * 100.0 / FRAMES as f64);
        let what = match s.pattern {
            Pattern::Dense(pages) => format!("neighbours, {}, in turn", of(pages)),
            Pattern::Hot(pages) => format!("one in each of {pages} runs, {}, at random", of(pages)),
            Pattern::Uniform => "any of the guest".to_owned(),
        };
        let percent = s.misses as f64 * 100.0 / s.writes as f64;
        let each = s.messages as f64 / s.writes as f64;
        let Spread { writes, held, most_tables, out, .. } = s;
        let _ = writeln!(
            text,
            "| {what} | {writes} | {percent:.1}% | {each:.2} | {held} | {most_tables} | {out} |"
        );
    }
    text
}

/// The table of metadata, in Markdown.
#[must_use]
pub fn metadata(rows: &[Metadata]) -> String {
    let mut text = String::from(
        "| nodes of 16 GiB | guest memory | heap of protocol and pool, at most | of the fabric | together a \
         frame | kept for tables by a lender | by the leading node | of that one not promised to the \
         guest |\n|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for m in rows {
        let share = |tables: u64| format!("{:.1}%", tables as f64 * 100.0 / m.frames as f64);
        let guest = (u64::from(m.nodes) * m.frames) >> 18;
        let guest =
            if guest < 1024 { format!("{guest} GiB") } else { format!("{} TiB", guest >> 10) };
        let _ = writeln!(
            text,
            "| {} | {guest} | {} | {} | {} bytes | {} | {} | {} |",
            m.nodes,
            heap(m.protocol),
            heap(m.fabric),
            m.bytes_per_frame().ceil(),
            share(m.lender_tables),
            share(m.leader_tables),
            share(m.unpromised),
        );
    }
    text
}

/// The tables of contention, in Markdown: pages kept for times that are given,
/// and for times that the nodes choose, the worst of several runs each.
#[must_use]
pub fn contention(fixed: &[(u16, u64, Option<Contention>)], chosen: &[Contention]) -> String {
    let head = "instructions a ms | median wait | longest wait | longest / median | least done by \
                a node / most |\n|---:|---:|---:|---:|---:|---:|---:|";
    let mut text = format!("| nodes | pages kept for | {head}\n");
    let row = |text: &mut String, c: &Contention| {
        let _ = writeln!(
            text,
            "{}.{} | {} us | {} us | {} | {}% |",
            c.decirate / 10,
            c.decirate % 10,
            c.median_ns / 1000,
            c.longest_ns / 1000,
            c.ratio(),
            c.evenness,
        );
    };
    for (nodes, hold_ns, c) in fixed {
        let _ = write!(text, "| {nodes} | {} us | ", hold_ns / 1000);
        match c {
            Some(c) => row(&mut text, c),
            None => text.push_str("starves | | | | |\n"),
        }
    }
    let _ =
        write!(text, "\n| nodes | link, one way | round trip seen | kept for | {head}---:|---:|\n");
    for c in chosen {
        let _ = write!(
            text,
            "| {} | {} us | {} us | {} us | ",
            c.nodes,
            c.delay_ns / 1000,
            c.rtt_ns / 1000,
            c.hold_ns / 1000
        );
        row(&mut text, c);
    }
    text
}

/// A named line of a plot.
type Line = (String, Vec<(f64, f64)>);

/// Draws lines over the number of nodes, both axes logarithmic, as SVG.
///
/// # Errors
/// What the plotting library says.
pub fn plot(title: &str, y: &str, lines: &[Line]) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let all = || lines.iter().flat_map(|(_, points)| points.iter());
        let most = all().map(|p| p.1).fold(1.0, f64::max);
        let least = all().map(|p| p.1).filter(|&v| v > 0.0).fold(most, f64::min);
        let root = SVGBackend::with_string(&mut svg, (900, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(
                (1.8f64..5000.0).log_scale(),
                (least * 0.7..most * 1.5).log_scale(),
            )?;
        chart.configure_mesh().x_desc("nodes").y_desc(y).draw()?;
        for (i, (name, points)) in lines.iter().enumerate() {
            let colour = Palette99::pick(i).to_rgba();
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(name.clone())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK)
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// The lines of the plot of messages per fault.
#[must_use]
pub fn fault_lines(rows: &[Faults]) -> Vec<Line> {
    let line = |name: &str, of: &dyn Fn(&Faults) -> Option<u64>| {
        let points = rows.iter().filter_map(|f| Some((f64::from(f.nodes), of(f)? as f64)));
        (name.to_owned(), points.collect())
    };
    let mut lines = vec![
        line("read, messages", &|f| Some(f.read.messages)),
        line("write, messages", &|f| Some(f.write.messages)),
        line("upgrade, messages", &|f| Some(f.upgrade.messages)),
    ];
    for (i, replicas) in REPLICAS.iter().enumerate() {
        let name = format!("invalidations, {replicas} replicas");
        lines.push(line(&name, &|f| f.shared[i].1.map(|c| c.invalidations)));
    }
    lines
}

/// The lines of the plot of forming.
#[must_use]
pub fn join_lines(rows: &[Join]) -> Vec<Line> {
    let line = |name: &str, of: &dyn Fn(&Join) -> u64| {
        (name.to_owned(), rows.iter().map(|j| (f64::from(j.nodes), of(j) as f64)).collect())
    };
    let each = rows.iter().map(|j| (f64::from(j.nodes), j.each()));
    let each = ("frames sent by a node, on average".to_owned(), each.collect());
    vec![
        line("formed after, ms", &|j| j.formed_ms),
        line("frames sent by the leader", &|j| j.leader_out),
        each,
        line("frames that came to one node, at most", &|j| j.most_in),
        line("heartbeats of a node a second", &|j| j.heartbeats),
    ]
}
