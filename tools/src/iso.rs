//! `cargo pangaea image`: a bootable image for real machines.
//!
//! The image is an ISO that also works when it is written to a USB stick, and
//! boots by BIOS and by UEFI. For the leading machine it has the guest's parts
//! as modules named `kernel`, `initrd` and `cmdline`.

use crate::cli::ImageArgs;
use crate::doctor::IMAGE_NEEDS;
use crate::payload::GuestFiles;
use crate::progress::Progress;
use crate::{compile, system};
use anyhow::Result;
use runner::disc::{Content, Disc, Entry};

/// How many seconds the boot menu waits for a choice.
const MENU_WAIT_S: u32 = 10;

/// Makes the image and says how to use it.
pub(crate) fn image(args: &ImageArgs) -> Result<u8> {
    let progress = Progress::new();
    system::ensure(&IMAGE_NEEDS, &progress)?;
    let guest = GuestFiles::find(
        args.kernel.as_ref(),
        args.initrd.as_deref(),
        args.append.as_deref(),
        &progress,
    )?;
    let node = compile::node_image(&progress)?;
    progress.stage("making the bootable image");
    let files = vec![
        ("kernel", Content::File(&guest.kernel)),
        ("initrd", Content::File(&guest.initrd)),
        ("cmdline", Content::Text(&guest.command_line)),
    ];
    let entries = entries(args, fastrand::u64(1..));
    let default = usize::from(args.lend);
    let disc = Disc { node: &node, files, entries, default, wait_s: MENU_WAIT_S };
    disc.write(&args.output)?;
    progress.clear();
    print_use(args)?;
    Ok(0)
}

/// The boot menu: one entry to lead, one to lend memory.
fn entries(args: &ImageArgs, cluster: u64) -> Vec<Entry<'static>> {
    let ImageArgs { nodes, mtu, join_timeout, .. } = *args;
    let words = format!(
        "nodes={nodes} cluster={cluster:016x} join_timeout={join_timeout} nic=auto mtu={mtu}"
    );
    let lead = Entry {
        title: format!("Pangaea: lead a cluster of {nodes} and run the guest"),
        commands: "",
        command_line: format!("{words} lead"),
        modules: &["kernel", "initrd", "cmdline"],
    };
    let lend = Entry {
        title: format!("Pangaea: lend this machine's memory to a cluster of {nodes}"),
        commands: "",
        command_line: words,
        modules: &[],
    };
    vec![lead, lend]
}

/// Says how to bring the image to machines.
fn print_use(args: &ImageArgs) -> Result<()> {
    let output = args.output.display();
    let megabytes = std::fs::metadata(&args.output)?.len() >> 20;
    let nodes = args.nodes;
    Ok(crate::terminal::print(&format!(
        "{output}: {megabytes} MiB, for {nodes} machine(s), BIOS and UEFI.\n\
         Write it to a USB stick, whose contents are lost, with:\n    \
         sudo dd if={output} of=/dev/sdX bs=4M conv=fsync status=progress\n\
         Boot one machine with the menu's first entry and all others with its second.\n"
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_entry_has_the_guest() {
        let args = ImageArgs {
            nodes: 3,
            kernel: None,
            initrd: None,
            append: None,
            mtu: 1500,
            join_timeout: 600,
            lend: false,
            output: "x.iso".into(),
        };
        let entries = entries(&args, 0xAB);
        let [lead, lend] = &entries[..] else { panic!("{entries:?}") };
        assert!(lead.command_line.ends_with("mtu=1500 lead") && lead.modules.len() == 3);
        assert!(lend.command_line.ends_with("mtu=1500") && lend.modules.is_empty());
        for entry in [lead, lend] {
            assert!(entry.command_line.starts_with("nodes=3 cluster=00000000000000ab "));
        }
    }
}
