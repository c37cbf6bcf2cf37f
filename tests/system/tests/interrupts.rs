//! Interrupts on an emulator whose processor is disturbed.

use runner::session::status;
use system::{Nodes, guests, serial};

/// QEMU's other threads kick its processor now and then, and what it was about
/// to do must then be done once. Here they do so all the time.
#[test]
fn an_interrupt_comes_once_however_often_the_emulator_is_kicked() {
    let _turn = serial("kicks");
    let words = "only=interrupt.once rounds=2000";
    let nodes = Nodes::new(1, "128M", &guests().join("suite"), words).kicked("@once ");
    let outcome = nodes.within(60).run();
    println!("{} kicks, {:.1} s", outcome.kicks, outcome.took.as_secs_f64());
    let failed = outcome.console.lines().find(|l| l.contains("FAILED:"));
    assert_eq!(failed, None);
    outcome.expect(status::OK, &[]);
    let passed = outcome.console.contains("@suite end 1 passed, 0 skipped, 0 FAILED");
    assert!(passed, "the guest says what came");
    assert!(outcome.kicks > 500, "only {} kicks", outcome.kicks);
}
