//! The emulator's command line: a pure function of what a node is.

use crate::switch::Mac;
use crate::{MemorySize, Port, Recipe};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

/// Everything that one node's command line depends on.
pub(crate) struct NodePlan<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) cpu: &'a str,
    pub(crate) memory: MemorySize,
    pub(crate) image: &'a Path,
    pub(crate) initrd: Option<&'a Path>,
    pub(crate) append: &'a str,
    /// Inherited sockets of the serial ports, COM1 first.
    pub(crate) serial: &'a [RawFd],
    /// Inherited socket of the network card.
    pub(crate) net: RawFd,
    pub(crate) mac: Mac,
}

/// Builds the arguments of QEMU.
pub(crate) fn arguments(plan: &NodePlan<'_>) -> Vec<OsString> {
    let recipe = plan.recipe;
    let megabytes = plan.memory.mib();
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: String| args.extend([name.into(), value.into()]);
    option("-accel", recipe.accelerator.clone());
    option("-cpu", plan.cpu.to_owned());
    option("-machine", format!("{},memory-backend=m", recipe.machine));
    // Memory that is never touched costs the host nothing, so a cluster may
    // be larger than the host.
    option("-object", format!("memory-backend-ram,id=m,size={megabytes}M,reserve=off"));
    option("-m", format!("{megabytes}M"));
    option("-display", "none".to_owned());
    for (index, fd) in plan.serial.iter().enumerate() {
        option("-chardev", format!("socket,id=serial{index},fd={fd}"));
        option("-device", serial_device(recipe, index));
    }
    option("-netdev", format!("dgram,id=link,local.type=fd,local.str={}", plan.net));
    let [a, b, c, d, e, f] = plan.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    // No option ROM: nothing boots from the network.
    option("-device", format!("{},netdev=link,mac={mac},romfile=", recipe.nic));
    let mut path = |name: &str, value: &Path| args.extend([name.into(), value.into()]);
    path("-kernel", plan.image);
    if let Some(initrd) = plan.initrd {
        path("-initrd", initrd);
    }
    args.extend(["-append".into(), plan.append.into()]);
    args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
    args.extend(recipe.args.iter().map(OsString::from));
    args
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

    fn line(direct: bool, initrd: Option<&Path>) -> String {
        let recipe = Recipe {
            name: "test".into(),
            about: "a test".into(),
            emulator: "qemu".into(),
            machine: "q35".into(),
            accelerator: "tcg".into(),
            cpu: "EPYC".into(),
            nic: "e1000".into(),
            mtu: 9000,
            direct,
            args: vec!["-icount".into(), "shift=0".into()],
        };
        let plan = NodePlan {
            recipe: &recipe,
            cpu: "EPYC,+svm",
            memory: "32G".parse().unwrap(),
            image: Path::new("/a b"),
            initrd,
            append: "nodes=2 lead",
            serial: &[5, 6, 7],
            net: 9,
            mac: [0x52, 0x54, 0, 0x50, 0, 1],
        };
        let args = arguments(&plan);
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
    fn a_direct_machine_gives_the_third_port_its_own_interrupt() {
        assert!(line(true, None).contains("index=2,irq=5|"));
        assert!(!line(true, None).contains("-initrd"));
    }
}
