//! How do commands on this machine reach the server, whatever it asks of others?
//!
//! Over a Unix socket in the data folder, which the server's own user and root alone can open: it is made in a folder
//! that nobody else may enter, and comes to its place with its mode.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use quern_server::SOCKET_FILE;
use tokio::net::{UnixListener, UnixStream};

/// Where it is made: no longer than the path that it gets.
const MAKING: &str = ".sock";
const ROOT: u32 = 0;
/// What an address of a Unix socket holds (`sockaddr_un`), with the zero at its end.
const PATH_BYTES_MAX: usize = 108;

/// The server's Unix socket, which is removed with it.
#[derive(Debug)]
pub(super) struct OwnSocket {
    listener: UnixListener,
    path: PathBuf,
    user: u32,
}

impl OwnSocket {
    /// Makes it in the data folder, in the place of one that a server before has left; none where that cannot be, which
    /// keeps no server from starting: commands then ask over TCP.
    pub(super) fn open(data: &Path) -> Option<OwnSocket> {
        let path = data.join(SOCKET_FILE);
        if path.as_os_str().len() >= PATH_BYTES_MAX {
            tracing::debug!(path = %path.display(), "the data folder's path is too long for a Unix socket in it");
            return None;
        }
        match make(data, &path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(path = %path.display(), cause = error.to_string(), "there is no Unix socket");
                None
            }
        }
    }

    /// The next one who comes, and whose process it is. Who has no business here is told nothing.
    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(UnixStream, u32)>> {
        self.listener.poll_accept(context).map(|accepted| {
            let (stream, _) = accepted?;
            let user = stream.peer_cred()?.uid();
            match may_enter(user, self.user) {
                true => Ok((stream, user)),
                false => Err(io::Error::new(
                    ErrorKind::PermissionDenied,
                    format!("user {user} is neither user {} nor root", self.user),
                )),
            }
        })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a process of `user` is let in by a server of user `own`.
fn may_enter(user: u32, own: u32) -> bool {
    user == own || user == ROOT
}

fn make(data: &Path, path: &Path) -> io::Result<OwnSocket> {
    let folder = data.join(MAKING);
    // What a server has left that was killed right here; the folder is nobody else's.
    let _ = fs::remove_dir_all(&folder);
    DirBuilder::new().mode(0o700).create(&folder)?;
    let made = folder.join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    let user = fs::metadata(&made)?.uid();
    fs::rename(&made, path)?;
    fs::remove_dir(&folder)?;
    Ok(OwnSocket { listener, path: path.to_owned(), user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_user_and_root_are_let_in() {
        assert!(may_enter(1_000, 1_000) && may_enter(0, 1_000) && may_enter(0, 0));
        assert!(!may_enter(1_001, 1_000) && !may_enter(65_534, 0));
    }

    #[tokio::test]
    async fn a_socket_is_ones_own_and_replaces_what_was_left() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(SOCKET_FILE);
        fs::write(&path, "left").unwrap();
        fs::create_dir(data.path().join(MAKING)).unwrap();
        let socket = OwnSocket::open(data.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!data.path().join(MAKING).exists());
        let (client, accepted) = tokio::join!(
            UnixStream::connect(&path),
            std::future::poll_fn(|context| socket.poll_accept(context))
        );
        assert_eq!((client.is_ok(), accepted.unwrap().1), (true, socket.user));
        drop(socket);
        assert!(!path.exists());
        let long = data.path().join("l".repeat(PATH_BYTES_MAX));
        fs::create_dir(&long).unwrap();
        assert!(OwnSocket::open(&long).is_none());
    }
}
