use super::*;
use crate::history::SLOTS;
use crate::rng::Rng;
use addr::Gfn;

const X: Word = Word { gfn: Gfn(7), slot: 0 };
const Y: Word = Word { gfn: Gfn(9), slot: 3 };

fn ld(word: Word, read: u64) -> Event {
    Event::load(word, read)
}
fn st(word: Word, wrote: u64) -> Event {
    Event::store(word, wrote)
}
fn rmw(word: Word, read: u64, wrote: u64) -> Event {
    Event::swap(word, read, wrote)
}

fn judge(cpus: &[&[Event]]) -> Result<(), Flaw> {
    let history = History { cpus: cpus.iter().map(|c| c.to_vec()).collect(), fresh: 0 };
    check(&history)
}

/// Each word is fine by itself, and the whole is not.
#[track_caller]
fn unordered(cpus: &[&[Event]]) {
    match judge(cpus) {
        Err(Flaw::Unordered { cycle }) => assert!(cycle.len() >= 2, "{cycle:?}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn incoherent(cpus: &[&[Event]]) {
    assert!(matches!(judge(cpus), Err(Flaw::Incoherent { word: X, .. })), "{:?}", judge(cpus));
}

#[test]
fn forbidden_shapes_are_found() {
    // Store buffering: what total store order alone would allow.
    unordered(&[&[st(X, 1), ld(Y, 0)], &[st(Y, 1), ld(X, 0)]]);
    unordered(&[&[rmw(X, 0, 1), ld(Y, 0)], &[st(Y, 1), ld(X, 0)]]);
    // Message passing.
    unordered(&[&[st(X, 1), st(Y, 1)], &[ld(Y, 1), ld(X, 0)]]);
    // Load buffering.
    unordered(&[&[ld(X, 1), st(Y, 1)], &[ld(Y, 1), st(X, 1)]]);
    // Independent reads of independent writes.
    unordered(&[&[st(X, 1)], &[st(Y, 1)], &[ld(X, 1), ld(Y, 0)], &[ld(Y, 1), ld(X, 0)]]);
    // 2+2W, with the last values read afterwards.
    unordered(&[
        &[st(X, 1), st(Y, 2)],
        &[st(Y, 1), st(X, 2)],
        &[ld(Y, 2), ld(Y, 1), ld(X, 2), ld(X, 1)],
    ]);
    // Write to read causality.
    unordered(&[&[st(X, 1)], &[ld(X, 1), st(Y, 1)], &[ld(Y, 1), ld(X, 0)]]);
}

#[test]
fn incoherent_words_are_found() {
    incoherent(&[&[st(X, 1)], &[ld(X, 1), ld(X, 0)]]);
    incoherent(&[&[st(X, 1)], &[st(X, 2)], &[ld(X, 1), ld(X, 2)], &[ld(X, 2), ld(X, 1)]]);
    incoherent(&[&[st(X, 1), ld(X, 0)]]);
    incoherent(&[&[ld(X, 1), st(X, 1)]]);
    incoherent(&[&[st(X, 1), st(X, 2)], &[ld(X, 2), ld(X, 1)]]);
    // A write between those that a read has seen in the wrong order.
    incoherent(&[&[st(X, 1), ld(X, 2), ld(X, 1)], &[st(X, 2)]]);
}

#[test]
fn torn_atomics_are_found() {
    // A lost update, and an atomic that another write came between.
    incoherent(&[&[rmw(X, 0, 1)], &[rmw(X, 0, 2)]]);
    incoherent(&[&[st(X, 5), rmw(X, 5, 6)], &[rmw(X, 5, 7)]]);
    incoherent(&[&[rmw(X, 0, 1), ld(X, 2), ld(X, 1)], &[st(X, 2)]]);
}

#[test]
fn values_from_nowhere_are_found() {
    assert!(matches!(judge(&[&[ld(X, 3)]]), Err(Flaw::OutOfThinAir { .. })));
    // Of another word.
    assert!(matches!(judge(&[&[st(Y, 3), ld(X, 3)]]), Err(Flaw::OutOfThinAir { .. })));
    assert!(matches!(judge(&[&[st(X, 3), st(X, 3)]]), Err(Flaw::WrittenTwice { .. })));
}

#[test]
fn allowed_outcomes_are_not_flaws() {
    let good: &[&[&[Event]]] = &[
        &[&[st(X, 1), ld(Y, 0)], &[st(Y, 1), ld(X, 1)]],
        &[&[st(X, 1), st(Y, 1)], &[ld(Y, 0), ld(X, 1)]],
        &[&[st(X, 1)], &[st(Y, 1)], &[ld(X, 1), ld(Y, 0)], &[ld(Y, 0), ld(X, 1)]],
        &[&[rmw(X, 0, 1), rmw(X, 2, 3)], &[rmw(X, 1, 2), ld(X, 3)]],
        &[&[st(X, 1), ld(X, 2)], &[st(X, 2), ld(X, 2)]],
        &[&[], &[ld(X, 0)]],
    ];
    for cpus in good {
        assert_eq!(judge(cpus), Ok(()), "{cpus:?}");
    }
}

/// A history that one order explains: random programs, run one instruction
/// at a time. Also how long each value stood.
fn run(seed: u64, cpus: usize, length: usize) -> History {
    let mut rng = Rng::new(seed);
    let mut memory: HashMap<Word, u64> = HashMap::new();
    let mut history = History::new(cpus);
    for _ in 0..length {
        let cpu = rng.below(cpus as u64) as usize;
        let word = Word { gfn: Gfn(rng.below(2)), slot: rng.below(3) as u8 };
        let now = memory.get(&word).copied().unwrap_or(0);
        let event = match rng.below(4) {
            0 => Event::store(word, history.fresh(cpu)),
            1 => Event::swap(word, now, now + 1),
            _ => Event::load(word, now),
        };
        event.wrote.map(|value| memory.insert(word, value));
        history.note(cpu, event);
    }
    history
}

#[test]
fn what_was_executed_in_an_order_is_explained() {
    for seed in 0..200 {
        let history = run(seed, 2 + seed as usize % 4, 300);
        assert_eq!(check(&history), Ok(()), "seed {seed}");
    }
}

/// One load of such a history made stale: it sees an earlier value of its
/// word than its processor has already seen.
#[test]
fn a_single_stale_load_is_found() {
    let mut tried = 0;
    for seed in 0..300 {
        let mut history = run(seed, 3, 200);
        let cpu = seed as usize % 3;
        let events = &mut history.cpus[cpu];
        let mut seen: HashMap<Word, Vec<u64>> = HashMap::new();
        let mut stale = None;
        for (place, event) in events.iter().enumerate() {
            let values = seen.entry(event.word).or_default();
            if event.wrote.is_none() && values.len() > 3 {
                stale = values.iter().find(|&&v| Some(v) != event.read).map(|&v| (place, v));
            }
            let value = event.wrote.or(event.read).expect("every event has a value");
            if values.last() != Some(&value) {
                values.push(value);
            }
        }
        let Some((place, value)) = stale else { continue };
        events[place].read = Some(value);
        tried += 1;
        let flaw = check(&history).expect_err("a stale load");
        assert!(matches!(flaw, Flaw::Incoherent { .. }), "seed {seed}: {flaw}");
    }
    assert!(tried > 150, "{tried}");
}

#[test]
fn words_do_not_overlap_each_other_or_the_marks() {
    let mut places: Vec<usize> =
        (0..SLOTS).map(|s| Word { gfn: Gfn(0), slot: s }.offset()).collect();
    places.extend(crate::oracle::addresses(Gfn(0)).map(|a| a.0 as usize));
    places.sort_unstable();
    assert!(places.windows(2).all(|w| w[0] + 8 <= w[1]) && places[places.len() - 1] + 8 <= 4096);
}
