//! Where may definitions lead over the network?

use super::Definitions;
use super::role::Governance;
use crate::error::Loc;
use crate::reach::Reach;

/// A part of the network that definitions may lead to. What none of them names, no definition leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// As it is written.
    pub url: String,
    /// Where that leads.
    pub reach: Reach,
    /// Whose it is.
    pub governance: Governance,
    /// Where it is declared.
    pub loc: Loc,
}

impl Connection {
    /// Whether definitions of `project` may use it: its own, and those that it is shared with.
    pub(crate) fn is_for(&self, project: &str) -> bool {
        self.loc.project() == project
            || self.governance.share.iter().any(|with| with == project || with == "*")
    }

    /// The one of `all` that leads what `project` declares to `reach`: the narrowest.
    pub(crate) fn to<'a>(
        reach: &Reach,
        project: &str,
        all: impl Iterator<Item = &'a Connection>,
    ) -> Option<&'a Connection> {
        all.filter(|it| it.is_for(project) && it.reach.covers(reach)).max_by_key(|it| it.reach.depth())
    }
}

impl Definitions {
    /// The connection by which what `project` declares leads to the object or the server at `url`.
    pub fn connection(&self, project: &str, url: &str) -> Option<&Connection> {
        Connection::to(&Reach::parse(url).ok()?, project, self.connections.values())
    }
}
