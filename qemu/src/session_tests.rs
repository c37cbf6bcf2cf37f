//! Tests of how runs end.

use super::*;
use crate::event::{Parsed, parse};

const SECOND: Duration = Duration::from_secs(1);

fn at(node: u32, seconds: u32, kind: Kind) -> Message {
    Message { node, at: seconds * SECOND, kind }
}

fn event(node: u32, seconds: u32, json: &str) -> Message {
    let Parsed::Known(event, value) = parse(&format!("@pangaea {json}")) else {
        panic!("no event: {json}")
    };
    at(node, seconds, Kind::Event(Some(event), value))
}

fn exited(node: u32, seconds: u32) -> Message {
    at(node, seconds, Kind::Exited(ExitStatus::default()))
}

fn bytes(port: Port, seconds: u32, text: &str) -> Message {
    at(0, seconds, Kind::Bytes(port, text.as_bytes().to_vec()))
}

fn formed(nonce: Option<&str>) -> Session {
    let mut session = Session::new(2, false, nonce);
    for node in 0..2 {
        session.observe(&event(node, 1, r#"{"event":"up"}"#));
        session.observe(&event(node, 2, r#"{"event":"formed","nodes":2}"#));
    }
    session
}

/// Feeds messages and returns the end at `now`.
fn end(session: &mut Session, messages: &[Message], now: u32) -> Option<Ended> {
    for message in messages {
        session.observe(message);
    }
    session.ended(now * SECOND)
}

#[test]
fn a_commands_status_is_the_runs_status() {
    let mut session = formed(Some("n1"));
    let shown = session.observe(&bytes(Port::Output, 3, "hello\n\x1epangaea-exit n1 3\n"));
    assert_eq!(shown, [Effect::Stdout(b"hello\n".to_vec())]);
    assert!(!session.decided(), "the other stream is still open");
    session.observe(&bytes(Port::Control, 3, "\x1epangaea-exit n1 3\n"));
    assert!(session.decided());
    assert_eq!(session.ended(4 * SECOND), None, "the nodes still run");
    let over = end(&mut session, &[exited(0, 5), exited(1, 5)], 5).unwrap();
    assert_eq!(over, Ended { status: 3, sentence: String::new() });
}

#[test]
fn a_finished_command_does_not_wait_for_ever() {
    let mut session = formed(Some("n"));
    session.observe(&bytes(Port::Output, 3, "\x1epangaea-exit n 0\n"));
    session.observe(&bytes(Port::Control, 3, "\x1epangaea-exit n 0\n"));
    assert_eq!(session.ended(22 * SECOND), None);
    assert_eq!(session.ended(23 * SECOND).unwrap().status, 0);
}

#[test]
fn power_off_and_reset_are_good_ends() {
    for how in ["power-off", "reset"] {
        let mut session = formed(None);
        let line = format!(r#"{{"event":"guest-end","how":"{how}"}}"#);
        let over = end(&mut session, &[event(0, 3, &line), exited(0, 4), exited(1, 4)], 4);
        assert_eq!(over.unwrap(), Ended { status: 0, sentence: String::new() });
    }
}

#[test]
fn a_dead_guest_has_its_own_status() {
    let mut session = formed(Some("n"));
    let line = r#"{"event":"guest-end","how":"died","reason":"triple fault"}"#;
    let over = end(&mut session, &[event(0, 3, line), exited(0, 4), exited(1, 4)], 4).unwrap();
    assert_eq!(over.status, status::GUEST_DIED);
    assert!(over.sentence.contains("triple fault"));
}

#[test]
fn a_lost_node_is_reported_by_the_survivors() {
    let mut session = formed(Some("n"));
    assert_eq!(end(&mut session, &[exited(1, 10)], 12), None, "the survivors have time");
    let line = r#"{"event":"fatal","class":"node-lost","message":"node 1 was lost at epoch 1"}"#;
    let shown = session.observe(&event(0, 13, line));
    assert_eq!(shown, [Effect::Report(vec!["node 0: node 1 was lost at epoch 1".into()])]);
    let over = end(&mut session, &[exited(0, 14)], 14).unwrap();
    assert_eq!(over.status, status::NODE_LOST);
    assert_eq!(over.sentence, "node 1 was lost at epoch 1");
}

#[test]
fn a_lost_node_that_nobody_reports_is_noticed() {
    let mut session = formed(None);
    assert_eq!(end(&mut session, &[exited(1, 10)], 17), None);
    let over = session.ended(18 * SECOND).unwrap();
    assert_eq!(over.status, status::NODE_LOST);
    assert!(over.sentence.contains("node 1"));
}

#[test]
fn nodes_that_never_form_have_their_own_status() {
    let mut session = Session::new(2, false, None);
    let line = r#"{"event":"fatal","class":"join-timeout","message":"1 of 2 nodes came"}"#;
    let over = end(&mut session, &[event(0, 30, line), exited(0, 31), exited(1, 31)], 31).unwrap();
    assert_eq!(over, Ended { status: status::NOT_FORMED, sentence: "1 of 2 nodes came".into() });
    let mut session = Session::new(2, false, None);
    let over = end(&mut session, &[exited(0, 1), exited(1, 1)], 1).unwrap();
    assert_eq!(over.status, status::NOT_FORMED);
}

#[test]
fn a_panic_overrules_what_was_decided() {
    let mut session = formed(Some("n"));
    session.observe(&bytes(Port::Output, 3, "\x1epangaea-exit n 0\n"));
    session.observe(&bytes(Port::Control, 3, "\x1epangaea-exit n 0\n"));
    let line = r#"{"event":"panic","message":"broken","backtrace":["0x10"]}"#;
    let shown = session.observe(&event(1, 4, line));
    assert!(matches!(&shown[..], [Effect::Panic { node: 1, .. }]));
    let over = end(&mut session, &[exited(0, 5), exited(1, 5)], 5).unwrap();
    assert_eq!(over.status, status::FAULT);
    assert!(over.sentence.contains("broken"));
}

#[test]
fn a_fault_after_forming_is_pangaeas() {
    let mut session = formed(None);
    let line = r#"{"event":"fatal","class":"protocol","message":"a frame out of order"}"#;
    let over = end(&mut session, &[event(0, 3, line), exited(0, 4), exited(1, 4)], 4).unwrap();
    assert_eq!(over.status, status::FAULT);
}

#[test]
fn a_direct_machine_ends_with_its_emulator() {
    let mut session = Session::new(1, true, Some("n"));
    session.observe(&bytes(Port::Output, 3, "out\x1epangaea-exit n 9\n"));
    session.observe(&bytes(Port::Control, 3, "\x1epangaea-exit n 9\n"));
    assert_eq!(end(&mut session, &[exited(0, 4)], 4).unwrap().status, 9);
}

#[test]
fn held_output_comes_out_when_the_guest_is_gone() {
    let mut session = formed(Some("n"));
    session.observe(&bytes(Port::Output, 3, "x\x1epanga"));
    let shown = session.observe(&exited(0, 4));
    assert_eq!(shown[0], Effect::Stdout(b"\x1epanga".to_vec()));
}

#[test]
fn a_nodes_own_reason_overrules_what_another_heard() {
    let mut session = formed(None);
    let heard = r#"{"event":"fatal","class":"peer","message":"node 0 ended the cluster"}"#;
    session.observe(&event(1, 3, heard));
    let own = r#"{"event":"fatal","class":"node-lost","message":"node 2 is lost"}"#;
    session.observe(&event(0, 3, own));
    assert!(session.observe(&event(1, 4, heard)).is_empty(), "nothing new");
    let over = end(&mut session, &[exited(0, 4), exited(1, 4)], 4).unwrap();
    assert_eq!(over, Ended { status: status::NODE_LOST, sentence: "node 2 is lost".into() });
}

#[test]
fn a_kernel_that_panics_is_dead_though_it_resets_the_machine() {
    let said = "[  1.0] Kernel panic - not syncing: sysrq\r\n";
    let reset = r#"{"event":"guest-end","how":"reset"}"#;
    // The console and the node's own port are two streams: either may be first.
    for console_first in [true, false] {
        let mut messages = vec![bytes(Port::Console, 3, said), event(0, 3, reset)];
        if !console_first {
            messages.reverse();
        }
        messages.extend([exited(0, 4), exited(1, 4)]);
        let over = end(&mut formed(Some("n")), &messages, 4).unwrap();
        assert_eq!(over.status, status::GUEST_DIED);
        assert!(over.sentence.ends_with("panicked: sysrq"), "{}", over.sentence);
    }
    // What a command prints is no panic, and a power-off is none either.
    let mut session = formed(None);
    let off = r#"{"event":"guest-end","how":"power-off"}"#;
    let messages = [bytes(Port::Output, 3, said), event(0, 3, off), exited(0, 4), exited(1, 4)];
    assert_eq!(end(&mut session, &messages, 4).unwrap().status, 0);
}

#[test]
fn what_a_node_was_given_is_at_fault_also_when_others_have_formed() {
    for class in ["config", "version", "memory"] {
        let mut session = formed(None);
        let line = format!(r#"{{"event":"fatal","class":"{class}","message":"m"}}"#);
        let over = end(&mut session, &[event(1, 3, &line), exited(0, 4), exited(1, 4)], 4);
        assert_eq!(over.unwrap().status, status::NOT_FORMED, "{class}");
    }
}
