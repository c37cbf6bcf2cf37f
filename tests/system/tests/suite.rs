//! The suite that asserts the architecture (`tests/guest/src/bin/suite`): on
//! two nodes, on one, on both vendors' processors, and without Pangaea, which
//! tells the suite's own mistakes and the emulator's from Pangaea's.

use runner::session::status;
use system::{Nodes, Outcome, guests, serial};

/// The words that have the known faults of an emulator excused; each one that
/// is met is noted beside the transcript.
const TCG: &str = "emulator=tcg";
const BOCHS: &str = "emulator=bochs";

/// What a run printed: its lines, and its notes.
struct Transcript {
    lines: Vec<String>,
    notes: Vec<String>,
}

/// Takes the transcript from the console, and makes sure that it is whole and
/// that nothing failed.
fn transcript(outcome: &Outcome) -> Transcript {
    let with = |prefix: &str| {
        let lines = outcome.console.lines().map(str::trim);
        lines.filter(|l| l.starts_with(prefix)).map(str::to_owned).collect::<Vec<_>>()
    };
    let transcript = Transcript { lines: with("@suite "), notes: with("@note ") };
    let (end, lines) = transcript.lines.split_last().expect("the suite prints lines");
    let failed: Vec<_> = lines.iter().filter(|l| l.contains("FAILED")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let passed = lines.iter().filter(|l| l.contains(" ok:")).count();
    let skipped = lines.len() - passed;
    let want = format!("@suite end {passed} passed, {skipped} skipped, 0 FAILED");
    assert_eq!(*end, want, "the last line counts those before");
    println!("{end}");
    transcript.notes.iter().for_each(|note| println!("{note}"));
    transcript
}

/// Boots the suite on Pangaea, on machines of a kind.
fn on_nodes(machine: &str, nodes: u32, words: &str) -> Transcript {
    let suite = guests().join("suite");
    let outcome = Nodes::on(machine, nodes, "128M", &suite, words).within(600).run();
    println!("{machine}, {nodes} nodes: {:.1} s", outcome.took.as_secs_f64());
    let transcript = transcript(outcome.expect(status::OK, &[]));
    let skipped: Vec<_> = transcript.lines.iter().filter(|l| l.contains(" skipped:")).collect();
    assert!(skipped.is_empty(), "Pangaea's machine has all that is asked for: {skipped:#?}");
    transcript
}

#[test]
fn the_architecture_on_one_node_and_two_and_both_vendors() {
    let _turn = serial("suite");
    let [one, two] = [1, 2].map(|nodes| on_nodes("q35-svm", nodes, TCG));
    // Where memory lies is nothing that a guest could see.
    assert_eq!(one.lines, two.lines);
    // Nor who made the processor.
    let vtx = on_nodes("bochs-vtx", 2, BOCHS);
    assert_eq!(two.lines, vtx.lines);
}

#[test]
fn the_suite_itself_without_pangaea() {
    let _turn = serial("suite-bare");
    let outcome = Nodes::bare("bare", "256M", &guests().join("suite"), TCG).run();
    let transcript = transcript(outcome.expect(status::OK, &[]));
    assert!(transcript.lines.len() > 100, "only {} lines", transcript.lines.len());
}
