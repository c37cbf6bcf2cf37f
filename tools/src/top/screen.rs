//! The view on a terminal.

use super::TICK;
use super::view::{HotView, NodeView, View};
use crate::live::{self, Published};
use crate::terminal;
use anyhow::Result;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

/// Columns of the table of nodes: their titles and widths.
const NODE_COLUMNS: [(&str, u16); 13] = [
    ("node", 4),
    ("frames", 8),
    ("used", 8),
    ("%", 5),
    ("owned", 8),
    ("replicas", 8),
    ("exits/s", 8),
    ("faults/s", 9),
    ("p50 us", 9),
    ("p99 us", 9),
    ("evict/s", 8),
    ("in MiB/s", 8),
    ("out MiB/s", 9),
];
/// Columns of the table of hot pages.
const HOT_COLUMNS: [(&str, u16); 5] =
    [("node", 4), ("page", 14), ("instruction", 16), ("faults", 8), ("of others", 9)];

/// Shows the cluster until the user leaves or it ends.
pub(super) fn show(mut published: Published) -> Result<()> {
    let _restorer = terminal::Restorer;
    let mut terminal = terminal::take_screen()?;
    loop {
        let view = View::new(&published);
        terminal.draw(|frame| draw(frame, &view))?;
        if leaves()? {
            return Ok(());
        }
        match live::of(published.process) {
            Some(now) => published = now,
            None => return Ok(()),
        }
    }
}

/// Waits a moment for a key; whether it says to leave.
fn leaves() -> Result<bool> {
    if !event::poll(TICK)? {
        return Ok(false);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind == KeyEventKind::Press => is_leave(key),
        _ => false,
    })
}

fn is_leave(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || (control && key.code == KeyCode::Char('c'))
}

/// Draws everything.
fn draw(frame: &mut Frame<'_>, view: &View) {
    let nodes = view.nodes.len() as u16 + 1;
    let rows = [1, 1, nodes, 1].map(Constraint::Length);
    let [head, _, table, _, hot, foot] =
        Layout::vertical([rows[0], rows[1], rows[2], rows[3], Constraint::Min(2), rows[0]])
            .areas(frame.area());
    let mib = view.memory_bytes >> 20;
    let title = format!(
        "Pangaea: {} nodes of {mib} MiB, {}, process {}  {}",
        view.nodes.len(),
        view.machine,
        view.process,
        view.command.first().map_or("", |c| c.as_str())
    );
    frame.render_widget(Line::styled(title, Style::new().add_modifier(Modifier::BOLD)), head);
    frame.render_widget(table_of(&NODE_COLUMNS, view.nodes.iter().map(node_row)), table);
    frame.render_widget(table_of(&HOT_COLUMNS, view.hot.iter().map(hot_row)), hot);
    frame.render_widget(Line::from("q leaves; one remote fault in a few is looked at"), foot);
}

/// A table, its numbers to the right.
fn table_of<'a>(columns: &[(&str, u16)], rows: impl Iterator<Item = Vec<String>>) -> Table<'a> {
    let right = |text: String| Cell::new(Line::from(text).right_aligned());
    let titles = columns.iter().map(|(title, _)| right((*title).to_owned()));
    let heading = Row::new(titles).style(Style::new().add_modifier(Modifier::REVERSED));
    let widths = columns.iter().map(|&(_, width)| Constraint::Length(width));
    Table::new(rows.map(|row| Row::new(row.into_iter().map(right))), widths).header(heading)
}

fn node_row(n: &NodeView) -> Vec<String> {
    let mib = |bytes: f64| format!("{:.2}", bytes / (1 << 20) as f64);
    vec![
        n.node.to_string(),
        n.frames.to_string(),
        n.used.to_string(),
        format!("{:.1}", n.used as f64 * 100.0 / n.frames.max(1) as f64),
        n.owned.to_string(),
        n.replicas.to_string(),
        format!("{:.0}", n.exits_s),
        format!("{:.0}", n.faults_s),
        format!("{:.1}", n.fault_p50_us),
        format!("{:.1}", n.fault_p99_us),
        format!("{:.0}", n.evictions_s),
        mib(n.in_bytes_s),
        mib(n.out_bytes_s),
    ]
}

fn hot_row(h: &HotView) -> Vec<String> {
    vec![
        h.node.to_string(),
        format!("{:#x}", h.hot.gfn << 12),
        h.hot.rip.clone(),
        h.hot.count.to_string(),
        h.hot.error.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::tests::published;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn nodes_and_hot_pages_are_drawn() {
        let mut terminal = Terminal::new(TestBackend::new(120, 20)).unwrap();
        terminal.draw(|frame| draw(frame, &View::new(&published()))).unwrap();
        let text = terminal.backend().to_string();
        for part in
            ["Pangaea: 1 nodes of 128 MiB", "90.0", "1045", "150.0", "0x6000", "ffffffff81000000"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_small_terminal_is_no_reason_to_panic() {
        for (width, height) in [(1, 1), (20, 3), (300, 2)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &View::new(&published()))).unwrap();
        }
    }

    #[test]
    fn keys_that_leave() {
        let key = |code, modifiers| is_leave(KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
    }
}
