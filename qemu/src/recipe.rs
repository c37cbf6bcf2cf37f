//! Machine recipes: what one emulated node is made of, as data.
//!
//! A recipe is a TOML file in `qemu/machines`; its name is the file's name.

use crate::{Emulator, RunnerError};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One kind of emulated machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The recipe's name: its file name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// One line for a person.
    pub about: String,
    /// The program that emulates it.
    pub emulator: Emulator,
    /// QEMU's machine type (`-machine`), or the chipset for Bochs.
    pub machine: String,
    /// How QEMU runs code (`-accel`).
    #[serde(default)]
    pub accelerator: String,
    /// How many instructions are a second of emulated time, for Bochs.
    pub ips: Option<u32>,
    /// The processor model, for QEMU with its features (`-cpu`).
    pub cpu: String,
    /// The network card: for QEMU a `-device` value without its backend and
    /// address.
    pub nic: String,
    /// Largest frame payload of the link in bytes.
    pub mtu: u16,
    /// Boots the guest's kernel without Pangaea, for comparison.
    #[serde(default)]
    pub direct: bool,
    /// How many seconds its nodes wait for each other unless told otherwise.
    #[serde(default = "default_join_timeout")]
    pub join_timeout: u64,
    /// Words that every node has on its own command line.
    #[serde(default)]
    pub words: String,
    /// A direct machine of which there may be several.
    #[serde(default)]
    pub linked: bool,
    /// QEMU gives a node all of its memory at once, as a machine has it, and not
    /// page by page as it is touched: for measurements, whose every first use of
    /// a page would be the host's work.
    #[serde(default)]
    pub resident: bool,
    /// Each of QEMU's nodes has a processor of the host's for itself, where there
    /// are as many: for measurements, which else are of how the host happens to
    /// spread the emulators' threads.
    #[serde(default)]
    pub pinned: bool,
    /// Further arguments of the emulator.
    #[serde(default)]
    pub args: Vec<String>,
}

impl Recipe {
    /// Parses a recipe's text.
    ///
    /// # Errors
    /// [`RunnerError::BadRecipe`] with the parser's words.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RunnerError> {
        let bad = |reason: String| RunnerError::BadRecipe { path: path.to_owned(), reason };
        let mut recipe: Self = toml::from_str(text).map_err(|e| bad(e.message().to_owned()))?;
        recipe.name = name_of(path).ok_or_else(|| bad("its file has no name".to_owned()))?;
        if !(1500..=16_000).contains(&recipe.mtu) {
            return Err(bad(format!("an mtu of {} is not within 1500 to 16000", recipe.mtu)));
        }
        recipe.check_emulator().map_err(bad)?;
        Ok(recipe)
    }

    /// Says what the emulator lacks in the recipe or cannot use.
    fn check_emulator(&self) -> Result<(), String> {
        let (qemu, name) = (self.emulator == Emulator::Qemu, self.emulator.program());
        if qemu == self.accelerator.is_empty() {
            let verb = if qemu { "needs" } else { "has" };
            let no = if qemu { "an" } else { "no" };
            return Err(format!("{name} {verb} {no} accelerator"));
        }
        if qemu == self.ips.is_some() {
            return Err(format!("{name} {} `ips`", if qemu { "has no" } else { "needs" }));
        }
        if self.direct && !qemu {
            return Err(format!("{name} boots no kernel directly"));
        }
        Ok(())
    }

    /// Loads the recipe `name` from the folder of recipes.
    ///
    /// # Errors
    /// [`RunnerError::UnknownMachine`] lists the recipes that exist.
    pub fn load(folder: &Path, name: &str) -> Result<Self, RunnerError> {
        let known = Self::names(folder)?;
        if !known.iter().any(|k| k == name) {
            let known = known.join(", ");
            return Err(RunnerError::UnknownMachine { name: name.to_owned(), known });
        }
        let path = folder.join(format!("{name}.toml"));
        let text =
            std::fs::read_to_string(&path).map_err(|e| RunnerError::file(&path, "read", e))?;
        Self::parse(&path, &text)
    }

    /// Lists the names of the recipes in a folder, sorted.
    ///
    /// # Errors
    /// [`RunnerError::File`] if the folder cannot be read.
    pub fn names(folder: &Path) -> Result<Vec<String>, RunnerError> {
        let entries =
            std::fs::read_dir(folder).map_err(|e| RunnerError::file(folder, "read", e))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path: &PathBuf| path.extension().is_some_and(|e| e == "toml"))
            .filter_map(|path| name_of(&path))
            .collect();
        names.sort();
        Ok(names)
    }
}

/// Seconds for nodes that run about as fast as the host.
fn default_join_timeout() -> u64 {
    30
}

/// The recipe's name in its path.
fn name_of(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("machines")
    }

    #[test]
    fn every_recipe_of_the_repository_loads() {
        let names = Recipe::names(&folder()).unwrap();
        assert!(names.contains(&"q35-svm".to_owned()), "{names:?}");
        for name in names {
            let recipe = Recipe::load(&folder(), &name).unwrap();
            assert_eq!(recipe.name, name);
            assert!(!recipe.about.is_empty());
        }
    }

    #[test]
    fn an_unknown_machine_lists_those_that_exist() {
        let error = Recipe::load(&folder(), "vax").unwrap_err().to_string();
        assert!(error.contains("`vax`") && error.contains("q35-svm"), "{error}");
    }

    #[test]
    fn a_name_with_a_path_is_unknown() {
        assert!(Recipe::load(&folder(), "../machines/q35-svm").is_err());
    }

    #[test]
    fn a_bad_field_is_named() {
        let error = Recipe::parse(Path::new("x.toml"), "speed = 3").unwrap_err().to_string();
        assert!(error.contains("speed"), "{error}");
    }

    #[test]
    fn what_an_emulator_cannot_use_is_refused() {
        let read = |name| std::fs::read_to_string(folder().join(name)).unwrap();
        let parse = |text: &str| Recipe::parse(Path::new("x.toml"), text);
        let (qemu, bochs) = (read("q35-svm.toml"), read("bochs-vtx.toml"));
        for bad in [
            qemu.replace("accelerator = \"tcg\"", ""),
            format!("ips = 5\n{qemu}"),
            bochs.replace("ips = ", "# ips = "),
            format!("accelerator = \"tcg\"\n{bochs}"),
            format!("direct = true\n{bochs}"),
            bochs.replace("emulator = \"bochs\"", "emulator = \"simh\""),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_mtu_out_of_range_is_refused() {
        let good = std::fs::read_to_string(folder().join("q35-svm.toml")).unwrap();
        let bad = good.replace("mtu = 9000", "mtu = 100");
        assert!(Recipe::parse(Path::new("x.toml"), &bad).is_err());
    }
}
