//! Whose is a data folder? It belongs to one process at a time.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use quern_base::Failure;
use quern_base::random;

use crate::error::{Error, Kind, Result};

/// Lies in every data folder; whoever holds its lock owns the folder.
pub(crate) const LOCK_FILE: &str = "quern.lock";

/// The Unix socket of the server that has the folder open.
pub const SOCKET_FILE: &str = "quern.sock";

const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Names this process among all that ever had a data folder: processes that come later get the same numbers.
pub static INSTANCE: LazyLock<String> = LazyLock::new(|| format!("{:016x}", random::number()));

/// The folder is another process's.
#[derive(Debug, thiserror::Error)]
#[error("the data folder {} is in use by {holder}; wait until it is done, or stop it", folder.display())]
pub struct InUse {
    /// The data folder.
    pub folder: PathBuf,
    /// Who has it, as `process 7`.
    pub holder: String,
}

/// Makes the folder where there is none, and takes its lock. Waits a little: whoever has it may be about to end.
pub(crate) async fn lock(data: &Path) -> Result<File> {
    let failed =
        |error: std::io::Error| Error::invalid(format!("the data folder {}: {error}", data.display()));
    fs::create_dir_all(data).map_err(failed)?;
    let path = data.join(LOCK_FILE);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let give_up = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::WouldBlock) => return Err(in_use(data, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    let holder = format!("process {}\n{}\n", std::process::id(), *INSTANCE);
    file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())).map_err(failed)?;
    Ok(file)
}

/// The [`INSTANCE`] of the process that has the folder open; none where nobody has.
pub fn holder(data: &Path) -> Option<String> {
    let mut file = File::options().read(true).write(true).open(data.join(LOCK_FILE)).ok()?;
    match file.try_lock() {
        // Given back at once: nobody has it.
        Ok(()) => None,
        Err(_) => said(&mut file).lines().nth(1).map(str::to_owned),
    }
}

fn in_use(data: &Path, file: &mut File) -> Error {
    let holder = said(file).lines().next().unwrap_or("another process").to_owned();
    Failure::new(Kind::Refused, InUse { folder: data.to_owned(), holder }).into()
}

/// What whoever holds the lock has written into its file.
fn said(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    text
}
