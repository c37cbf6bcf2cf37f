use super::*;

fn sender(messages: u8, page: Option<Frame>) -> Sender {
    let mut sender = Sender::new(8, 8, 3);
    for n in 0..messages {
        assert!(sender.push(&[n; BODY_BYTES], page, false));
    }
    sender
}

/// What is to be sent next, as (sequence, part).
fn due(sender: &mut Sender) -> Option<(u32, u8)> {
    sender.due(0).map(|due| (due.sequence, due.part))
}

/// Takes note that what is due next was sent.
fn took(sender: &mut Sender, sequence: u32, now_ns: u64) {
    let due = sender.due(0).expect("something is due");
    assert_eq!(due.sequence, sequence);
    let bit = due.bit;
    sender.took(bit, now_ns);
}

#[test]
fn one_frame_takes_several_numbers() {
    let mut s = sender(3, None);
    let first = s.due(0).expect("three are due").bit;
    let second = s.due(first).expect("two more are due");
    assert_eq!((second.sequence, second.body), (1, &[1; BODY_BYTES]));
    let both = first | second.bit;
    assert_eq!(s.due(both).map(|due| due.sequence), Some(2));
    assert_eq!(due(&mut s), Some((0, 0)), "nobody has taken note of it");
    s.took(both, 10);
    assert_eq!(due(&mut s), Some((2, 0)));
    assert_eq!(s.acknowledge((2, 0, 8), 25, 0, |_| {}).rtt, Some((15, 0)));
    took(&mut s, 2, 30);
    assert!(due(&mut s).is_none() && s.outstanding());
}

/// The link may be full when an acknowledgement comes.
#[test]
fn what_is_due_stays_due_when_others_are_acknowledged() {
    let mut s = sender(1, Some(Frame(7)));
    assert_eq!(due(&mut s), Some((0, 0)));
    took(&mut s, 0, 10);
    assert_eq!(due(&mut s), Some((1, 1)));
    let acked = s.acknowledge((1, 0, 8), 25, 0, |_| panic!("two parts are to come"));
    assert_eq!((acked.progress, acked.rtt, acked.lost), (true, Some((15, 3)), 0));
    for sequence in [1, 2] {
        assert_eq!(due(&mut s), Some((sequence, sequence as u8)));
        took(&mut s, sequence, 30);
    }
    assert!(due(&mut s).is_none() && s.outstanding() && !s.knows((3, 0, 8)));
    let mut back = None;
    s.acknowledge((3, 0, 8), 40, 0, |frame| back = Some(frame));
    assert_eq!(back, Some(Frame(7)));
    assert!(!s.outstanding() && s.knows((3, 0, 8)));
    assert!(!s.knows((2, 0, 8)) && !s.knows((3, 2, 8)) && !s.knows((3, 0, 7)));
}

/// Once when three later ones have come, then when a round trip and an
/// eighth are over.
#[test]
fn what_is_overtaken_is_sent_again_in_time() {
    let mut s = sender(6, None);
    for sequence in 0..6 {
        assert_eq!(due(&mut s), Some((sequence, 0)));
        took(&mut s, sequence, 100);
    }
    let acknowledge = |s: &mut Sender, received: u64, now_ns: u64| {
        s.acknowledge((0, received, 8), now_ns, 80, |_| {}).lost
    };
    assert_eq!((acknowledge(&mut s, 0b00_0110, 110), due(&mut s)), (0, None));
    assert_eq!((acknowledge(&mut s, 0b00_1110, 111), due(&mut s)), (1, Some((0, 0))));
    took(&mut s, 0, 200);
    assert_eq!((acknowledge(&mut s, 0b01_1110, 289), due(&mut s)), (0, None));
    assert_eq!((acknowledge(&mut s, 0b11_1110, 290), due(&mut s)), (1, Some((0, 0))));
    took(&mut s, 0, 300);
    assert_eq!((s.expire(399, 100), due(&mut s)), ((0, Some(400)), None));
    assert_eq!((s.expire(400, 100), due(&mut s)), ((1, None), Some((0, 0))));
}

/// Room for the window and for a page that began before it, as tables have it.
#[test]
fn tables_are_as_large_as_the_window_demands() {
    for (window, rows) in [(4, 8), (10, 16), (42, 64), (WINDOW_MAX, ROWS)] {
        let mut s = Sender::new(8, window, 3);
        s.open();
        assert_eq!((s.units.len(), s.flight.len()), (rows, rows));
    }
}
