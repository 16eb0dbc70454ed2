//! What is a driver told?

use std::fmt;
use std::path::PathBuf;

use feature_defs::{Connection, Database, DriverOption, Secret};
use quern_base::secret::{self, encoded};
use serde::{Deserialize, Serialize};

use crate::drivers::Drivers;
use crate::error::{Error, Result};
use crate::sql::read_only;

/// A database, and what it is asked. It travels to the process that asks, over a socket: secrets stand in it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Question {
    pub(crate) library: PathBuf,
    pub(crate) driver: String,
    /// What the driver is told of the database.
    pub(crate) options: Vec<(String, String)>,
    /// What is said before all else.
    pub(crate) first: Option<String>,
    /// The statements, one after the other.
    pub(crate) statements: Vec<String>,
    /// What nobody is told.
    pub(crate) secrets: Vec<String>,
}

impl Question {
    /// Asks `statements` of the database that `connection` leads to.
    ///
    /// # Errors
    /// `Kind::Refused` where the driver is not installed, or a secret is told nowhere.
    pub fn new(connection: &Connection, drivers: &Drivers, statements: Vec<String>) -> Result<Question> {
        let Some(Database { driver, options }) = &connection.database else {
            return Err(Error::broken("a connection to no database"));
        };
        let library = drivers.find(driver)?;
        let (mut said, mut secrets) = (Vec::new(), Vec::new());
        let mut who = Vec::new();
        for (key, secret) in &connection.storage.credentials {
            let value = told(key, secret)?;
            // Who it is may be read; the word `quern` would be struck out of each message.
            if key != "username" {
                secrets.push(value.clone());
            }
            who.push((key.clone(), value));
        }
        for (key, option) in options {
            let value = match option {
                DriverOption::Plain(text) => text.clone(),
                DriverOption::Secret(secret) => {
                    let value = told(key, secret)?;
                    secrets.push(value.clone());
                    value
                }
            };
            said.push((key.clone(), value));
        }
        said.extend(addressed(&connection.url, driver, who));
        let first = read_only(driver).map(str::to_owned);
        Ok(Question { library, driver: driver.clone(), options: said, first, statements, secrets })
    }
}

/// What a secret is, now; `key` names it.
fn told(key: &str, secret: &Secret) -> Result<String> {
    let found = match secret {
        Secret::Env(name) => secret::of_env(name),
        Secret::File(path) => secret::of_file(path),
    };
    let refuse = |why| Error::refused(format!("its connection has `{key}` told by {secret}, {why}"));
    found.map_err(refuse)
}

/// The database and who asks it. The driver of PostgreSQL takes both in its URL alone.
fn addressed(url: &str, driver: &str, mut who: Vec<(String, String)>) -> Vec<(String, String)> {
    let uri = match url.split_once("://").filter(|_| driver == "postgresql") {
        Some((scheme, rest)) if !who.is_empty() => {
            let said =
                |key: &str| who.iter().find(|(known, _)| known == key).map(|(_, value)| encoded(value));
            let password = said("password").map(|password| format!(":{password}")).unwrap_or_default();
            let uri = format!("{scheme}://{}{password}@{rest}", said("username").unwrap_or_default());
            who.clear();
            uri
        }
        // Which file it is; one that is not there is not to be made.
        _ if driver == "sqlite" && !url.starts_with("file:") && !url.starts_with(':') => {
            format!("file:{}?mode=ro", url.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
        }
        _ => url.to_owned(),
    };
    who.push(("uri".to_owned(), uri));
    who
}

/// Without what is secret.
impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("driver", &self.driver)
            .field("statements", &self.statements)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_postgresql_stands_in_its_url() {
        let who =
            || vec![("password".to_owned(), "p@:/".to_owned()), ("username".to_owned(), "me".to_owned())];
        let uri = |driver, who| addressed("postgresql://h:5432/shop?sslmode=require", driver, who);
        assert_eq!(
            uri("postgresql", who()),
            [("uri".to_owned(), "postgresql://me:p%40%3A%2F@h:5432/shop?sslmode=require".to_owned())]
        );
        assert_eq!(uri("postgresql", vec![])[0].1, "postgresql://h:5432/shop?sslmode=require");
        assert_eq!(uri("flightsql", who()).len(), 3);
    }
}
