//! Which NIC of a node the fabric uses, and how it is wired.
//!
//! [`probe`] goes through the PCI functions, takes the one the command line
//! names or else the best it can drive, connects its interrupt and starts it.

use crate::choice::{Kind, candidates};
use crate::dma::{DmaRegion, Environment};
use crate::e1000::{self, E1000};
use crate::shm::{self, SharedMemory, SharedRegion};
use crate::virtio::capabilities::{self, Place};
use crate::virtio::{self, InterruptKind, Structures, VirtioNet};
use crate::{AnyNic, Mmio, Nic, NicError};
use addr::PAGE_SIZE;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use platform::interrupts;
use platform::memory::BootMemory;
use platform::pci::{Address, Device};
use platform::{clock, cpu, rtc};

/// PCI base class of network controllers, and the Ethernet subclass.
const CLASS_NETWORK: u8 = 0x02;
const SUBCLASS_ETHERNET: u8 = 0x00;
/// The MSI-X table entry for received frames.
const MSIX_ENTRY: u16 = 0;
/// Payload of an ordinary Ethernet frame.
const ETHERNET_MTU: u16 = 1500;
/// How long the interrupt self-test waits.
const SELF_TEST_NS: u64 = 20_000_000;

/// What the command line asks for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Options<'a> {
    /// `nic=`: a [`Kind::name`] or a PCI address as `00:02.0`.
    pub wanted: Option<&'a str>,
    /// `mtu=`: the most to offer, where the link between the nodes carries
    /// less than the NIC.
    pub mtu_limit: Option<u16>,
}

/// An Ethernet function that was seen but not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its place.
    pub address: Address,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Why it could not be started; `None` if there is no driver, or another
    /// one was asked for.
    pub error: Option<NicError>,
}

/// No NIC could be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeError {
    /// All Ethernet functions of the node.
    pub seen: Vec<Seen>,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seen.is_empty() {
            return f.write_str("this node has no Ethernet controller and no shared memory");
        }
        f.write_str("no usable NIC among")?;
        for seen in &self.seen {
            write!(f, " {} [{:04x}:{:04x}", seen.address, seen.vendor, seen.device)?;
            match seen.error {
                Some(error) => write!(f, " {error}]")?,
                None => f.write_str("]")?,
            }
        }
        Ok(())
    }
}

/// How a NIC reaches the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// By a message, at this vector.
    Message(u8),
    /// By this line of the interrupt controllers.
    Line(u8),
    /// Not at all: the node has to poll.
    Absent,
}

impl Interrupt {
    /// Whether it arrived since the last call.
    #[must_use]
    pub fn take(self) -> bool {
        match self {
            Interrupt::Message(vector) => interrupts::take(vector),
            Interrupt::Line(line) => interrupts::take_line(line),
            Interrupt::Absent => false,
        }
    }
}

/// A running NIC and where it came from.
pub struct Probed {
    /// The driver.
    pub nic: AnyNic,
    /// Which driver it is.
    pub kind: Kind,
    /// The PCI function.
    pub device: Device,
    /// How it interrupts. Interrupts of the NIC itself are off.
    pub interrupt: Interrupt,
}

impl Probed {
    /// Makes the NIC raise its interrupt and watches whether it arrives;
    /// `None` if this kind cannot be made to. Interrupts of the NIC are off
    /// afterwards. Waits 20 ms at most.
    pub fn interrupt_works(&mut self) -> Option<bool> {
        let _ = self.interrupt.take();
        self.nic.enable_interrupts();
        let arrived = self.nic.raise_interrupt().then(|| {
            let start = clock::now_tsc();
            loop {
                interrupts::poll();
                if self.interrupt.take() {
                    return true;
                }
                if clock::tsc_to_ns(clock::now_tsc().wrapping_sub(start)) > SELF_TEST_NS {
                    return false;
                }
            }
        });
        self.nic.acknowledge_interrupt();
        self.nic.disable_interrupts();
        arrived
    }
}

/// Memory and time of a real node.
struct Machine<'a> {
    memory: &'a mut BootMemory,
}

