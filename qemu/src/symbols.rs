//! Names for the return addresses in a node's panic report.

use std::path::Path;

/// The debug information of an image.
pub struct Symbols(addr2line::Loader);

impl Symbols {
    /// Loads the image's debug information; `None` if it has none that can
    /// be read, in which case addresses stay numbers.
    pub fn load(image: &Path) -> Option<Self> {
        addr2line::Loader::new(image).ok().map(Self)
    }

    /// Describes an address: one line for each function, the innermost of
    /// those inlined there first.
    pub fn describe(&self, address: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if let Ok(mut frames) = self.0.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = match &frame.function {
                    Some(function) => function
                        .demangle()
                        .map_or_else(|_| "?".to_owned(), std::borrow::Cow::into_owned),
                    None => "?".to_owned(),
                };
                let place = frame.location.and_then(|l| Some((l.file?.to_owned(), l.line?)));
                lines.push(match place {
                    Some((file, line)) => format!("{name} at {file}:{line}"),
                    None => name,
                });
            }
        }
        if lines.is_empty()
            && let Some(name) = self.0.find_symbol(address)
        {
            lines.push(name.to_owned());
        }
        lines
    }
}

/// Turns a backtrace of hexadecimal return addresses into lines for people.
pub fn backtrace(symbols: Option<&Symbols>, addresses: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, text) in addresses.iter().enumerate() {
        let digits = text.trim_start_matches("0x");
        let Ok(address) = u64::from_str_radix(digits, 16) else {
            lines.push(format!("{index:3}: {text}"));
            continue;
        };
        // A return address is behind its call, which may be the last
        // instruction of its function.
        let call = address.saturating_sub(1);
        let names = symbols.map(|s| s.describe(call)).unwrap_or_default();
        match names.split_first() {
            None => lines.push(format!("{index:3}: {address:#018x}")),
            Some((first, inlined)) => {
                lines.push(format!("{index:3}: {address:#018x} {first}"));
                lines.extend(inlined.iter().map(|n| format!("     inlined into {n}")));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_this_program_is_named() {
        // The test program is its own image; its functions move with its
        // load address, so a symbol's address is taken from the file.
        let image = std::env::current_exe().unwrap();
        let loader = addr2line::Loader::new(&image).unwrap();
        let symbols = Symbols::load(&image).unwrap();
        let found = (0..1u64 << 24)
            .step_by(64)
            .filter_map(|a| loader.find_symbol(a).map(|n| (a, n.to_owned())))
            .find(|(_, name)| name.contains("runner"));
        let (address, _) = found.expect("this program has symbols of this crate");
        let lines = backtrace(Some(&symbols), &[format!("{:#x}", address + 1)]);
        assert!(lines[0].contains(&format!("{:x}", address + 1)), "{lines:?}");
        assert!(lines.iter().any(|l| l.contains("::")), "{lines:?}");
    }

    #[test]
    fn without_symbols_addresses_stay() {
        let lines = backtrace(None, &["0xffff800000100010".to_owned(), "junk".to_owned()]);
        assert_eq!(lines, ["  0: 0xffff800000100010", "  1: junk"]);
    }
}
