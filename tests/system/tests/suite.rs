//! The suite that asserts the architecture (`tests/guest/src/bin/suite`): on
//! two nodes, on one, and without Pangaea, which tells the suite's own
//! mistakes and the emulator's from Pangaea's.

use runner::session::status;
use system::{Nodes, Outcome, guests, serial};

/// The word that has the known faults of QEMU's TCG excused; each one that is
/// met is noted in the transcript.
const WORDS: &str = "emulator=tcg";

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

/// Boots the suite on Pangaea.
fn on_nodes(nodes: u32) -> Transcript {
    let outcome = Nodes::new(nodes, "128M", &guests().join("suite"), WORDS).run();
    let transcript = transcript(outcome.expect(status::OK, &[]));
    let skipped: Vec<_> = transcript.lines.iter().filter(|l| l.contains(" skipped:")).collect();
    assert!(skipped.is_empty(), "Pangaea's machine has all that is asked for: {skipped:#?}");
    transcript
}

#[test]
fn the_architecture_on_one_node_and_two() {
    let _turn = serial("suite");
    let [one, two] = [1, 2].map(on_nodes);
    // Where memory lies is nothing that a guest could see.
    assert_eq!(one.lines, two.lines);
}

#[test]
fn the_suite_itself_without_pangaea() {
    let _turn = serial("suite-bare");
    let outcome = Nodes::bare("bare", "256M", &guests().join("suite"), WORDS).run();
    let transcript = transcript(outcome.expect(status::OK, &[]));
    assert!(transcript.lines.len() > 40, "only {} lines", transcript.lines.len());
}
