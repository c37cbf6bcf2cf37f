//! What bad input gets: one plain sentence, a status that is not 0, and
//! nothing left running.

use runner::session::status;
use std::fs::File;
use system::{Door, Finished, Folder, Nodes, door, node_image, serial};

/// What the program says beside the reason: progress, and where a usage
/// error's help is.
fn reason_lines(run: &Finished) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.starts_with("pangaea: ")).collect()
}

/// Words of a command line that must be refused before anything starts.
fn usage(words: &str, must_say: &[&str]) {
    let run = Door::run(words).finish();
    run.refused(i32::from(status::USAGE), must_say);
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
}

#[test]
fn bad_options_are_refused_before_anything_starts() {
    let _turn = serial("bad options");
    usage("--nodes 0", &["'0'", "--nodes", "1..=64"]);
    usage("--nodes 65", &["'65'", "1..=64"]);
    usage("--nodes two", &["'two'", "--nodes"]);
    usage("--nodes", &["--nodes"]);
    usage("--memory lots", &["`lots` is no size of memory", "512M"]);
    usage("--memory 64M", &["too little memory", "128M"]);
    usage("--memory 0", &["too little memory"]);
    usage("--memory 2T", &["too much memory"]);
    usage("--memory 99999999999999999999G", &["--memory"]);
    usage("--memory 513M", &["not a multiple of 2M"]);
    usage("--loss 101", &["from 0 to 100"]);
    usage("--no-such-option", &["--no-such-option"]);
    usage("--json", &["COMMAND"]);
    usage("stray", &["stray"]);
    let verb = Door::new("fly").finish();
    verb.refused(i32::from(status::USAGE), &["unrecognized subcommand 'fly'"]);
}

#[test]
fn files_and_machines_that_do_not_serve_are_named() {
    let _turn = serial("bad files");
    let folder = Folder::new();
    let text = folder.path().join("text");
    std::fs::write(&text, "no kernel at all\n".repeat(100)).unwrap();
    let empty = folder.path().join("empty");
    File::create(&empty).unwrap();
    let large = folder.path().join("large");
    File::create(&large).unwrap().set_len(300 << 20).unwrap();
    let absent = folder.path().join("absent");

    let refused = |option: &str, file: &std::path::Path, status: u8, words: &[&str]| {
        let run = Door::run("--memory 256M").word(option).word(file).finish();
        run.refused(i32::from(status), words);
        assert_eq!(reason_lines(&run).last().map(|l| l.ends_with('.')), Some(true));
    };
    refused("--kernel", &text, 1, &["is no kernel", "bzImage"]);
    refused("--kernel", &absent, 1, &["absent cannot be read"]);
    refused("--initrd", &absent, 1, &["absent cannot be read"]);
    refused("--initrd", &empty, 1, &["is empty"]);
    refused("--initrd", &large, status::NOT_FORMED, &["do not fit", "--memory"]);
    refused("--machine", "vax".as_ref(), 1, &["no machine `vax`", "q35-svm"]);
}

