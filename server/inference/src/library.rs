//! Where is ONNX Runtime's shared library?

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The library: the first of the setting `onnxruntime`, `ORT_DYLIB_PATH`, the folder of this binary, and the
/// `onnxruntime` package of the active Python environment.
///
/// # Errors
/// What to do about it, where there is none.
pub(crate) fn find(setting: Option<&Path>) -> Result<PathBuf, String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    find_in(setting, variable("ORT_DYLIB_PATH"), beside.as_deref(), variable("VIRTUAL_ENV"))
}

fn find_in(
    setting: Option<&Path>,
    variable: Option<OsString>,
    beside: Option<&Path>,
    virtual_env: Option<OsString>,
) -> Result<PathBuf, String> {
    // A library that somebody named and that is not there is a mistake, not a reason to take another one.
    let named = setting
        .map(|path| (path.to_owned(), "the setting `onnxruntime`"))
        .or_else(|| variable.map(|path| (path.into(), "the environment variable ORT_DYLIB_PATH")));
    if let Some((path, by)) = named {
        let found = if path.is_dir() { newest_in(&path) } else { path.is_file().then(|| path.clone()) };
        return found.ok_or_else(|| {
            format!("{by} says that ONNX Runtime is {}, and no such library is there", path.display())
        });
    }
    beside
        .and_then(newest_in)
        .or_else(|| virtual_env.and_then(|root| newest_in_environment(Path::new(&root))))
        .ok_or_else(|| {
            "models need ONNX Runtime's shared library, and none was found beside this binary or in an active \
             Python environment: run `pip install onnxruntime` in an active virtual environment, or set \
             ORT_DYLIB_PATH or `onnxruntime:` in quern.yaml to the path of libonnxruntime.so"
                .to_owned()
        })
}

fn newest_in_environment(root: &Path) -> Option<PathBuf> {
    let pythons = std::fs::read_dir(root.join("lib")).ok()?;
    let packages =
        pythons.filter_map(|entry| Some(entry.ok()?.path().join("site-packages/onnxruntime/capi")));
    packages.filter_map(|folder| newest_in(&folder)).max()
}

/// The library in `folder`; where several versions lie there, the last by name.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // `libonnxruntime_providers_shared.so` lies beside it and is another thing.
        name.starts_with("libonnxruntime.") && (name.contains(".so") || name.ends_with(".dylib"))
    };
    let entries = std::fs::read_dir(folder).ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_library(path)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_where_it_may_lie() {
        let root = std::env::temp_dir().join(format!("quern-library-{}", std::process::id()));
        let capi = root.join("venv/lib/python3.12/site-packages/onnxruntime/capi");
        let bin = root.join("bin");
        for folder in [&capi, &bin] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let venv = || Some(root.join("venv").into_os_string());
        assert!(find_in(None, None, Some(&bin), venv()).unwrap_err().contains("pip install onnxruntime"));
        for name in
            ["libonnxruntime.so.1.31.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"]
        {
            std::fs::write(capi.join(name), "").unwrap();
        }
        let newest = capi.join("libonnxruntime.so.1.32.0");
        assert_eq!(find_in(None, None, Some(&bin), venv()).unwrap(), newest);
        assert_eq!(find_in(Some(&capi), None, None, None).unwrap(), newest);
        std::fs::write(bin.join("libonnxruntime.so"), "").unwrap();
        assert_eq!(find_in(None, None, Some(&bin), venv()).unwrap(), bin.join("libonnxruntime.so"));
        let lost = find_in(None, Some(root.join("lost.so").into()), Some(&bin), venv()).unwrap_err();
        assert!(lost.starts_with("the environment variable ORT_DYLIB_PATH says"), "{lost}");
        std::fs::remove_dir_all(root).unwrap();
    }
}
