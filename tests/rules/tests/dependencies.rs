//! The dependency rule of `kernel/README.md`, proved from `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A workspace package: its folder from the root, and the folders of the
/// workspace packages it names (not those for tests only).
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The backends.
const VENDORS: [&str; 2] = ["kernel/hw/svm", "kernel/hw/vmx"];

fn graph() -> Graph {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let root = metadata["workspace_root"].as_str().expect("a root");
    let packages = metadata["packages"].as_array().expect("packages");
    let folder = |p: &Value| {
        let manifest = p["manifest_path"].as_str().expect("a path");
        let inside = manifest.strip_prefix(root).expect("in the workspace");
        inside.trim_start_matches('/').trim_end_matches("/Cargo.toml").to_owned()
    };
    let folders: BTreeMap<&str, String> =
        packages.iter().map(|p| (p["name"].as_str().expect("a name"), folder(p))).collect();
    let named = |p: &Value| {
        let dependencies = p["dependencies"].as_array().expect("dependencies");
        let lasting = dependencies.iter().filter(|d| d["kind"] != "dev");
        lasting.filter_map(|d| folders.get(d["name"].as_str()?).cloned()).collect()
    };
    packages.iter().map(|p| (folder(p), named(p))).collect()
}

/// Everything that a package reaches.
fn reach(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(at) = next.pop() {
        for to in &graph[&at] {
            if seen.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    seen
}

/// Every package below `folder`.
fn below<'a>(graph: &'a Graph, folder: &'a str) -> impl Iterator<Item = &'a String> {
    graph.keys().filter(move |k| k.starts_with(folder))
}

#[test]
fn the_rooms_are_where_they_should_be() {
    let graph = graph();
    let rooms = ["boot", "kernel/image", "kernel/logic/coherence", "tools", "qemu"];
    for room in rooms.into_iter().chain(VENDORS) {
        assert!(graph.contains_key(room), "no {room}");
    }
}

#[test]
fn logic_never_reaches_hardware_boot_or_tools() {
    let graph = graph();
    for package in below(&graph, "kernel/logic/") {
        for to in reach(&graph, package) {
            assert!(to.starts_with("kernel/logic/"), "{package} reaches {to}");
        }
    }
}

#[test]
fn coherence_and_fabric_do_not_know_each_other() {
    let graph = graph();
    let (coherence, fabric) = ("kernel/logic/coherence", "kernel/logic/fabric");
    assert!(!reach(&graph, coherence).contains(fabric));
    assert!(!reach(&graph, fabric).contains(coherence));
}

#[test]
fn the_machine_does_not_know_that_pages_may_be_remote() {
    let graph = graph();
    let reached = reach(&graph, "kernel/logic/machine");
    for far in ["coherence", "fabric", "wire", "node", "paging"] {
        assert!(!reached.contains(&format!("kernel/logic/{far}")), "machine reaches {far}");
    }
}

#[test]
fn vendor_backends_know_neither_each_other_nor_what_is_above() {
    let graph = graph();
    for vendor in VENDORS {
        let reached = reach(&graph, vendor);
        for other in VENDORS.into_iter().filter(|v| *v != vendor) {
            assert!(!reached.contains(other), "{vendor} reaches {other}");
        }
        for above in ["machine", "coherence", "fabric", "node"] {
            let above = format!("kernel/logic/{above}");
            assert!(!reached.contains(&above), "{vendor} reaches {above}");
        }
    }
}

#[test]
fn only_the_image_knows_the_vendors() {
    for (package, named) in &graph() {
        for vendor in VENDORS {
            let may = package == "kernel/image" || !named.contains(vendor);
            assert!(may, "{package} names {vendor}");
        }
    }
}

#[test]
fn nothing_depends_on_the_image() {
    let graph = graph();
    for (package, named) in &graph {
        assert!(!named.contains("kernel/image"), "{package} names the image");
    }
}

#[test]
fn no_vendor_hides_behind_a_feature() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let features = package["features"].as_object().expect("features");
        for feature in features.keys() {
            let vendor = ["svm", "vmx", "amd", "intel"].contains(&feature.as_str());
            assert!(!vendor, "{} has the feature {feature}", package["name"]);
        }
    }
}
