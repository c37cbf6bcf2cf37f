//! What the tests run: built once for each test program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this package lies two folders down in the workspace")
}

/// The program behind `cargo pangaea`, built if it is stale.
///
/// # Panics
/// If it does not build.
pub fn door() -> &'static Path {
    static DOOR: OnceLock<PathBuf> = OnceLock::new();
    DOOR.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--package", "pangaea", "--bin", "pangaea"]);
        command.args(["--message-format", "json-render-diagnostics"]);
        let text = output(command.current_dir(workspace()));
        let messages = text.lines().filter_map(|l| serde_json::from_str(l).ok());
        let program = messages
            .filter_map(|m: serde_json::Value| Some(PathBuf::from(m["executable"].as_str()?)))
            .find(|path| path.file_stem().is_some_and(|name| name == "pangaea"));
        program.expect("cargo names the program that it built")
    })
}

/// The nodes' image, built if it is stale.
///
/// # Panics
/// If it does not build.
pub fn node_image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| PathBuf::from(output(Command::new(door()).arg("build")).trim()))
}

/// The folder of the bare guests, built if they are stale.
///
/// # Panics
/// If they do not build.
pub fn guests() -> &'static Path {
    static GUESTS: OnceLock<PathBuf> = OnceLock::new();
    GUESTS.get_or_init(|| {
        PathBuf::from(output(Command::new(door()).args(["build", "--guests"])).trim())
    })
}

/// Runs a program that must succeed and returns what it printed.
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
