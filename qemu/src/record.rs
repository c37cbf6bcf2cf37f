//! The mark that ends a command's output on a serial port.
//!
//! The guest's init writes `\x1epangaea-exit NONCE STATUS\n` on both ports
//! once the command and every byte of its output are through. The nonce is
//! new for each run, so no output of a command can be taken for it.

/// Finds the end record in a stream and lets everything before it through.
#[derive(Clone, Debug)]
pub struct Scanner {
    mark: Vec<u8>,
    /// Bytes that may be the start of the record.
    held: Vec<u8>,
    status: Option<i32>,
}

/// Longest text of a status, with the line end.
const STATUS_LEN_MAX: usize = 12;

impl Scanner {
    /// Looks for the record of the run with this nonce.
    pub fn new(nonce: &str) -> Self {
        let mark = format!("\x1epangaea-exit {nonce} ").into_bytes();
        Self { mark, held: Vec::new(), status: None }
    }

    /// The command's status, once its record has been seen.
    pub fn status(&self) -> Option<i32> {
        self.status
    }

    /// Takes bytes from the port and returns those that are output.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.status.is_some() {
            return Vec::new();
        }
        self.held.extend_from_slice(bytes);
        let mut output = Vec::new();
        loop {
            let start = find_prefix(&self.held, &self.mark);
            output.extend(self.held.drain(..start));
            if self.held.len() < self.mark.len() {
                return output;
            }
            let rest = &self.held[self.mark.len()..];
            match rest.iter().position(|&b| b == b'\n') {
                Some(end) => {
                    if let Some(status) = parse_status(&rest[..end]) {
                        self.status = Some(status);
                        self.held.clear();
                        return output;
                    }
                }
                None if rest.len() < STATUS_LEN_MAX => return output,
                None => {}
            }
            // The mark was there but no status: it is output after all.
            output.extend(self.held.drain(..1));
        }
    }

    /// Ends the stream: returns what was held back in vain.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Reads the decimal status.
fn parse_status(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The first place in `bytes` where `mark`, or as much of it as there is
/// room for, begins; the end of `bytes` if there is none.
fn find_prefix(bytes: &[u8], mark: &[u8]) -> usize {
    let fits = |start: &usize| {
        let rest = &bytes[*start..];
        let len = rest.len().min(mark.len());
        rest[..len] == mark[..len]
    };
    (0..bytes.len()).find(fits).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"one\n\x1epangaea-exit other 3\ntwo\0\xff\x1e\x1epangaea-exit abc 7\n";
    const OUTPUT: &[u8] = b"one\n\x1epangaea-exit other 3\ntwo\0\xff\x1e";

    #[test]
    fn output_is_exact_however_it_is_cut() {
        for cut in 1..STREAM.len() {
            let mut scanner = Scanner::new("abc");
            let mut output = Vec::new();
            for chunk in STREAM.chunks(cut) {
                output.extend(scanner.push(chunk));
            }
            assert_eq!(output, OUTPUT, "chunks of {cut}");
            assert_eq!(scanner.status(), Some(7), "chunks of {cut}");
        }
    }

    #[test]
    fn nothing_after_the_record_is_output() {
        let mut scanner = Scanner::new("abc");
        assert_eq!(scanner.push(b"\x1epangaea-exit abc 255\njunk"), b"");
        assert_eq!(scanner.push(b"more"), b"");
        assert_eq!(scanner.status(), Some(255));
    }

    #[test]
    fn a_mark_without_a_status_is_output() {
        let mut scanner = Scanner::new("abc");
        let bytes = b"\x1epangaea-exit abc no number at all\n";
        let mut output = scanner.push(bytes);
        output.extend(scanner.finish());
        assert_eq!(output, bytes);
        assert_eq!(scanner.status(), None);
    }

    #[test]
    fn what_was_held_comes_out_at_the_end() {
        let mut scanner = Scanner::new("abc");
        assert_eq!(scanner.push(b"x\x1epang"), b"x");
        assert_eq!(scanner.finish(), b"\x1epang");
    }
}
