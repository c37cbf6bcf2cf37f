//! Looks for a Linux kernel's panic on the guest's console.

/// How Linux announces a panic (kernel/panic.c).
const MARK: &str = "Kernel panic - not syncing: ";
/// Longest line that is looked at.
const LINE_LEN_MAX: usize = 1024;

/// Reads the console line by line.
#[derive(Clone, Debug, Default)]
pub(crate) struct PanicWatch {
    line: Vec<u8>,
    reason: Option<String>,
}

impl PanicWatch {
    /// Takes bytes of the console.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < LINE_LEN_MAX => self.line.push(byte),
                _ => {}
            }
        }
    }

    /// Looks at a whole line.
    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if self.reason.is_none()
            && let Some((_, reason)) = line.split_once(MARK)
        {
            self.reason = Some(reason.trim().to_owned());
        }
        self.line.clear();
    }

    /// Why the kernel panicked, if it did.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_found_however_the_bytes_come() {
        let text = b"[ 1.0] all well\r\n[ 2.0] Kernel panic - not syncing: sysrq\r\n\
                     [ 3.0] Kernel panic - not syncing: second\r\n";
        for size in 1..text.len() {
            let mut watch = PanicWatch::default();
            text.chunks(size).for_each(|chunk| watch.push(chunk));
            assert_eq!(watch.reason(), Some("sysrq"), "in pieces of {size}");
        }
    }

    #[test]
    fn other_lines_are_no_panic_and_long_ones_are_cut() {
        let mut watch = PanicWatch::default();
        watch.push(b"Kernel panic\nnot syncing: x\n");
        watch.push(&vec![b'x'; 5000]);
        watch.push(b"Kernel panic - not syncing: too late in the line\n");
        assert_eq!(watch.reason(), None);
    }
}
