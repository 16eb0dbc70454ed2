//! Which variables of the server's environment does a worker get? Those that ONNX Runtime and what it stands on read,
//! and no other: passwords lie among the rest.

use std::env;
use std::ffi::OsString;

const NAMES: [&str; 15] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "DYLD_LIBRARY_PATH",
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "TZ",
    "LANG",
    "LANGUAGE",
    "LOCPATH",
    "LOCALE_ARCHIVE",
    "GLIBC_TUNABLES",
    // Where the virtual environment is whose ONNX Runtime is taken, and how our own failures are told.
    "VIRTUAL_ENV",
    "RUST_BACKTRACE",
];

/// Of ONNX Runtime and of the libraries that its execution providers are made of.
const PREFIXES: [&str; 16] = [
    "LC_",
    "ORT_",
    "CUDA_",
    "CUDNN_",
    "CUBLAS_",
    "NVIDIA_",
    "TENSORRT_",
    "TRT_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OV_",
    "OPENVINO_",
    "MALLOC_",
    "MIMALLOC_",
];

/// What a worker gets of this process's environment.
pub(super) fn of_worker() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_needed))
}

fn is_needed(name: &str) -> bool {
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_with_the_server() {
        for name in
            ["PATH", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LC_ALL"]
        {
            assert!(is_needed(name), "{name}");
        }
        for name in [
            "QUERN_ONLINE",
            "QUERN_REGISTRY",
            "PGPASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "GOOGLE_SERVICE_ACCOUNT",
            "HTTPS_PROXY",
            "KUBERNETES_PORT",
            "path",
            "",
        ] {
            assert!(!is_needed(name), "{name}");
        }
    }
}
