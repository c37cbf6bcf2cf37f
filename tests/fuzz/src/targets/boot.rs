//! What firmware, boot loaders and the node's command line say.

use crate::input::Input;
use boot::{bundle, multiboot2, pvh};
use node::Settings;

/// Physical memory that is the fuzzer's bytes, from 4 KiB on.
struct Memory<'a>(&'a [u8]);

const BASE: u64 = 0x1000;

impl pvh::Physical for Memory<'_> {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.0.get(at..at.checked_add(len)?)
    }
}

/// Parses the bytes as each of the formats.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    let bytes = input.rest();
    match choice % 4 {
        0 => {
            let mut memory = bytes.to_vec();
            // The magic number opens the door to all else.
            if let Some(magic) = memory.first_chunk_mut() {
                *magic = pvh::MAGIC.to_le_bytes();
            }
            let info = pvh::parse(&Memory(&memory), BASE);
            assert!(info.modules().len() <= boot::info::MODULES_MAX);
        }
        1 => {
            let _ = multiboot2::total_size(bytes);
            let info = multiboot2::parse(bytes);
            assert!(info.modules().len() <= boot::info::MODULES_MAX);
        }
        2 => {
            for name in ["kernel", "initrd", "cmdline"] {
                let found = bundle::find(bytes, name);
                assert!(found.is_none_or(|f| f.len() <= bytes.len()));
            }
        }
        _ => {
            let line = String::from_utf8_lossy(bytes);
            let _ = Settings::parse(&line, |_| {}).map(|s| s.nodes);
        }
    }
}
