//! Who this node is among the others.

use crate::BUILD_ID;
use nic::{Nic, Probed};
use node::Settings;
use platform::{clock, cpu, rtc};

/// Receive descriptors of the NIC drivers' rings.
const RING: u16 = 256;

/// Least retransmission time-out. An emulated node is off its processor for
/// longer than a round trip takes; a copy sent too early only adds to the load.
const RTO_MIN_NS: u64 = 20_000_000;

/// Displays a MAC address the usual way.
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The fabric's configuration: what the command line says, what the NIC can,
/// what the node lends.
pub(crate) fn configure(
    settings: &Settings<'_>,
    nic: Option<&Probed>,
    frames: u64,
    has_payload: bool,
) -> fabric::Config {
    let mac = nic.map_or([2, 0, 0, 0, 0, 1], |n| n.nic.mac());
    let mtu = nic.map_or(1500, |n| n.nic.mtu());
    let build = u64::from_str_radix(BUILD_ID, 16).expect("a hash in hexadecimal");
    let life = incarnation(mac);
    let mut config = fabric::Config::new(mac, settings.cluster, build, life, settings.nodes);
    config.mtu = mtu;
    config.has_payload = has_payload;
    config.lead = settings.lead;
    config.needs_payload = true;
    config.pages = frames / addr::RUN_PAGES * addr::RUN_PAGES;
    config.join_timeout_ns = settings.join_timeout_s * 1_000_000_000;
    config.dead_after_ns = settings.dead_ms * 1_000_000;
    config.ring = RING;
    config.rto_min_ns = RTO_MIN_NS;
    config
}

/// A number that no other life of this or another node has: the hardware's
/// random numbers where there are any, besides clocks and the address.
fn incarnation(mac: [u8; 6]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&mac);
    let seeds = [
        u64::from_le_bytes(bytes),
        clock::now_tsc(),
        rtc::unix_seconds().unwrap_or(0),
        cpu::random().unwrap_or(0),
    ];
    // FNV-1a over words; uniqueness is wanted, not secrecy.
    seeds
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &s| (h ^ s).wrapping_mul(0x0100_0000_01b3).rotate_left(29))
}
