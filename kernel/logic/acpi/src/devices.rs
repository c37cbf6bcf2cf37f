//! DSDT: the devices that cannot be found otherwise, as AML (ACPI 6.5,
//! chapters 6 and 20).

use crate::{Config, Cpu, table};
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal,
    IO, If, Interrupt, Memory32Fixed, Method, Name, ONE, Or, Package, Path, ResourceTemplate,
    Return, Scope, Uuid, ZERO,
};
use acpi_tables::{Aml, sdt::Sdt};
use addr::NodeId;
use alloc::{boxed::Box, format, vec, vec::Vec};
use chipset::map;
use core::ops::RangeInclusive;

/// A resource or a child that owns its parts.
type Object = Box<dyn Aml>;

fn refs(objects: &[Object]) -> Vec<&dyn Aml> {
    objects.iter().map(AsRef::as_ref).collect()
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(path.into(), value)
}

/// The DSDT.
pub(crate) fn dsdt(config: &Config<'_>) -> Sdt {
    let mut body = Vec::new();
    let mut scope = Vec::new();
    host_bridge(config, &mut scope);
    motherboard(&mut scope);
    legacy(&mut scope);
    for (index, cpu) in config.cpus.iter().enumerate() {
        processor(index, cpu, &mut scope);
    }
    body.extend(Scope::raw("\\_SB_".into(), scope));
    let s5 = map::SLP_TYP_S5;
    name("\\_S5_", &Package::new(vec![&s5, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut body);
    table(*b"DSDT", 2, &body)
}

/// PCI0: a PCI Express host bridge that produces the windows of
/// [`chipset::map`].
fn host_bridge(config: &Config<'_>, out: &mut Vec<u8>) {
    let address = *map::PCI_ADDRESS.start();
    let data_end = *map::PCI_DATA.end();
    let mmio_end = (map::PCI_MMIO32_BASE + map::PCI_MMIO32_SIZE - 1) as u32;
    let mut windows: Vec<Object> = vec![
        Box::new(AddressSpace::new_bus_number(0u16, 0xFF)),
        Box::new(IO::new(address, address, 1, 8)),
        Box::new(AddressSpace::new_io(0u16, address - 1, None)),
        Box::new(AddressSpace::new_io(data_end + 1, 0xFFFF, None)),
        Box::new(AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            map::PCI_MMIO32_BASE as u32,
            mmio_end,
            None,
        )),
    ];
    if let Some((start, bytes)) = config.window_64 {
        windows.push(Box::new(AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            start.0,
            start.0 + (bytes - 1),
            None,
        )));
    }
    let mut osc = Vec::new();
    capabilities(&mut osc);
    Device::new(
        "PCI0".into(),
        vec![
            &name("_HID", &EISAName::new("PNP0A08")),
            &name("_CID", &EISAName::new("PNP0A03")),
            &name("_UID", &ZERO),
            &name("_SEG", &ZERO),
            &name("_BBN", &ZERO),
            // Device models run on the leading node.
            &name("_PXM", &NodeId::LEADER.0),
            &name("_CRS", &ResourceTemplate::new(refs(&windows))),
            &Raw(osc),
        ],
    )
    .to_aml_bytes(out);
}

/// Bytes of AML made before.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// PCI Express features that the operating system may take control of: none
/// of them does anything in the bridge, so all of them may go (PCI Firmware
/// 3.3, 4.5.1: native hot-plug, SHPC, PME, AER, capability structure).
const OSC_CONTROL: u8 = 0x1F;
/// `_OSC` result: the UUID is not known.
const OSC_UNKNOWN_UUID: u8 = 1 << 2;
/// `_OSC` result: the revision is not known.
const OSC_UNKNOWN_REVISION: u8 = 1 << 3;

