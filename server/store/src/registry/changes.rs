//! Did another server write an apply?
//!
//! PostgreSQL tells whoever listens. A word may get lost with its connection, so this makes things quick, not sure.

use sqlx::postgres::{PgListener, PgPool};

use crate::error::Result;

const CHANNEL: &str = "quern_applies";
pub(super) const NOTIFY: &str = "NOTIFY quern_applies";

/// The applies of all servers, as they are written.
pub struct Changes(PgListener);

impl Changes {
    pub(super) async fn listen(pool: &PgPool) -> Result<Changes> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(Changes(listener))
    }

    /// Waits for the next one. Nothing is missed where the wait is given up and begun again.
    ///
    /// # Errors
    /// Where the connection is lost: listen anew, and look what was missed.
    pub async fn next(&mut self) -> Result<()> {
        match self.0.try_recv().await? {
            Some(_) => Ok(()),
            None => Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()).into()),
        }
    }
}
