//! What is measured side by side, as data: each set-up's two machines.

use super::workload::{Sizes, Workload};
use clap::ValueEnum;
use serde::Serialize;

/// MiB of a Linux machine beside what it pages or serves.
const LINUX_MIB: u64 = 256;
/// The same for a guest's kernel and initial RAM disk, and for what was
/// packed until it is unpacked.
const GUEST_MIB: u64 = 256;
/// Huge pages for the rings and buffers of a driver in user space.
const DRIVER_HUGE_PAGES: u64 = 4;
/// Addresses of the two machines.
const ADDRESSES: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

/// One way to use another machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Setup {
    /// Pangaea.
    Pangaea,
    /// Linux swaps to a network block device, one page at a time.
    NbdSwap,
    /// The same, with the kernel's default read-ahead.
    NbdSwapDefault,
    /// A KVM guest paged by userfaultfd over TCP.
    UserfaultTcp,
    /// The same over a polled driver in user space.
    UserfaultPolled,
}

impl Setup {
    /// All, in the order of the table.
    pub(super) const ALL: [Self; 5] = [
        Self::Pangaea,
        Self::NbdSwap,
        Self::NbdSwapDefault,
        Self::UserfaultTcp,
        Self::UserfaultPolled,
    ];

    /// What the table calls it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Pangaea => "Pangaea",
            Self::NbdSwap => "Linux, swap on nbd, page-cluster 0",
            Self::NbdSwapDefault => "Linux, swap on nbd, page-cluster default",
            Self::UserfaultTcp => "KVM guest, userfaultfd, TCP",
            Self::UserfaultPolled => "KVM guest, userfaultfd, polled driver",
        }
    }

    /// What the target says: at least so many times Pangaea's median
    /// of a remote read.
    pub(super) fn wanted(self) -> Option<f64> {
        match self {
            Self::NbdSwap => Some(20.0),
            Self::UserfaultTcp => Some(12.0),
            Self::UserfaultPolled => Some(3.5),
            Self::Pangaea | Self::NbdSwapDefault => None,
        }
    }

    /// Whether its first machine is a host of the workload's guest.
    pub(super) fn is_host(self) -> bool {
        matches!(self, Self::UserfaultTcp | Self::UserfaultPolled)
    }

    /// MiB that the pager's guest has: what is touched, or as much as Debian
    /// has on Pangaea's nodes.
    fn paged_mib(workload: Workload, local_mib: u64) -> u64 {
        match workload {
            Workload::Touches => 2 * local_mib,
            Workload::Stress | Workload::Redis => local_mib + Self::lender_mib(local_mib),
        }
    }

    /// MiB of Pangaea's second node.
    pub(super) fn lender_mib(local_mib: u64) -> u64 {
        3 * local_mib
    }

    /// The kernel's words on both machines, the user's first.
    pub(super) fn words(self, workload: Workload, sizes: Sizes) -> [String; 2] {
        let local_mib = sizes.local_mib;
        let script = workload.script().map(|script| format!("workload={script} "));
        let words = script.unwrap_or_default() + &sizes.words(workload).join(" ");
        let common = format!("local_pages={} {words}", local_mib * 256);
        let with_address =
            |i: usize, words: &str| format!("address={} mtu=9000 {words} {common}", ADDRESSES[i]);
        let server = ADDRESSES[1];
        let paged_mib = Self::paged_mib(workload, local_mib);
        let paged = format!("pages={}", paged_mib * 256);
        let huge = |mib: u64| format!("hugepages={}", mib / 2 + DRIVER_HUGE_PAGES);
        match self {
            Self::Pangaea => Default::default(),
            Self::NbdSwap | Self::NbdSwapDefault => {
                let cluster = if self == Self::NbdSwap { "page_cluster=0" } else { "" };
                let swap_mib = 2 * local_mib + local_mib / 2;
                [
                    with_address(0, &format!("role=nbd-swap server={server} {cluster}")),
                    with_address(1, &format!("role=nbd-server swap_mib={swap_mib}")),
                ]
            }
            Self::UserfaultTcp => [
                with_address(0, &format!("role=guest link=tcp server={server} {paged}")),
                with_address(1, &format!("role=page-server link=tcp {paged}")),
            ],
            Self::UserfaultPolled => [
                format!("role=guest link=polled {} {paged} {common}", huge(0)),
                format!("role=page-server link=polled {} {paged} {common}", huge(paged_mib)),
            ],
        }
    }

    /// The kernel's words where the price of an exit is measured.
    pub(super) const EXITS_WORDS: &str = "role=exits";

    /// MiB of the two Linux machines.
    pub(super) fn memory_mib(self, workload: Workload, local_mib: u64) -> [u64; 2] {
        let files = if self.is_host() && workload != Workload::Touches { GUEST_MIB } else { 0 };
        let server = Self::paged_mib(workload, local_mib).max(2 * local_mib) + local_mib;
        [Self::user_mib(local_mib) + files, LINUX_MIB + server]
    }

    /// MiB of the machine where the price of an exit is measured.
    pub(super) fn user_mib(local_mib: u64) -> u64 {
        LINUX_MIB + local_mib + local_mib / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { local_mib: 64, touches: 100, requests: 100 };

    #[test]
    fn each_linux_machine_has_a_role_that_exists() {
        let roles = crate::compile::workspace().join("tests/peers/machine/roles");
        for setup in Setup::ALL.into_iter().filter(|s| *s != Setup::Pangaea) {
            for words in setup.words(Workload::Touches, SIZES) {
                let role = words.split(' ').find_map(|w| w.strip_prefix("role=")).unwrap();
                assert!(roles.join(role).is_file(), "{role}");
                assert!(words.contains("local_pages=16384"), "{words}");
            }
        }
    }

    #[test]
    fn a_guest_with_programs_is_as_large_as_pangaeas() {
        let [user, _] = Setup::NbdSwap.words(Workload::Stress, SIZES);
        assert!(user.contains(" workload=stress mib=128 ops=4096"), "{user}");
        for words in Setup::UserfaultPolled.words(Workload::Redis, SIZES) {
            assert!(
                words.contains(" pages=65536 ") && words.contains(" workload=redis "),
                "{words}"
            );
        }
        let [user, server] = Setup::UserfaultTcp.memory_mib(Workload::Redis, 64);
        assert!(user >= 256 + 64 && server > 256 + 64);
        assert_eq!(Setup::UserfaultTcp.memory_mib(Workload::Touches, 64), [352, 448]);
    }

    #[test]
    fn a_polled_server_keeps_all_in_huge_pages() {
        let [user, server] = Setup::UserfaultPolled.words(Workload::Touches, SIZES);
        assert!(user.contains("hugepages=4 "), "{user}");
        assert!(server.contains("hugepages=68 "), "{server}");
        assert!(!user.contains("address="), "the kernel has no such card then");
    }
}
