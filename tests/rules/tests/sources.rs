//! Rules about the sources themselves.

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