/// `_OSC` of the host bridge.
fn capabilities(out: &mut Vec<u8>) {
    let status: Path = "CDW1".into();
    let control: Path = "CDW3".into();
    let uuid = Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766");
    let (status_at, control_at) = (0u8, 8u8);
    let (mask, bad_uuid, bad_revision) = (OSC_CONTROL, OSC_UNKNOWN_UUID, OSC_UNKNOWN_REVISION);
    Method::new(
        "_OSC".into(),
        4,
        // It makes named objects, so it must not run twice at a time.
        true,
        vec![
            &CreateDWordField::new(&status, &Arg(3), &status_at),
            &If::new(
                &Equal::new(&Arg(0), &uuid),
                vec![
                    &CreateDWordField::new(&control, &Arg(3), &control_at),
                    &And::new(&control, &control, &mask),
                    &If::new(
                        &acpi_tables::aml::NotEqual::new(&Arg(1), &ONE),
                        vec![&Or::new(&status, &status, &bad_revision)],
                    ),
                ],
            ),
            &Else::new(vec![&Or::new(&status, &status, &bad_uuid)]),
            &Return::new(&Arg(3)),
        ],
    )
    .to_aml_bytes(out);
}

fn ports(range: &RangeInclusive<u16>) -> IO {
    let length = range.end() - range.start() + 1;
    IO::new(*range.start(), *range.start(), 1, length as u8)
}

/// Motherboard resources: the ECAM must be among them (PCI Firmware 3.3,
/// 4.1.2), and ports that belong to no other device.
fn motherboard(out: &mut Vec<u8>) {
    let ecam = Memory32Fixed::new(true, map::ECAM_BASE as u32, map::ECAM_SIZE as u32);
    let resources: [&dyn Aml; 4] =
        [&ecam, &ports(&(map::PORT_A..=map::PORT_A)), &ports(&map::PIC_ELCR), &ports(&map::PM)];
    Device::new(
        "MBRD".into(),
        vec![
            &name("_HID", &EISAName::new("PNP0C02")),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(resources.to_vec())),
        ],
    )
    .to_aml_bytes(out);
}

/// Devices at the ports of the PC/AT. COM1 and COM3 share their interrupt.
fn legacy(out: &mut Vec<u8>) {
    let irq = |irq: u8, shared: bool| Interrupt::new(true, true, false, shared, u32::from(irq));
    device(out, "PIC_", "PNP0000", 0, &[&ports(&map::PIC_MASTER), &ports(&map::PIC_SLAVE)]);
    device(out, "TIMR", "PNP0100", 0, &[&ports(&map::PIT), &irq(map::IRQ_PIT, false)]);
    device(out, "RTC_", "PNP0B00", 0, &[&ports(&map::RTC), &irq(map::IRQ_RTC, false)]);
    let serial = [
        ("COM1", &map::COM1, irq(map::IRQ_COM1, true)),
        ("COM2", &map::COM2, irq(map::IRQ_COM2, false)),
        ("COM3", &map::COM3, irq(map::IRQ_COM3, true)),
    ];
    for (uid, (path, range, irq)) in (1..).zip(serial) {
        device(out, path, "PNP0501", uid, &[&ports(range), &irq]);
    }
}

fn device(out: &mut Vec<u8>, path: &str, id: &str, uid: u8, resources: &[&dyn Aml]) {
    Device::new(
        path.into(),
        vec![
            &name("_HID", &EISAName::new(id)),
            &name("_UID", &uid),
            &name("_CRS", &ResourceTemplate::new(resources.to_vec())),
        ],
    )
    .to_aml_bytes(out);
}

/// A processor device. Names run C000 to CFFF, then D000 and on; far more
/// than fit into the tables.
fn processor(index: usize, cpu: &Cpu, out: &mut Vec<u8>) {
    let letter = char::from(b'C' + ((index >> 12) % 24) as u8);
    let path = format!("{letter}{:03X}", index & 0xFFF);
    let domain = cpu.node.0;
    Device::new(
        path.as_str().into(),
        vec![&name("_HID", &"ACPI0007"), &name("_UID", &cpu.apic_id), &name("_PXM", &domain)],
    )
    .to_aml_bytes(out);
}
