//! Every target over its seeds and over random changes of them.

use fuzz::mutate::mutate;
use fuzz::{TARGETS, Target};
use std::path::Path;

/// Random inputs for each target; coverage-guided runs make millions.
const ROUNDS: u64 = 20_000;

/// The files of `seeds/NAME`: small inputs, and ones that once broke something.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a readable file")).collect()
}

/// Runs a target; a panic says the bytes.
fn attempt(name: &str, target: Target, bytes: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| target(bytes)) {
        let file = std::env::temp_dir().join(format!("pangaea-fuzz-{name}"));
        std::fs::write(&file, bytes).expect("the temporary folder takes a file");
        eprintln!("correctness: target {name}, input kept in {}", file.display());
        eprintln!("replay: cargo pangaea fuzz {name} --input {}", file.display());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn no_seed_and_no_random_change_of_one_breaks_a_target() {
    for (name, target) in TARGETS {
        let mut corpus = seeds(name);
        assert!(!corpus.is_empty(), "{name} has seeds");
        corpus.iter().for_each(|seed| attempt(name, target, seed));
        let mut rng = fastrand::Rng::with_seed(0x5EED);
        for round in 0..ROUNDS {
            let at = rng.usize(..corpus.len());
            let mut bytes = corpus[at].clone();
            mutate(&mut bytes, &mut rng);
            attempt(name, target, &bytes);
            // Without coverage to go by, some changes are kept at random.
            if round % 8 == 0 && corpus.len() < 256 {
                corpus.push(bytes);
            }
        }
    }
}
