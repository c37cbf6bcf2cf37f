//! QEMU: everything that it uses is made here and inherited.

use super::{Launch, NodePlan, SerialLines, mac_text};
use crate::link::End;
use crate::{Port, Recipe, RunnerError, process};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Stdio;

/// The device that is memory shared between the nodes.
pub(super) const SHARED_MEMORY: &str = "ivshmem-plain";

/// What a node's end of the link is, with the number it is inherited under.
#[derive(Clone, Copy)]
enum Link {
    Socket(RawFd),
    /// And how many bytes of memory.
    Memory(RawFd, u64),
}

/// Prepares a node's process.
pub(super) fn prepare(plan: &NodePlan<'_>, end: End) -> Result<Launch, RunnerError> {
    let (link, net) = match end {
        End::Socket(socket) => (None, OwnedFd::from(socket)),
        End::Memory(memory) => (Some(memory.bytes), memory.file),
        End::Port(_) => unreachable!("QEMU inherits its end of the link"),
    };
    let net_number = net.as_raw_fd();
    let link = link.map_or(Link::Socket(net_number), |bytes| Link::Memory(net_number, bytes));
    let (serial, theirs) = SerialLines::inherited(plan.serial_ports)
        .map_err(RunnerError::system("making a serial line to a node"))?;
    let numbers: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = process::guarded_on(plan.recipe.emulator.program(), plan.processor);
    command.args(arguments(plan, &numbers, link));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let inherited = theirs.into_iter().chain([net]).collect();
    Ok(Launch { command, inherited, serial, screen: None })
}

/// Builds the arguments: a pure function of what a node is, of the inherited
/// sockets of its serial ports (COM1 first) and of its end of the link.
fn arguments(plan: &NodePlan<'_>, serial: &[RawFd], link: Link) -> Vec<OsString> {
    let recipe = plan.recipe;
    let megabytes = plan.memory.mib();
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: String| args.extend([name.into(), value.into()]);
    option("-accel", recipe.accelerator.clone());
    option("-cpu", plan.cpu.to_owned());
    option("-machine", format!("{},memory-backend=m", recipe.machine));
    // Memory that is never touched costs the host nothing, so a cluster may
    // be larger than the host; unless all of it is wanted from the start.
    let from_host = if recipe.resident { "prealloc=on" } else { "reserve=off" };
    option("-object", format!("memory-backend-ram,id=m,size={megabytes}M,{from_host}"));
    option("-m", format!("{megabytes}M"));
    option("-display", "none".to_owned());
    for (index, fd) in serial.iter().enumerate() {
        option("-chardev", format!("socket,id=serial{index},fd={fd}"));
        option("-device", serial_device(recipe, index));
    }
    match link {
        Link::Socket(net) => {
            option("-netdev", format!("dgram,id=link,local.type=fd,local.str={net}"));
            let mac = mac_text(plan.mac);
            // No option ROM: nothing boots from the network.
            option("-device", format!("{},netdev=link,mac={mac},romfile=", recipe.nic));
        }
        Link::Memory(file, bytes) => {
            let path = format!("mem-path=/proc/self/fd/{file}");
            option("-object", format!("memory-backend-file,id=link,{path},size={bytes},share=on"));
            option("-device", format!("{},memdev=link", recipe.nic));
        }
    }
    let mut path = |name: &str, value: &Path| args.extend([name.into(), value.into()]);
    path("-kernel", plan.image);
    if let Some(initrd) = plan.payload {
        path("-initrd", initrd);
    }
    args.extend(["-append".into(), plan.append.into()]);
    args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
    args.extend(recipe.args.iter().map(OsString::from));
    args
}

/// TCG warns about each feature of the processor model that it lacks.
pub(super) fn is_noise(line: &str) -> bool {
    line.contains("TCG doesn't support requested feature")
}

/// A serial port as a device.
fn serial_device(recipe: &Recipe, index: usize) -> String {
    // Linux drives the ports itself on a direct machine, and on the ISA bus
    // two ports cannot share the interrupt that COM1 and COM3 have in common.
    let irq = if recipe.direct && index == Port::Control.index() { ",irq=5" } else { "" };
    format!("isa-serial,chardev=serial{index},index={index}{irq}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::test_plan;

    fn line(direct: bool, payload: Option<&Path>) -> String {
        let text = r#"about = "a test"
            emulator = "qemu-system-x86_64"
            machine = "q35"
            accelerator = "tcg"
            cpu = "EPYC"
            nic = "e1000"
            mtu = 9000
            args = ["-icount", "shift=0"]"#;
        let mut recipe = Recipe::parse(Path::new("test.toml"), text).unwrap();
        recipe.direct = direct;
        let plan = NodePlan { payload, ..test_plan(&recipe, "EPYC,+svm") };
        words(&arguments(&plan, &[5, 6, 7], Link::Socket(9)))
    }

    fn words(args: &[OsString]) -> String {
        args.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_node_has_what_the_plan_says() {
        let line = line(false, Some(Path::new("/payload")));
        for part in [
            "-cpu|EPYC,+svm|",
            "size=32768M,reserve=off",
            "socket,id=serial2,fd=7",
            "local.str=9",
            "mac=52:54:00:50:00:01",
            "-kernel|/a b|-initrd|/payload|-append|nodes=2 lead|",
            "-icount|shift=0",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("irq"));
    }

    #[test]
    fn shared_memory_takes_the_place_of_a_network_card() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("machines");
        let recipe = Recipe::load(&folder, "q35-shm-svm").unwrap();
        let line = words(&arguments(&test_plan(&recipe, "EPYC"), &[], Link::Memory(4, 1 << 21)));
        assert!(line.contains("mem-path=/proc/self/fd/4,size=2097152,share=on"), "{line}");
        assert!(line.contains("ivshmem-plain,memdev=link") && !line.contains("netdev"), "{line}");
    }

    #[test]
    fn memory_is_there_from_the_start_or_when_it_is_touched() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("machines");
        let mut recipe = Recipe::load(&folder, "q35-svm").unwrap();
        for (resident, has, lacks) in
            [(false, "reserve=off", "prealloc"), (true, "prealloc=on", "reserve")]
        {
            recipe.resident = resident;
            let line = words(&arguments(&test_plan(&recipe, "EPYC"), &[], Link::Socket(9)));
            assert!(line.contains(has) && !line.contains(lacks), "{line}");
        }
    }

    #[test]
    fn a_direct_machine_gives_the_third_port_its_own_interrupt() {
        assert!(line(true, None).contains("index=2,irq=5|"));
        assert!(!line(true, None).contains("-initrd"));
    }
}
