//! The programs' files and the shared libraries that they need.
//!
//! What a program needs is in its ELF dynamic section (DT_NEEDED, System V
//! ABI, "Dynamic Linking"). Packages are unpacked a level of dependencies at
//! a time and only until everything is found, because a package depends on
//! far more than one of its programs does.

use super::debian::{Store, library_dependencies};
use anyhow::{Context, Result, bail};
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{LittleEndian, StringTable};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The C library opens this one by name when a thread is cancelled.
const OPENED_BY_NAME: [&str; 1] = ["libgcc_s.so.1"];
/// How deep dependencies are followed.
const LEVELS_MAX: usize = 8;

/// What goes into the archive.
pub(crate) struct Contents {
    /// Programs: name and bytes.
    pub(crate) programs: BTreeMap<String, Vec<u8>>,
    /// Shared libraries: the name they are looked up by, and bytes.
    pub(crate) libraries: BTreeMap<String, Vec<u8>>,
    /// The dynamic loader's path and bytes.
    pub(crate) loaders: BTreeMap<String, Vec<u8>>,
}

/// Collects the programs `files` of `packages` with all they need.
pub(crate) fn collect(
    store: &mut Store<'_>,
    packages: &[String],
    files: &[&str],
) -> Result<Contents> {
    let mut level = packages.to_vec();
    for _ in 0..LEVELS_MAX {
        store.unpack(&level)?;
        let index = index_libraries(store);
        let programs = read_programs(store, files)?;
        let (contents, missing) = resolve(programs, &index)?;
        if missing.is_empty() {
            return Ok(contents);
        }
        level = library_dependencies(&level)?.into_iter().filter(|p| !store.has(p)).collect();
        if level.is_empty() {
            let missing: Vec<_> = missing.into_iter().collect();
            bail!("no Debian package was found for the libraries {}", missing.join(", "));
        }
    }
    bail!("the dependencies of the guest's programs go too deep");
}

/// All shared libraries of the unpacked packages by file name.
fn index_libraries(store: &Store<'_>) -> BTreeMap<String, PathBuf> {
    let mut index = BTreeMap::new();
    for root in store.roots() {
        for folder in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64"] {
            let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
            for path in entries.filter_map(|e| Some(e.ok()?.path())) {
                if let Some(name) = path.file_name().and_then(|n| n.to_str())
                    && name.contains(".so")
                    && path.is_file()
                {
                    index.insert(name.to_owned(), path.clone());
                }
            }
        }
    }
    index
}

/// Reads the programs; a link may lead into another package.
fn read_programs(store: &Store<'_>, files: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut programs = BTreeMap::new();
    for file in files {
        let name = Path::new(file).file_name().and_then(|n| n.to_str()).unwrap_or(file);
        let mut path = PathBuf::from(file);
        let data = loop {
            let found = store.roots().map(|r| r.join(&path)).find(|p| p.symlink_metadata().is_ok());
            let found = found.with_context(|| format!("no Debian package holds {file}"))?;
            match std::fs::read_link(&found) {
                // Links of Debian's programs stay in their folder.
                Ok(target) => path.set_file_name(target.file_name().unwrap_or_default()),
                Err(_) => break std::fs::read(&found)?,
            }
        };
        programs.insert(name.to_owned(), data);
    }
    Ok(programs)
}

/// Follows what the programs need; returns also what is not found.
fn resolve(
    programs: BTreeMap<String, Vec<u8>>,
    index: &BTreeMap<String, PathBuf>,
) -> Result<(Contents, BTreeSet<String>)> {
    let mut libraries: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut loaders = BTreeMap::new();
    let mut missing = BTreeSet::new();
    let mut wanted: Vec<String> = OPENED_BY_NAME.map(str::to_owned).to_vec();
    for (name, data) in &programs {
        let links = links(data).with_context(|| format!("the program {name} is no ELF file"))?;
        wanted.extend(links.needed);
        if let Some(loader) = links.loader {
            let file = loader.rsplit('/').next().unwrap_or(&loader);
            match index.get(file) {
                Some(path) => drop(loaders.insert(loader, std::fs::read(path)?)),
                None => drop(missing.insert(file.to_owned())),
            }
        }
    }
    while let Some(name) = wanted.pop() {
        if libraries.contains_key(&name) {
            continue;
        }
        let Some(path) = index.get(&name) else {
            missing.insert(name);
            continue;
        };
        let data = std::fs::read(path)?;
        let links = links(&data).with_context(|| format!("the library {name} is no ELF file"))?;
        wanted.extend(links.needed);
        libraries.insert(name, data);
    }
    Ok((Contents { programs, libraries, loaders }, missing))
}

/// What an ELF file names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Links {
    needed: Vec<String>,
    loader: Option<String>,
}

/// Reads the needed libraries and the loader of an ELF file.
fn links(data: &[u8]) -> Result<Links> {
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut links = Links::default();
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data)? {
            links.loader = Some(String::from_utf8(path.to_vec())?);
        }
    }
    let sections = header.sections(endian, data)?;
    let Some((entries, strings)) = sections.dynamic(endian, data)? else { return Ok(links) };
    let strings: StringTable<'_> = sections.strings(endian, data, strings)?;
    for entry in entries {
        if entry.tag(endian) == DT_NEEDED {
            links.needed.push(String::from_utf8(entry.string(endian, strings)?.to_vec())?);
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_the_c_library() {
        let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let links = links(&data).unwrap();
        assert!(links.needed.iter().any(|n| n == "libc.so.6"), "{links:?}");
        assert!(links.loader.unwrap().contains("ld-linux"));
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        assert!(links(b"#!/bin/sh\n").is_err());
        assert!(links(&[]).is_err());
    }

    #[test]
    fn a_missing_library_is_named() {
        let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let programs = BTreeMap::from([("me".to_owned(), data)]);
        let (_, missing) = resolve(programs, &BTreeMap::new()).unwrap();
        assert!(missing.contains("libc.so.6"), "{missing:?}");
    }
}
