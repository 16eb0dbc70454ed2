//! A connection that can be held still, between a client and a server that know nothing of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes on what is said to a server on this machine, and what it says. Of the first connection the latter waits while
/// that is held.
pub struct Proxy {
    /// Where clients connect.
    pub port: u16,
    held: watch::Sender<bool>,
}

impl Proxy {
    /// Runs as long as the runtime does.
    pub async fn to(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (held, mut first) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (said, answered) = (client.into_split(), server.into_split());
                let never = watch::channel(false).1;
                tokio::spawn(pass(said.0, answered.1, never.clone()));
                tokio::spawn(pass(answered.0, said.1, std::mem::replace(&mut first, never)));
            }
        });
        Proxy { port, held }
    }

    /// Lets the first connection's answers wait.
    pub fn hold(&self) {
        self.held.send(true).unwrap();
    }

    /// Lets them through.
    pub fn release(&self) {
        self.held.send(false).unwrap();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut buffer = [0; 8_192];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // Whoever could hold it may have gone.
        let _ = held.wait_for(|held| !held).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
