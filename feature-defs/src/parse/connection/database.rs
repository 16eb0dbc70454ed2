//! Is what a connection says of a database of one?

use super::{check_no_store, check_told};
use crate::parse::declared::Declaration;
use crate::yaml::Node;
use crate::{Connection, DefError};

/// Checks that what it says of a database is of one.
pub(super) fn check(connection: &Declaration<Connection>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = connection;
    let Some(database) = &def.database else {
        errors.extend(node.get("options").map(|options| {
            DefError::new(
                &options.loc,
                "`options` are of a database, and there is no `driver` that leads to one",
            )
            .with_help("leave them out, or name the ADBC driver, as in `driver: postgresql`")
        }));
        return;
    };
    let is_large = database.driver.contains(|c: char| c.is_ascii_uppercase());
    if let Some(driver) = node.get("driver").filter(|_| is_large) {
        let cause =
            format!("`driver` must be a name of small letters, digits and `_`, found `{}`", database.driver);
        errors.push(DefError::new(&driver.loc, cause).with_help("as in `driver: postgresql`"));
    }
    check_no_store(node, "`driver` leads to a database", "leave it out", errors);
    for entry in node.get("options").map(Node::entries).unwrap_or_default() {
        if !entry.key.starts_with("adbc.") {
            let cause = format!("`{}` is no option of a driver: their names begin with `adbc.`", entry.key);
            let help = "the database is said by `url`, who asks by `credentials`";
            errors.push(DefError::new(&entry.key_loc, cause).with_help(help));
        }
    }
    for secrets in [node.get("credentials"), node.get("options")].into_iter().flatten() {
        check_told(secrets, errors);
    }
    for entry in node.get("credentials").map(Node::entries).unwrap_or_default() {
        if !["username", "password"].contains(&entry.key.as_str()) {
            let cause = format!("`{}` is of an object store, and `driver` leads to a database", entry.key);
            errors.push(DefError::new(&entry.key_loc, cause).with_help(
                "a database takes `username` and `password`; what else its driver takes is said by `options`",
            ));
        }
    }
}