/// A file that looks like a kernel to the door but is none: the node itself
/// has to say so.
#[test]
fn a_kernel_that_is_cut_short_is_refused_by_the_node() {
    let _turn = serial("cut kernel");
    let folder = Folder::new();
    let kernel = folder.path().join("kernel");
    let mut bytes = vec![0; 0x400];
    bytes[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    std::fs::write(&kernel, &bytes).unwrap();
    let run = Door::run("--nodes 2 --memory 256M --kernel").word(&kernel).finish();
    run.refused(i32::from(status::NOT_FORMED), &["boot protocol"]);
}

#[test]
fn a_processor_that_cannot_run_guests_is_named() {
    let _turn = serial("no SVM, no NPT");
    let on = |machine: &str| Door::run("--nodes 2 --memory 256M --machine").word(machine).finish();
    let status = i32::from(status::NOT_FORMED);
    on("no-svm").refused(status, &["shows no SVM", "nested virtualisation"]);
    on("no-npt").refused(status, &["no nested paging"]);
}

#[test]
fn a_node_that_never_arrives_ends_the_wait() {
    let _turn = serial("absent node");
    let run = Door::run("--nodes 3 --start-nodes 2 --join-timeout 3 --memory 256M").finish();
    run.refused(i32::from(status::NOT_FORMED), &["2 of 3 nodes are here", "nodes=2"]);
}

/// A few bytes that no node ever boots, as these clusters never form.
fn nodes(count: u32) -> Nodes {
    Nodes::new(count, "256M", node_image(), "")
}

#[test]
fn two_nodes_with_one_address_are_refused() {
    let _turn = serial("one address twice");
    let mut nodes = nodes(2);
    nodes.config.overrides.entry(1).or_default().mac = Some([0x52, 0x54, 0, 0x50, 0, 0]);
    nodes.run().expect(status::NOT_FORMED, &["same MAC address", "give each node its own"]);
}

#[test]
fn different_builds_are_refused() {
    let _turn = serial("mixed versions");
    let mut nodes = nodes(2);
    let image = std::fs::read(node_image()).unwrap();
    let other = nodes.folder().join("other-build");
    std::fs::write(&other, with_another_build(&image)).unwrap();
    nodes.config.overrides.entry(1).or_default().image = Some(other);
    nodes.run().expect(status::NOT_FORMED, &["different build", "same image"]);
}

/// An image whose build identity is another: a digit of it is changed where
/// it stands as text and where it stands as a number.
fn with_another_build(image: &[u8]) -> Vec<u8> {
    let known = Door::run("--nodes 1 --memory 256M --json").command(&["true"]).finish();
    let record = known.expect(0).record();
    let build = record.events("up").next().expect("the node is up")["build"].clone();
    let build = build.as_str().expect("an identity").as_bytes();
    assert_eq!(build.len(), 16);
    let mut other = build.to_vec();
    other[0] = if build[0] == b'0' { b'1' } else { b'0' };
    let number = |text: &[u8]| {
        let text = std::str::from_utf8(text).unwrap();
        u64::from_str_radix(text, 16).expect("hexadecimal digits").to_le_bytes()
    };
    let mut image = image.to_vec();
    let changed =
        replace(&mut image, build, &other) + replace(&mut image, &number(build), &number(&other));
    assert!(changed > 1, "the image holds its identity");
    image
}

/// Replaces `old` wherever it stands, and says how often it did.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> usize {
    let places: Vec<usize> =
        (0..=bytes.len() - old.len()).filter(|&at| bytes[at..].starts_with(old)).collect();
    places.iter().for_each(|&at| bytes[at..at + new.len()].copy_from_slice(new));
    places.len()
}

#[test]
fn nodes_that_wait_for_different_numbers_are_refused() {
    let _turn = serial("node counts differ");
    let mut nodes = nodes(2);
    nodes.config.overrides.entry(1).or_default().append = Some("nodes=3".to_owned());
    nodes.run().expect(status::NOT_FORMED, &["waits for", "same nodes="]);
}

#[test]
fn two_leaders_are_refused() {
    let _turn = serial("two leaders");
    let mut nodes = nodes(2);
    nodes.config.overrides.entry(1).or_default().append = Some("lead".to_owned());
    nodes.run().expect(status::NOT_FORMED, &["lead", "one node only"]);
}

/// Three nodes start, and each waits for two: one of them is too many.
#[test]
fn an_extra_node_is_told_so() {
    let _turn = serial("extra node");
    let mut nodes = nodes(3);
    for node in 0..3 {
        nodes.config.overrides.entry(node).or_default().append = Some("nodes=2".to_owned());
    }
    nodes.run().expect(status::NOT_FORMED, &["has all the nodes", "leave"]);
}

/// A word of the node's own command line that means nothing sensible.
#[test]
fn a_bad_word_on_the_nodes_command_line_is_named() {
    let _turn = serial("bad node option");
    let run = Door::run("--nodes 2 --memory 256M --node-append mtu=77").finish();
    run.refused(i32::from(status::NOT_FORMED), &["mtu=77", "must be"]);
}

/// The guest's kernel needs more than there is: its panic is no success.
#[test]
fn a_guest_that_panics_is_no_success() {
    let _turn = serial("guest panic");
    let run = Door::run("--nodes 1 --memory 256M")
        .shell("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
        .finish();
    run.refused(i32::from(status::GUEST_DIED), &["panic"]);
}

#[test]
fn who_closes_the_pipe_has_read_enough() {
    let _turn = serial("closed pipe");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let run = std::process::Command::new(door()).arg("doctor").stdout(writer).output();
    let run = run.expect("the door opens");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(matches!(run.status.code(), Some(0 | 1)) && !said.contains("panicked"), "{said}");
}