impl Environment for Machine<'_> {
    fn dma(&mut self, bytes: usize) -> Option<DmaRegion> {
        let frames = bytes.div_ceil(PAGE_SIZE);
        let start = self.memory.alloc_frames(frames as u64, 1)?.start();
        let base = NonNull::new(start.0 as *mut u8)?;
        // SAFETY: the frames are RAM, identity mapped, and were given to this
        // call alone and for good; they are large enough.
        unsafe {
            base.as_ptr().write_bytes(0, frames * PAGE_SIZE);
            Some(DmaRegion::new(base, start, bytes))
        }
    }

    fn delay_us(&mut self, microseconds: u32) {
        let start = clock::now_tsc();
        let ticks = clock::ns_to_tsc(u64::from(microseconds) * 1000);
        while clock::now_tsc().wrapping_sub(start) < ticks {
            core::hint::spin_loop();
        }
    }
}

/// Finds and starts the node's NIC. Its rings and buffers, about 2.3 MiB, come
/// from `memory`.
///
/// # Errors
/// [`ProbeError`] lists what was seen, if nothing could be started.
pub fn probe(
    devices: &[Device],
    options: &Options<'_>,
    memory: &mut BootMemory,
) -> Result<Probed, ProbeError> {
    let mut environment = Machine { memory };
    let mut failed: Vec<(Address, NicError)> = Vec::new();
    for (kind, device) in candidates(devices, options.wanted) {
        match start(kind, &device, options.mtu_limit, &mut environment) {
            Ok((nic, interrupt)) => return Ok(Probed { nic, kind, device, interrupt }),
            Err(error) => {
                device.disable_bus_master();
                failed.push((device.address, error));
            }
        }
    }
    let link = |d: &&Device| {
        (d.class == CLASS_NETWORK && d.subclass == SUBCLASS_ETHERNET)
            || Kind::of(d) == Some(Kind::Shared)
    };
    let seen = devices.iter().filter(link).map(|d| Seen {
        address: d.address,
        vendor: d.vendor,
        device: d.device,
        error: failed.iter().find(|f| f.0 == d.address).map(|f| f.1),
    });
    Err(ProbeError { seen: seen.collect() })
}

fn start(
    kind: Kind,
    device: &Device,
    mtu_limit: Option<u16>,
    environment: &mut Machine<'_>,
) -> Result<(AnyNic, Interrupt), NicError> {
    device.enable();
    match kind {
        Kind::E1000 => start_e1000(device, e1000::Family::I8254x, mtu_limit, environment),
        Kind::E1000e => start_e1000(device, e1000::Family::I82574, mtu_limit, environment),
        Kind::Virtio => start_virtio(device, mtu_limit, environment),
        Kind::Shared => start_shared(device, mtu_limit, environment),
    }
}

/// Maps a whole BAR, at least `len` bytes.
fn map(device: &Device, bar: u8, len: u64) -> Result<Mmio, NicError> {
    let (base, size) = device.map_bar(bar).map_err(|_| NicError::BadConfiguration)?;
    let base = NonNull::new(base).ok_or(NicError::BadConfiguration)?;
    let size = usize::try_from(size).map_err(|_| NicError::BadConfiguration)?;
    if (size as u64) < len {
        return Err(NicError::BadConfiguration);
    }
    // SAFETY: the platform mapped the BAR uncached for good; it belongs to
    // this function, which has this one driver.
    Ok(unsafe { Mmio::new(base, size) })
}

/// Opens the function's interrupt line, where the firmware wired one.
fn line(device: &Device) -> Interrupt {
    device.interrupt_line().map_or(Interrupt::Absent, |line| {
        interrupts::enable_line(line);
        Interrupt::Line(line)
    })
}

/// Whether this is the 82540EM of Bochs: the only one without a subsystem
/// identity. Its network modules carry ordinary frames only.
fn is_bochs(device: &Device) -> bool {
    (device.subsystem_vendor, device.subsystem) == (0, 0)
}

