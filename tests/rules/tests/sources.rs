//! Rules about the sources themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines after which a file is asked whether it is two things.
const FILE_LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust files below `folder`.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![root().join(folder)];
    while let Some(at) = next.pop() {
        let Ok(entries) = fs::read_dir(&at) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                next.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn logic_forbids_unsafe_and_std() {
    for entry in fs::read_dir(root().join("kernel/logic")).expect("the logic").flatten() {
        if !entry.path().is_dir() {
            continue;
        }
        let lib = text(&entry.path().join("src/lib.rs"));
        for rule in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            assert!(lib.contains(rule), "{} lacks {rule}", entry.path().display());
        }
    }
}

#[test]
fn host_programs_have_no_unsafe() {
    for folder in
        ["tools", "qemu", "tests/system", "tests/model", "tests/sim", "tests/fuzz", "tests/rules"]
    {
        if !root().join(folder).exists() {
            continue;
        }
        for path in rust_files(folder) {
            for (n, line) in text(&path).lines().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                let word = ["unsafe", " {"].concat();
                assert!(!code.contains(&word), "{}:{}", path.display(), n + 1);
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    for folder in ["boot", "kernel", "tools", "qemu", "tests"] {
        for path in rust_files(folder) {
            let lines = text(&path).lines().count();
            assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn every_crate_says_what_it_is_for() {
    for folder in ["boot", "kernel", "tools", "qemu", "tests"] {
        for path in rust_files(folder) {
            let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
            if is_root {
                assert!(text(&path).starts_with("//!"), "{} has no docs", path.display());
            }
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let words: [String; 3] =
        [["to", "do!("].concat(), ["unimpl", "emented!("].concat(), ["FIX", "ME"].concat()];
    for folder in ["boot", "kernel", "tools", "qemu", "tests"] {
        for path in rust_files(folder) {
            let text = text(&path);
            for word in &words {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

/// Words without which safe code has nothing that two threads, or a program
/// and an interrupt, can both change.
const SHARING: [&str; 8] = [
    "Atomic",
    "atomic::",
    "static mut",
    "UnsafeCell",
    "SyncUnsafeCell",
    "spin::",
    "Mutex",
    "RwLock",
];

/// The first line of code, comments and tests aside, with one of [`SHARING`].
fn shares_state(text: &str) -> Option<&str> {
    let tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let mut code = text[..tests].lines().map(|line| line.split("//").next().unwrap_or(""));
    code.find(|line| SHARING.iter().any(|word| line.contains(word)))
}

/// Every change in the logic goes through `&mut`: there is nothing in it that
/// threads could see in different orders, and so nothing for loom to explore.
#[test]
fn logic_shares_no_state_between_threads() {
    for path in rust_files("kernel/logic") {
        let text = text(&path);
        assert_eq!(shares_state(&text), None, "{}", path.display());
    }
    for entry in fs::read_dir(root().join("kernel/logic")).expect("the logic").flatten() {
        let manifest = entry.path().join("Cargo.toml");
        let Ok(manifest) = fs::read_to_string(&manifest) else { continue };
        for lock in ["spin", "critical-section", "portable-atomic", "crossbeam", "lock_api"] {
            let named = manifest.lines().any(|line| line.trim_start().starts_with(lock));
            assert!(!named, "{} depends on {lock}", entry.path().display());
        }
    }
    assert!(shares_state("use core::sync::atomic::AtomicBool;").is_some());
    assert!(shares_state("// no Mutex here").is_none());
}

/// The files of the table under "What is shared" in `kernel/README.md`.
fn named_as_shared() -> BTreeSet<String> {
    let readme = text(&root().join("kernel/README.md"));
    let (_, rest) = readme.split_once("\n## What is shared\n").expect("its chapter");
    let chapter = rest.split("\n## ").next().expect("a first part");
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    let wheres = rows.filter_map(|row| row.split('|').nth(1));
    wheres.flat_map(|place| place.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// What is shared outside the logic is named in `kernel/README.md`, with who
/// shares it; and nothing else is.
#[test]
fn what_hardware_code_shares_is_named() {
    let kernel = root().join("kernel");
    let files = rust_files("kernel/hw").into_iter().chain(rust_files("kernel/image"));
    let sharing = files.filter(|path| shares_state(&text(path)).is_some());
    let inside =
        |path: PathBuf| path.strip_prefix(&kernel).expect("below it").display().to_string();
    assert_eq!(sharing.map(inside).collect::<BTreeSet<_>>(), named_as_shared());
}
