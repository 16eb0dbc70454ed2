//! Who may do what?

use crate::error::Loc;

/// The role that nobody declares: its members stand in quern.yaml.
pub const ADMIN: &str = "admin";

/// Some who ask, and what they may do. What no role allows is not allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Who has it: whoever is one of these.
    pub members: Vec<Member>,
    /// What they may do.
    pub allow: Vec<Grant>,
    /// How much of it each of them may do.
    pub limits: Limits,
    /// Where it is declared.
    pub loc: Loc,
}

/// How one who has a role is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// By the SPIFFE ID in their certificate.
    Spiffe(String),
    /// By the DNS name in their certificate.
    Dns(String),
    /// By an API key of this name.
    Key(String),
    /// By what a token says.
    Jwt {
        /// Who gave it; any of those that the server believes unless given.
        issuer: Option<String>,
        /// The claim: a text, or a list of texts.
        claim: String,
        /// What it says, or holds.
        has: String,
    },
}

impl Member {
    /// Reads one as settings and commands name it: `key:NAME`, `spiffe://…`, `dns:NAME` or `jwt:CLAIM=VALUE`.
    ///
    /// # Errors
    /// What would name one.
    pub fn parse(text: &str) -> Result<Member, String> {
        let named = text.split_once(':').filter(|(_, name)| !name.is_empty());
        let member = named.and_then(|(kind, name)| match (kind, name.split_once('=')) {
            ("key", _) => Some(Member::Key(name.to_owned())),
            ("spiffe", _) => Some(Member::Spiffe(text.to_owned())),
            ("dns", _) => Some(Member::Dns(name.to_owned())),
            ("jwt", Some((claim, has))) if !claim.is_empty() && !has.is_empty() => {
                Some(Member::Jwt { issuer: None, claim: claim.to_owned(), has: has.to_owned() })
            }
            _ => None,
        });
        member.ok_or_else(|| {
            format!(
                "`{text}` is nobody: `key:NAME`, `spiffe://…`, `dns:NAME` or `jwt:CLAIM=VALUE` says how one is known"
            )
        })
    }
}

/// As [`Member::parse`] reads it, and of whom a token must be.
impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Member::Spiffe(id) => f.write_str(id),
            Member::Dns(name) => write!(f, "dns:{name}"),
            Member::Key(name) => write!(f, "key:{name}"),
            Member::Jwt { issuer: None, claim, has } => write!(f, "jwt:{claim}={has}"),
            Member::Jwt { issuer: Some(issuer), claim, has } => write!(f, "jwt:{claim}={has} of {issuer}"),
        }
    }
}

/// One thing that a role allows, and where that is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// What.
    pub right: Right,
    /// Where it is declared.
    pub loc: Loc,
}

/// What a role may allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// To ask models for predictions: their outputs, and nothing of what they saw.
    Predict(Pick),
    /// To tell what came true of predictions of models.
    Label(Pick),
    /// To read what models were asked and answered.
    ReadLog(Pick),
    /// To say which version of models answers whom.
    Route(Pick),
    /// To pull training sets of feature services.
    Train(Pick),
    /// To look up feature services.
    ReadService(Pick),
    /// To look up features of views, but for those of these names.
    ReadView(Pick, Vec<String>),
    /// To push rows to sources.
    Push(Pick),
    /// To change the definitions that this role owns.
    Apply(String),
    /// To keep the server running.
    Operate(Operation),
}

/// Which of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The one of this name.
    Name(String),
    /// Those that have this tag.
    Tag(String),
    /// All there are.
    All,
}

/// What keeps a server running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// To copy all that counts.
    Backup,
    /// To bring the head up to date.
    Materialize,
    /// To read metrics, which name what is live.
    Metrics,
    /// To look for damage in what is kept.
    Scrub,
    /// To write what was pushed into segments.
    Seal,
    /// To read how the server is, which names what is live.
    Status,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 6] = [
        Operation::Backup,
        Operation::Materialize,
        Operation::Metrics,
        Operation::Scrub,
        Operation::Seal,
        Operation::Status,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Backup => "backup",
            Operation::Materialize => "materialize",
            Operation::Metrics => "metrics",
            Operation::Scrub => "scrub",
            Operation::Seal => "seal",
            Operation::Status => "status",
        }
    }
}

/// How much each who has a role may ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Requests, of any kind.
    pub requests: Option<Rate>,
    /// Rows in them: instances, entities, pushed rows.
    pub instances: Option<Rate>,
}

/// So many in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In how many seconds.
    pub seconds: u64,
}

impl Rate {
    /// Reads `500/s`, `30/m` or `10/h`.
    pub(crate) fn parse(text: &str) -> Option<Rate> {
        let (count, unit) = text.split_once('/')?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let count = count.parse().ok().filter(|count| is_number && (1..=1_000_000_000).contains(count))?;
        Some(Rate { count, seconds })
    }
}

/// As it is written.
impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.seconds {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// Whose a definition is, and what it is filed under.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Governance {
    /// The role that answers for it.
    pub owner: Option<String>,
    /// What grants may name it by.
    pub tags: Vec<String>,
    /// The other projects that may use it; `*` for all.
    pub share: Vec<String>,
}
