//! `cargo pangaea doctor`: what this machine has and lacks.

use crate::cli::DoctorArgs;
use crate::compile::{self, DEBIAN_NEEDS, TARGET};
use crate::fuzz::FUZZ_NEEDS;
use crate::progress::Progress;
use crate::system::{self, Need, Probe, install_command, missing_packages};
use crate::terminal::print;
use anyhow::Result;
use runner::{Emulator, Recipe};

/// QEMU, which runs the nodes by default.
pub(crate) const QEMU: [Need; 1] = [Need {
    name: "qemu-system-x86_64",
    probe: Probe::Program("qemu-system-x86_64"),
    package: "qemu-system-x86",
    purpose: "runs the nodes",
}];

/// Bochs, beside what makes the disc that it boots.
pub(crate) const BOCHS: [Need; 4] = [
    Need {
        name: "bochs",
        probe: Probe::Program("bochs"),
        package: "bochs",
        purpose: "runs nodes with VT-x",
    },
    Need {
        name: "Bochs's screen",
        probe: Probe::File("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so"),
        package: "bochs-term",
        purpose: "runs nodes with VT-x",
    },
    Need {
        name: "Bochs's BIOS",
        probe: Probe::File("/usr/share/bochs/BIOS-bochs-latest"),
        package: "bochsbios",
        purpose: "runs nodes with VT-x",
    },
    Need {
        name: "Bochs's VGA BIOS",
        probe: Probe::File("/usr/share/vgabios/vgabios.bin"),
        package: "vgabios",
        purpose: "runs nodes with VT-x",
    },
];

/// What a bootable image is made with.
pub(crate) const IMAGE_NEEDS: [Need; 5] = [
    Need {
        name: "grub-mkrescue",
        probe: Probe::Program("grub-mkrescue"),
        package: "grub-common",
        purpose: "makes bootable images",
    },
    Need {
        name: "GRUB for BIOS",
        probe: Probe::File("/usr/lib/grub/i386-pc/moddep.lst"),
        package: "grub-pc-bin",
        purpose: "images that boot on BIOS",
    },
    Need {
        name: "GRUB for UEFI",
        probe: Probe::File("/usr/lib/grub/x86_64-efi/moddep.lst"),
        package: "grub-efi-amd64-bin",
        purpose: "images that boot on UEFI",
    },
    Need {
        name: "xorriso",
        probe: Probe::Program("xorriso"),
        package: "xorriso",
        purpose: "makes bootable images",
    },
    Need {
        name: "mtools",
        probe: Probe::Program("mformat"),
        package: "mtools",
        purpose: "images that boot on UEFI",
    },
];

/// What tests need beside that.
pub(crate) const TEST_NEEDS: [Need; 2] = [
    Need {
        name: "OVMF",
        probe: Probe::File("/usr/share/OVMF/OVMF_CODE.fd"),
        package: "ovmf",
        purpose: "tests of booting by UEFI",
    },
    Need {
        name: "SeaBIOS",
        probe: Probe::File("/usr/share/seabios/bios-256k.bin"),
        package: "seabios",
        purpose: "tests of firmware without VT-x",
    },
];

/// What only Debian has, and what cannot be mended by a package.
const GUEST_NEEDS: [Need; 2] = [
    Need {
        name: "apt",
        probe: Probe::Program("apt-get"),
        package: "apt",
        purpose: "fetches the default guest's packages",
    },
    Need {
        name: "dpkg-deb",
        probe: Probe::Program("dpkg-deb"),
        package: "dpkg",
        purpose: "unpacks the default guest's packages",
    },
];

/// What a recipe's emulator needs.
pub(crate) fn emulator_needs(recipe: &Recipe) -> Vec<Need> {
    match recipe.emulator {
        Emulator::Qemu => QEMU.to_vec(),
        Emulator::Bochs => BOCHS.into_iter().chain(IMAGE_NEEDS).collect(),
    }
}

/// Prints what there is and returns the exit status: 0 if all is there.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<u8> {
    let progress = Progress::new();
    let needs = needs();
    if args.fix {
        system::ensure(&needs, &progress)?;
    }
    for need in needs.iter().chain(&GUEST_NEEDS) {
        line(need.is_met(), need.name, need.purpose)?;
    }
    line(compile::rustup_has_target(), &format!("Rust's target {TARGET}"), "builds the image")?;
    line(
        runner::process::in_path("setpriv"),
        "setpriv",
        "ends the emulators should this program be killed",
    )?;
    let packages = missing_packages(&needs);
    if packages.is_empty() {
        print("\nNothing is missing.\n")?;
        return Ok(0);
    }
    print(&format!("\nMend it with: {}{}\n", sudo(), install_command(&packages)))?;
    Ok(1)
}

/// Everything that a package can bring.
fn needs() -> Vec<Need> {
    let mut needs = QEMU.to_vec();
    needs.extend(BOCHS);
    needs.extend(IMAGE_NEEDS);
    needs.extend(TEST_NEEDS);
    needs.extend(FUZZ_NEEDS);
    if !compile::rustup_has_target() {
        needs.extend(DEBIAN_NEEDS);
    }
    needs
}

/// What others than root put before the command.
fn sudo() -> &'static str {
    if nix::unistd::geteuid().is_root() { "" } else { "sudo " }
}

/// Prints one line of the list.
fn line(there: bool, name: &str, purpose: &str) -> std::io::Result<()> {
    print(&format!("{:<7} {name:<32} {purpose}\n", if there { "ok" } else { "missing" }))
}
