//! What do the roles of one apply allow?
//!
//! A table, made once: for each role what it allows, by action and name, with tags, views and services spelt out.
//! Whoever asks gets what all their roles allow together, and that is remembered as well.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use feature_defs::{Definition, Definitions, Grant, Limits, Loc, Member, Pick, Right, Role};
use parking_lot::RwLock;
use serde_json::Value;

use crate::principal::{Principal, Proof};
use crate::rights::{Action, Question, Rights};

/// As many are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// What the roles of one apply allow.
#[derive(Debug, Default)]
pub struct Access {
    admins: Vec<Member>,
    roles: Vec<Compiled>,
    /// The features that each service takes, as view and feature.
    services: BTreeMap<String, Vec<(String, String)>>,
    remembered: RwLock<HashMap<String, (Principal, Arc<Rights>)>>,
}

#[derive(Debug)]
struct Compiled {
    role: Role,
    /// Of this role alone, but for services that are readable by their features.
    rights: Rights,
    /// What each of its grants allows.
    grants: Vec<Rights>,
}

/// Why something is allowed.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Nobody is asked who they are.
    Open,
    /// They run the server.
    Owner,
    /// They are one of the administrators in quern.yaml.
    Admin,
    /// A role's grant, and where it is declared.
    Grant {
        /// The role.
        role: String,
        /// Where.
        loc: Loc,
    },
    /// Each feature of the service may be read, by these roles together.
    Features {
        /// The roles.
        roles: Vec<String>,
    },
    /// Each part of it is allowed by one of these.
    All(Vec<Rule>),
}

impl Rule {
    /// What allows something of which each part is allowed by one of `rules`; none where there is none.
    pub fn of_all(mut rules: Vec<Rule>) -> Option<Rule> {
        rules.dedup();
        match rules.len() {
            0 | 1 => rules.pop(),
            _ => Some(Rule::All(rules)),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Open => f.write_str("nobody is asked who they are (`auth: none`)"),
            Rule::Owner => f.write_str("they run the server"),
            Rule::Admin => f.write_str("they are among `admins` in quern.yaml"),
            Rule::Grant { role, loc } => write!(f, "role `{role}` allows it ({loc})"),
            Rule::Features { roles } => {
                write!(f, "each of its features may be read: by role `{}`", roles.join("` and `"))
            }
            Rule::All(rules) => {
                let rules: Vec<String> = rules.iter().map(Rule::to_string).collect();
                f.write_str(&rules.join(", and "))
            }
        }
    }
}

impl Access {
    /// What the roles in `definitions` allow, beside `admins`, who may do everything.
    pub fn new(definitions: &Definitions, admins: Vec<Member>) -> Access {
        let services = definitions.services.values().map(|service| {
            let features = service.projections.iter().flat_map(|projection| {
                projection.features.iter().map(|feature| (projection.view.clone(), feature.clone()))
            });
            (service.name.clone(), features.collect())
        });
        let roles = definitions.roles.values().map(|role| {
            let one = |grant| granted(grant, definitions);
            let grants: Vec<Rights> = role.allow.iter().map(one).collect();
            let limits = if role.limits == Limits::default() { Vec::new() } else { vec![role.limits] };
            let mut rights = Rights { roles: vec![role.name.clone()], limits, ..Rights::default() };
            grants.iter().for_each(|grant| rights.add(grant));
            Compiled { role: role.clone(), rights, grants }
        });
        Access { admins, roles: roles.collect(), services: services.collect(), ..Access::default() }
    }

    /// Whether there are roles, or all there is to be allowed is allowed to administrators.
    pub fn has_roles(&self) -> bool {
        !self.roles.is_empty()
    }

    /// What `who` may do.
    pub fn rights(&self, who: &Principal) -> Arc<Rights> {
        if let Some((known, rights)) = self.remembered.read().get(who.name())
            && known == who
        {
            return Arc::clone(rights);
        }
        let rights = Arc::new(match self.is_admin(who) {
            Some(_) => Rights::all(),
            None => self.together(self.roles.iter().filter(|compiled| has(&compiled.role.members, who))),
        });
        let mut remembered = self.remembered.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(who.name().to_owned(), (who.clone(), Arc::clone(&rights)));
        rights
    }

    /// What the role of this name alone allows; nothing where there is none.
    pub fn of_role(&self, name: &str) -> Rights {
        self.together(self.roles.iter().filter(|compiled| compiled.role.name == name))
    }