fn start_e1000(
    device: &Device,
    family: e1000::Family,
    mtu_limit: Option<u16>,
    environment: &mut Machine<'_>,
) -> Result<(AnyNic, Interrupt), NicError> {
    let registers = map(device, 0, e1000::REGISTERS_LEN as u64)?;
    let mtu_limit = match mtu_limit {
        None if is_bochs(device) => Some(ETHERNET_MTU),
        limit => limit,
    };
    let nic = E1000::start(registers, family, mtu_limit, environment)?;
    // The MSI of PCI-X parts may corrupt writes (Intel specification updates,
    // "Message Signaled Interrupt Feature May Corrupt Write Transactions").
    let message = (family == e1000::Family::I82574)
        .then(interrupts::alloc_msi_vector)
        .flatten()
        .filter(|&vector| device.enable_msi(vector));
    let interrupt = message.map_or_else(|| line(device), Interrupt::Message);
    Ok((AnyNic::E1000(nic), interrupt))
}

fn start_shared(
    device: &Device,
    mtu_limit: Option<u16>,
    environment: &mut Machine<'_>,
) -> Result<(AnyNic, Interrupt), NicError> {
    let mapped = device.map_bar_cached(shm::MEMORY_BAR);
    let (base, size) = mapped.map_err(|_| NicError::BadConfiguration)?;
    let base = NonNull::new(base).ok_or(NicError::BadConfiguration)?;
    let size = usize::try_from(size).map_err(|_| NicError::BadConfiguration)?;
    // SAFETY: the platform mapped the BAR for good, page-aligned; it belongs
    // to this function, which has this one driver.
    let region = unsafe { SharedRegion::new(base, size) };
    let seeds = [clock::now_tsc(), rtc::unix_seconds().unwrap_or(0), cpu::random().unwrap_or(0)];
    let identity = seeds.iter().fold(0, |id: u64, s| id.rotate_left(21) ^ s) | 1;
    let link = SharedMemory::start(region, identity, mtu_limit, environment)?;
    Ok((AnyNic::Shared(link), Interrupt::Absent))
}

fn start_virtio(
    device: &Device,
    mtu_limit: Option<u16>,
    environment: &mut Machine<'_>,
) -> Result<(AnyNic, Interrupt), NicError> {
    let places = capabilities::find(|at| device.read32(u16::from(at)))?;
    let part = |place: Place, len: usize| {
        if (place.len as usize) < len {
            return Err(NicError::BadConfiguration);
        }
        let bar = map(device, place.bar, 0)?;
        bar.part(place.offset as usize, place.len as usize).ok_or(NicError::BadConfiguration)
    };
    let structures = Structures {
        common: part(places.common, virtio::COMMON_LEN)?,
        notify: part(places.notify, 2)?,
        notify_len: places.notify.len as usize,
        notify_multiplier: places.notify_multiplier,
        interrupt_status: part(places.interrupt_status, 1)?,
        device: part(places.device, virtio::DEVICE_LEN)?,
    };
    let message = device
        .has_msix()
        .then(interrupts::alloc_msi_vector)
        .flatten()
        .filter(|&vector| device.enable_msix(MSIX_ENTRY, vector));
    let kind = message.map_or(InterruptKind::Line, |_| InterruptKind::MsiX(MSIX_ENTRY));
    let nic = VirtioNet::start(structures, kind, mtu_limit, environment)?;
    let interrupt = message.map_or_else(|| line(device), Interrupt::Message);
    Ok((AnyNic::Virtio(nic), interrupt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_error_says_what_was_seen() {
        let place = |device| Address { bus: 0, device, function: 0 };
        let seen = [
            Seen { address: place(1), vendor: 0x10EC, device: 0x8168, error: None },
            Seen {
                address: place(5),
                vendor: 0x8086,
                device: 0x100E,
                error: Some(NicError::ResetTimeout),
            },
        ];
        assert_eq!(
            ProbeError { seen: seen.to_vec() }.to_string(),
            "no usable NIC among 00:01.0 [10ec:8168] 00:05.0 [8086:100e does not come out of its \
             reset, so switch the machine off]"
        );
        let none = ProbeError { seen: Vec::new() }.to_string();
        assert_eq!(none, "this node has no Ethernet controller and no shared memory");
    }
}
