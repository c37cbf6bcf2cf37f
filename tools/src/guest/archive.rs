//! The guest's initial RAM disk as one archive.

use super::libraries::Contents;
use runner::cpio::Writer;
use std::collections::BTreeSet;
use std::io::Result;
use std::path::Path;

/// Folders of the initial file system.
const FOLDERS: [&str; 12] = [
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib64",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
];

/// Builds the archive of programs, libraries and init, and other files by
/// their paths.
pub(crate) fn build(
    contents: &Contents,
    init: &str,
    files: &[(String, Vec<u8>)],
) -> Result<Vec<u8>> {
    let mut cpio = Writer::new(Vec::new());
    for folder in FOLDERS {
        cpio.directory(folder, 0o755)?;
    }
    // The kernel opens the console before init can mount anything.
    cpio.character("dev/console", 5, 1)?;
    cpio.file("init", init.as_bytes(), 0o755)?;
    cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
    cpio.file("etc/group", b"root:x:0:\n", 0o644)?;
    cpio.link("usr/bin", "../bin")?;
    cpio.link("usr/lib", "../lib")?;
    cpio.link("sbin", "bin")?;
    for (name, data) in &contents.programs {
        cpio.file(&format!("bin/{name}"), data, 0o755)?;
    }
    for (name, data) in &contents.libraries {
        cpio.file(&format!("lib/x86_64-linux-gnu/{name}"), data, 0o644)?;
    }
    for (path, data) in &contents.loaders {
        cpio.file(path, data, 0o755)?;
    }
    let mut folders = BTreeSet::new();
    for (path, _) in files {
        folders.extend(Path::new(path).ancestors().skip(1));
    }
    for folder in folders.iter().filter_map(|f| f.to_str()) {
        if !folder.is_empty() && !FOLDERS.contains(&folder) {
            cpio.directory(folder, 0o755)?;
        }
    }
    for (path, data) in files {
        cpio.file(path, data, 0o755)?;
    }
    cpio.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::INIT;
    use std::collections::BTreeMap;

    #[test]
    fn the_archive_holds_what_boots() {
        let contents = Contents {
            programs: BTreeMap::from([("busybox".into(), vec![1, 2, 3])]),
            libraries: BTreeMap::from([("libc.so.6".into(), vec![4])]),
            loaders: BTreeMap::from([("/lib64/ld-linux-x86-64.so.2".into(), vec![5])]),
        };
        let bytes = build(&contents, INIT, &[("a/b/c".into(), vec![6])]).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for name in [
            "init\0",
            "bin/busybox\0",
            "lib/x86_64-linux-gnu/libc.so.6\0",
            "dev/console\0",
            "a\0",
            "a/b\0",
            "a/b/c\0",
        ] {
            assert!(text.contains(name), "{name:?}");
        }
        assert!(text.contains("lib64/ld-linux-x86-64.so.2\0"));
        assert_eq!(INIT.lines().next(), Some("#!/bin/busybox sh"));
    }
}