    /// The roles.
    pub(crate) fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|compiled| compiled.role.name.as_str())
    }

    /// Whether `who` has the role of this name.
    pub fn has_role(&self, who: &Principal, name: &str) -> bool {
        self.roles.iter().any(|compiled| compiled.role.name == name && has(&compiled.role.members, who))
    }

    /// Why `who` may do that, if they may.
    pub fn why(&self, who: &Principal, question: Question<'_>) -> Option<Rule> {
        if let Some(rule) = self.is_admin(who) {
            return Some(rule);
        }
        let theirs = || self.roles.iter().filter(|compiled| has(&compiled.role.members, who));
        for Compiled { role, grants, .. } in theirs() {
            let mut both = role.allow.iter().zip(grants);
            if let Some((grant, _)) = both.find(|(_, rights)| rights.allow(question)) {
                return Some(Rule::Grant { role: role.name.clone(), loc: grant.loc.clone() });
            }
        }
        let roles = || theirs().map(|compiled| compiled.role.name.clone()).collect();
        self.rights(who).allow(question).then(|| Rule::Features { roles: roles() })
    }

    fn is_admin(&self, who: &Principal) -> Option<Rule> {
        match who.proof() {
            Proof::Open => Some(Rule::Open),
            Proof::Owner => Some(Rule::Owner),
            _ => has(&self.admins, who).then_some(Rule::Admin),
        }
    }

    /// What these allow together: a service may be read where each of its features may be.
    fn together<'a>(&self, roles: impl Iterator<Item = &'a Compiled>) -> Rights {
        let mut rights = Rights::default();
        roles.for_each(|compiled| rights.add(&compiled.rights));
        let readable = self.services.iter().filter(|(_, features)| {
            let mut questions = features.iter().map(|(view, feature)| Question::Feature(view, feature));
            !features.is_empty() && questions.all(|question| rights.allow(question))
        });
        let readable: Vec<String> = readable.map(|(service, _)| service.clone()).collect();
        rights.things.entry(Action::Read).or_default().extend(readable);
        rights
    }
}

/// Whether `who` is one of these.
fn has(members: &[Member], who: &Principal) -> bool {
    members.iter().any(|member| match (member, who.proof()) {
        (Member::Spiffe(name) | Member::Dns(name), Proof::Certificate(names)) => {
            names.iter().any(|known| known == name)
        }
        (Member::Key(name), Proof::Key(key)) => name == key,
        (Member::Jwt { issuer, claim, has }, Proof::Token(token)) => {
            issuer.as_ref().is_none_or(|issuer| *issuer == token.issuer)
                && match token.claims.get(claim) {
                    Some(Value::String(text)) => text == has,
                    Some(Value::Array(texts)) => texts.iter().any(|text| text.as_str() == Some(has)),
                    _ => false,
                }
        }
        _ => false,
    })
}

/// What one grant allows.
fn granted(Grant { right, loc }: &Grant, definitions: &Definitions) -> Rights {
    let Definitions { sources, views, services, models, .. } = definitions;
    let pick = |pick| Picking { pick, project: loc.project() };
    let models = |it| pick(it).among(models);
    let services = |it| pick(it).among(services);
    let sources = |it| pick(it).among(sources);
    let mut rights = Rights::default();
    let mut things = |action, names: HashSet<String>| {
        rights.things.insert(action, names);
    };
    match right {
        Right::Predict(pick) => things(Action::Predict, models(pick)),
        Right::Label(pick) => things(Action::Label, models(pick)),
        Right::ReadLog(pick) => things(Action::ReadLog, models(pick)),
        Right::Route(pick) => things(Action::Route, models(pick)),
        Right::Train(pick) => things(Action::Train, services(pick)),
        Right::ReadService(pick) => things(Action::Read, services(pick)),
        Right::Push(pick) => things(Action::Push, sources(pick)),
        Right::ReadView(it, except) => {
            for view in pick(it).among(views) {
                let mut features = views[&view].feature_names();
                features.retain(|feature| !except.contains(feature));
                if !features.is_empty() {
                    rights.features.insert(view, features.into_iter().collect());
                }
            }
        }
        Right::Apply(owner) => _ = rights.owners.insert(owner.clone()),
        Right::Operate(operation) => _ = rights.operations.insert(*operation),
    }
    rights
}

/// What a grant picks: by its name whosever it is, else of the role's project.
struct Picking<'a> {
    pick: &'a Pick,
    project: &'a str,
}

impl Picking<'_> {
    fn among<T: Definition>(&self, all: &BTreeMap<String, T>) -> HashSet<String> {
        let fits = |(name, it): &(&String, &T)| {
            let is_own = it.loc().project() == self.project;
            match self.pick {
                Pick::Name(wanted) => *name == wanted,
                Pick::Tag(tag) => is_own && it.governance().is_some_and(|it| it.tags.contains(tag)),
                Pick::All => is_own,
            }
        };
        all.iter().filter(fits).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
