//! `cargo pangaea image`: a bootable image for real machines.
//!
//! The image is an ISO that also works when it is written to a USB stick, and
//! boots by BIOS and by UEFI. GRUB loads the node's image by Multiboot2, and
//! for the leading machine the guest's parts as modules named `kernel`,
//! `initrd` and `cmdline`.

use crate::cli::ImageArgs;
use crate::doctor::IMAGE_NEEDS;
use crate::payload::GuestFiles;
use crate::progress::Progress;
use crate::{compile, system};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

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
    let folder = Staging::make()?;
    fill(&folder.0, args, &node, &guest)?;
    progress.stage("making the bootable image");
    let mut make = system::child("grub-mkrescue");
    make.arg("-o").arg(&args.output).arg(&folder.0);
    system::run(&mut make).context("the bootable image could not be made")?;
    progress.clear();
    print_use(args)?;
    Ok(0)
}

/// A folder that is removed when this is dropped.
struct Staging(PathBuf);

impl Staging {
    fn make() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("pangaea-image-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("boot/grub"))?;
        std::fs::create_dir_all(folder.join("pangaea"))?;
        Ok(Self(folder))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Leftovers in the folder of temporary files harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Puts everything where GRUB will look for it.
fn fill(folder: &Path, args: &ImageArgs, node: &Path, guest: &GuestFiles) -> Result<()> {
    let copy = |from: &Path, to: &str| {
        std::fs::copy(from, folder.join(to))
            .with_context(|| format!("the file {} cannot be copied", from.display()))
    };
    copy(node, "pangaea/node")?;
    copy(&guest.kernel, "pangaea/kernel")?;
    copy(&guest.initrd, "pangaea/initrd")?;
    std::fs::write(folder.join("pangaea/cmdline"), &guest.command_line)?;
    let menu = menu(args, fastrand::u64(1..));
    std::fs::write(folder.join("boot/grub/grub.cfg"), menu)?;
    Ok(())
}

/// GRUB's menu: one entry to lead, one to lend memory.
fn menu(args: &ImageArgs, cluster: u64) -> String {
    let ImageArgs { nodes, mtu, join_timeout, .. } = *args;
    let words = format!(
        "nodes={nodes} cluster={cluster:016x} join_timeout={join_timeout} nic=auto mtu={mtu}"
    );
    let default = u8::from(args.lend);
    format!(
        r#"set timeout=10
set default={default}
menuentry "Pangaea: lead a cluster of {nodes} and run the guest" {{
    multiboot2 /pangaea/node {words} lead
    module2 /pangaea/kernel kernel
    module2 /pangaea/initrd initrd
    module2 /pangaea/cmdline cmdline
}}
menuentry "Pangaea: lend this machine's memory to a cluster of {nodes}" {{
    multiboot2 /pangaea/node {words}
}}
"#
    )
}

/// Says how to bring the image to machines.
fn print_use(args: &ImageArgs) -> Result<()> {
    let output = args.output.display();
    let megabytes = std::fs::metadata(&args.output)?.len() >> 20;
    println!("{output}: {megabytes} MiB, for {} machine(s), BIOS and UEFI.", args.nodes);
    println!("Write it to a USB stick, whose contents are lost, with:");
    println!("    sudo dd if={output} of=/dev/sdX bs=4M conv=fsync status=progress");
    println!("Boot one machine with the menu's first entry and all others with its second.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(lend: bool) -> ImageArgs {
        ImageArgs {
            nodes: 3,
            kernel: None,
            initrd: None,
            append: None,
            mtu: 1500,
            join_timeout: 600,
            lend,
            output: "x.iso".into(),
        }
    }

    #[test]
    fn only_the_first_entry_has_the_guest() {
        let menu = menu(&args(false), 0xAB);
        let (lead, lend) = menu.split_once("menuentry \"Pangaea: lend").unwrap();
        assert!(lead.contains("mtu=1500 lead\n") && lead.contains("module2 /pangaea/cmdline"));
        assert!(!lend.contains("module2") && !lend.contains(" lead"));
        assert_eq!(menu.matches("nodes=3 cluster=00000000000000ab").count(), 2);
        assert!(menu.contains("set default=0"));
    }

    #[test]
    fn lending_can_be_the_default() {
        assert!(menu(&args(true), 1).contains("set default=1"));
    }
}
