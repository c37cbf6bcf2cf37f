//! The e1000 as a user-space driver sees it: its registers and memory that it
//! can reach.

use crate::memory::{HUGE, Mapping};
use addr::HostPhys;
use anyhow::{Context, Result, anyhow};
use nic::e1000::{E1000, Family, REGISTERS_LEN};
use nic::{DmaRegion, Environment, Mmio};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PCI command register (PCI Local Bus 3.0, section 6.2.2), and its bits for
/// access to memory and for bus mastering.
const COMMAND: u64 = 4;
const MEMORY_AND_MASTER: u16 = 1 << 1 | 1 << 2;
const INTEL: u16 = 0x8086;

/// Memory that is handed out and never taken back.
pub(crate) struct HugePages {
    memory: Mapping,
    used: usize,
}

impl HugePages {
    /// Takes `count` huge pages.
    pub(crate) fn new(count: usize) -> Result<HugePages> {
        Ok(HugePages { memory: Mapping::huge(count * HUGE)?, used: 0 })
    }

    /// `bytes` of memory within one huge page: its offset.
    fn take(&mut self, bytes: usize) -> Option<usize> {
        let mut start = self.used.next_multiple_of(4096);
        if start / HUGE != (start + bytes - 1) / HUGE {
            start = start.next_multiple_of(HUGE);
        }
        (bytes <= HUGE && start + bytes <= self.memory.len()).then(|| {
            self.used = start + bytes;
            start
        })
    }
}

impl Environment for HugePages {
    fn dma(&mut self, bytes: usize) -> Option<DmaRegion> {
        let start = self.take(bytes)?;
        let bus = HostPhys(self.memory.physical(start).ok()?);
        let base = self.memory.base();
        // SAFETY: the offset is inside the mapping, which is never undone;
        // `take` gives each byte once; a huge page is contiguous and stays at
        // its physical address while it is mapped.
        Some(unsafe { DmaRegion::new(base.add(start), bus, bytes) })
    }

    fn delay_us(&mut self, microseconds: u32) {
        std::thread::sleep(Duration::from_micros(microseconds.into()));
    }
}

/// Starts the machine's e1000, which no driver of the kernel's may have.
pub(crate) fn start(environment: &mut HugePages) -> Result<E1000<Mmio>> {
    let (device, family) = find(Path::new("/sys/bus/pci/devices"))?;
    fs::write(device.join("enable"), "1").context("the e1000 cannot be enabled")?;
    let open = |name: &str| {
        let path = device.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        file.with_context(|| format!("{} cannot be opened", path.display()))
    };
    let config = open("config")?;
    let mut command = [0; 2];
    config.read_exact_at(&mut command, COMMAND)?;
    let command = u16::from_le_bytes(command) | MEMORY_AND_MASTER;
    config.write_all_at(&command.to_le_bytes(), COMMAND)?;
    let registers = Mapping::file(&open("resource0")?, REGISTERS_LEN)?;
    // SAFETY: the kernel maps a BAR uncached, the mapping is never undone,
    // and no other driver has the device.
    let registers = unsafe { Mmio::new(registers.base(), REGISTERS_LEN) };
    E1000::start(registers, family, None, environment)
        .map_err(|error| anyhow!("the e1000 does not start: {error:?}"))
}

/// Finds the device among the machine's.
fn find(devices: &Path) -> Result<(PathBuf, Family)> {
    let number = |path: PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    fs::read_dir(devices)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| number(path.join("vendor")) == Some(INTEL))
        .filter(|path| !path.join("driver").exists())
        .find_map(|path| Some((path.clone(), Family::of(number(path.join("device"))?)?)))
        .context("the machine has no e1000 without a driver")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_lies_in_one_huge_page() {
        let memory = Mapping::lazy(3 * HUGE).unwrap();
        let mut pages = HugePages { memory, used: 0 };
        assert_eq!(pages.take(100), Some(0));
        assert_eq!(pages.take(HUGE), Some(HUGE), "does not fit behind the first");
        assert_eq!(pages.take(4096), Some(2 * HUGE));
        assert_eq!(pages.take(HUGE), None);
        assert_eq!(pages.take(HUGE + 1), None);
    }
}
