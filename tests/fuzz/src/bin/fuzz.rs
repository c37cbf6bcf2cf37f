//! The targets under libFuzzer. `PANGAEA_FUZZ_TARGET` names the one to run;
//! all arguments are libFuzzer's.
#![no_main]

use fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("PANGAEA_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names = TARGETS.map(|(name, _)| name).join(", ");
    found.unwrap_or_else(|| panic!("PANGAEA_FUZZ_TARGET must be one of: {names}")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
