//! The bootable image, as a stick in a PC has it: through GRUB on BIOS and on
//! UEFI, up to Debian's first process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use system::{Folder, door, serial};

/// Longest that a boot may take; the firmware under emulation has most of it.
const LIMIT: Duration = Duration::from_secs(240);
/// Debian's OVMF (package `ovmf`).
const OVMF: &str = "/usr/share/OVMF/OVMF_CODE.fd";

/// An image for a cluster of one, made once.
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pangaea.iso");
        let made = Command::new(door()).args(["image", "--nodes", "1"]).arg(&path).status();
        assert!(made.expect("the door opens").success(), "no image");
        path
    })
}

/// An emulator that ends with the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the image and waits for Debian's first process.
fn boots(firmware: &[&str]) {
    let folder = Folder::new();
    let file = |name: &str| format!("file:{}", folder.path().join(name).display());
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "EPYC,+svm,+npt", "-machine", "q35", "-m", "1G"]);
    command.args(["-display", "none", "-no-reboot", "-nodefaults"]).args(firmware);
    command.args(["-serial", &file("log.log"), "-serial", &file("console.log")]);
    command.arg("-cdrom").arg(image()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut machine = Machine(command.spawn().expect("QEMU starts"));
    let end = Instant::now() + LIMIT;
    while !folder.text("console.log").contains("Run /init as init process") {
        let over = machine.0.try_wait().expect("a child").is_some() || Instant::now() > end;
        assert!(!over, "Debian did not start:\n{}", folder.tails());
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = folder.text("log.log");
    assert!(log.contains("Multiboot2"), "booted another way:\n{log}");
    assert!(log.contains(r#""event":"guest-start""#), "{log}");
}

#[test]
fn the_image_boots_on_bios() {
    let _turn = serial("image on SeaBIOS");
    boots(&[]);
}

#[test]
fn the_image_boots_on_uefi() {
    let _turn = serial("image on OVMF");
    let drive = format!("if=pflash,format=raw,readonly=on,file={OVMF}");
    boots(&["-drive", &drive]);
}
