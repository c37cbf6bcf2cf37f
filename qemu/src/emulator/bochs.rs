//! Bochs: it boots from a disc, and finds serial lines and the link by port.
//!
//! Source: Bochs 2.7's user manual, chapter "Setup" (each option of the
//! configuration file can be given on the command line), and for the link the
//! comment at the head of its `iodev/network/eth_socket.cc`: one UDP datagram
//! is one frame, received on a port of the loopback and sent to the next one.

use super::{Launch, NodePlan, SerialLines, mac_text};
use crate::disc::{Content, Disc, Entry};
use crate::link::End;
use crate::{RunnerError, process};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What Debian's build, which has the internal debugger, is told at its start:
/// to continue.
const DEBUGGER_COMMANDS: &[u8] = b"c\n";
/// Options that every node has. Debian's build crashes in its sound devices
/// where there is no sound card. What goes wrong in Bochs itself ends it; its
/// "errors" are what software does, such as every VM exit for an EPT violation.
const FIXED: [&str; 15] = [
    "config_interface: textconfig",
    "display_library: term",
    "romimage: file=$BXSHARE/BIOS-bochs-latest, options=fastboot",
    "vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest",
    "vga: update_freq=1",
    "boot: cdrom",
    "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
    "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy",
    "speaker: enabled=0",
    "plugin_ctrl: speaker=0",
    "mouse: enabled=0",
    "panic: action=fatal",
    "error: action=ignore",
    "info: action=ignore",
    "debug: action=ignore",
];
/// Emulated time never runs ahead of the host's, so that nodes agree about it
/// and a halted one leaves the processor to others.
const CLOCK: &str = "clock: sync=slowdown, time0=utc, rtc_sync=0";

/// Prepares a node's process.
pub(super) fn prepare(plan: &NodePlan<'_>, end: End) -> Result<Launch, RunnerError> {
    let End::Port(port) = end else { unreachable!("the wiring of Bochs is a port") };
    let system = |error| RunnerError::system("preparing a node")(error);
    let (serial, addresses) = SerialLines::awaited(plan.serial_ports).map_err(system)?;
    let disc = disc(plan)?;
    let commands = in_memory("commands").map_err(system)?;
    (&commands).write_all(DEBUGGER_COMMANDS).map_err(system)?;
    let (screen, theirs) = terminal().map_err(system)?;
    let mut command = process::guarded(plan.recipe.emulator.program());
    // Without a file Bochs would ask what to do; the options follow.
    command.args(["-f", "/dev/null", "-q", "-rc", &by_number(&commands)]);
    command.args(options(plan, &addresses, port.number(), disc.as_raw_fd()));
    command.env("TERM", "xterm");
    // At each HLT Bochs waits a millisecond for a key, of the host's time and
    // not of the machine's. Input that is at its end is never waited for.
    command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::piped());
    // The port is free from here on, until Bochs takes it.
    drop(port);
    let inherited = vec![disc.into(), commands.into()];
    Ok(Launch { command, inherited, serial, screen: Some(screen) })
}

/// The configuration: a pure function of what a node is, of the addresses of
/// its serial lines, its port of the link and its disc's descriptor.
fn options(plan: &NodePlan<'_>, serial: &[SocketAddr], port: u16, disc: RawFd) -> Vec<String> {
    let recipe = plan.recipe;
    let megabytes = plan.memory.mib();
    let ips = recipe.ips.expect("a recipe for Bochs has it");
    let mut options: Vec<String> = FIXED.map(str::to_owned).to_vec();
    options.push(CLOCK.to_owned());
    options.push(format!("cpu: model={}, count=1, ips={ips}", plan.cpu));
    options.push(format!("memory: guest={megabytes}, host={megabytes}"));
    options.push(format!("ata0-master: type=cdrom, path=/dev/fd/{disc}, status=inserted"));
    options.push(format!("pci: enabled=1, chipset={}, slot1={}", recipe.machine, recipe.nic));
    let mac = mac_text(plan.mac);
    options.push(format!("{}: enabled=1, mac={mac}, ethmod=socket, ethdev={port}", recipe.nic));
    for (index, address) in serial.iter().enumerate() {
        options.push(format!("com{}: enabled=1, mode=socket-client, dev={address}", index + 1));
    }
    options.extend(recipe.args.iter().cloned());
    options
}

