//! Which drivers has the operator installed?

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What libraries end with here.
const SUFFIX: &str = if cfg!(target_os = "macos") { "dylib" } else { "so" };
const PREFIX: &str = "adbc_driver_";

/// The folder of drivers, where there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drivers(pub Option<PathBuf>);

impl Drivers {
    /// The library of the driver called `name`: in the folder, or in one of its own below it, as Python's packages
    /// have it.
    ///
    /// # Errors
    /// `Kind::Refused` where there is none, with the way to one.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let Some(folder) = &self.0 else {
            return Err(Error::refused(format!(
                "the ADBC driver `{name}` is not installed: `adbc_drivers` names no folder of drivers. {}",
                way_to(name, "FOLDER")
            )));
        };
        // A name is letters, digits and `_`, so it leads nowhere else.
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let [own, library] = [format!("{PREFIX}{name}"), format!("lib{PREFIX}{name}.{SUFFIX}")];
        let places = [folder.join(&library), folder.join(own).join(&library)];
        let found = places.into_iter().find(|place| is_name && place.is_file());
        found.ok_or_else(|| {
            let there = installed(folder);
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            let shown = folder.display();
            let way_to = way_to(name, &shown.to_string());
            Error::refused(format!(
                "the ADBC driver `{name}` is not installed: there is no {library} in {shown}, nor in its {PREFIX}{name} \
                 (there: {there}). {way_to}"
            ))
        })
    }
}

fn way_to(name: &str, folder: &str) -> String {
    let package = name.replace('_', "-");
    format!(
        "As one way to it, `pip install --target {folder} adbc-driver-{package}`, and `adbc_drivers: {folder}`"
    )
}

/// The names of the drivers in `folder`.
fn installed(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let library = name.strip_prefix("lib").and_then(|name| name.strip_suffix(&format!(".{SUFFIX}")));
            let name = library.unwrap_or(&name).strip_prefix(PREFIX)?.to_owned();
            let is_there =
                folder.join(format!("{PREFIX}{name}")).join(format!("lib{PREFIX}{name}.{SUFFIX}")).is_file();
            (library.is_some() || is_there).then_some(name)
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_lies_in_the_folder_or_below_it_and_nowhere_else() {
        let folder = std::env::temp_dir().join(format!("quern-drivers-{}", std::process::id()));
        let below = folder.join("adbc_driver_one");
        std::fs::create_dir_all(&below).expect("a folder");
        for file in [
            below.join(format!("libadbc_driver_one.{SUFFIX}")),
            folder.join(format!("libadbc_driver_two.{SUFFIX}")),
        ] {
            std::fs::write(file, "").expect("a file");
        }
        let drivers = Drivers(Some(folder.clone()));
        assert!(drivers.find("one").is_ok() && drivers.find("two").is_ok());
        for name in ["three", "../adbc_driver_one", "adbc_driver_one/one", ""] {
            let error = drivers.find(name).expect_err("no driver").said();
            assert!(error.contains("(there: one, two)"), "{error}");
        }
        assert!(Drivers(None).find("one").expect_err("none").said().contains("adbc_drivers"));
        std::fs::remove_dir_all(folder).expect("it goes");
    }
}