/// The node's disc: its image, its command line, its payload. It lies in
/// memory that is gone with the last process that holds it.
fn disc(plan: &NodePlan<'_>) -> Result<File, RunnerError> {
    let (files, modules) = match plan.payload {
        Some(payload) => (vec![("payload", Content::File(payload))], &["payload"][..]),
        None => (Vec::new(), &[][..]),
    };
    let entry = Entry {
        title: "Pangaea".to_owned(),
        commands: plan.firmware,
        command_line: plan.append.to_owned(),
        modules,
    };
    let disc = Disc { node: plan.image, files, entries: vec![entry], default: 0, wait_s: 0 };
    let written = Written::new(plan.mac);
    disc.write(&written.0)?;
    let copy = |path: &Path| {
        let mut copy = in_memory("disc")?;
        io::copy(&mut File::open(path)?, &mut copy)?;
        Ok(copy)
    };
    copy(&written.0).map_err(|e| RunnerError::file(&written.0, "read", e))
}

/// A disc's file, removed when this is dropped.
struct Written(PathBuf);

impl Written {
    fn new(mac: [u8; 6]) -> Self {
        let name = format!("pangaea-{}-{:02x}{:02x}.iso", std::process::id(), mac[4], mac[5]);
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What Bochs says while it starts, and how it words a node's power-off.
pub(super) fn is_noise(line: &str) -> bool {
    let is_info = |line: &str| {
        let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
        digits.len() < line.len() && digits.starts_with("i[")
    };
    is_info(line)
        || line.starts_with("Bochs connected to screen")
        || line.starts_with("==========")
        || line.starts_with("Bochs is exiting with the following message")
        || line.ends_with("ACPI control: soft power off")
}

/// A file without a name.
fn in_memory(what: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(what, MFdFlags::MFD_CLOEXEC)?))
}

/// The path by which a process opens what it inherited.
fn by_number(file: &File) -> String {
    format!("/dev/fd/{}", file.as_raw_fd())
}

/// A terminal for a screen that nobody looks at: our end and theirs.
fn terminal() -> io::Result<(File, OwnedFd)> {
    let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(Some(&size), None)?;
    for end in [&pair.master, &pair.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((File::from(pair.master), pair.slave))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;
    use crate::emulator::test_plan;

    #[test]
    fn a_node_has_what_the_plan_says() {
        let text = r#"about = "a test"
            emulator = "bochs"
            machine = "i440fx"
            cpu = "tigerlake"
            ips = 5000000
            nic = "e1000"
            mtu = 1500
            args = ["magic_break: enabled=1"]"#;
        let recipe = Recipe::parse(Path::new("test.toml"), text).unwrap();
        let plan = test_plan(&recipe, "corei7_icelake_u");
        let serial = [6, 7].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let options = options(&plan, &serial, 20_000, 9);
        for wanted in [
            "cpu: model=corei7_icelake_u, count=1, ips=5000000",
            "memory: guest=32768, host=32768",
            "ata0-master: type=cdrom, path=/dev/fd/9, status=inserted",
            "pci: enabled=1, chipset=i440fx, slot1=e1000",
            "e1000: enabled=1, mac=52:54:00:50:00:01, ethmod=socket, ethdev=20000",
            "com2: enabled=1, mode=socket-client, dev=127.0.0.1:7",
            "magic_break: enabled=1",
        ] {
            assert!(options.iter().any(|o| o == wanted), "{wanted} in {options:#?}");
        }
        assert!(!options.iter().any(|o| o.starts_with("com3")));
    }
}
