//! Which keys does a role have?

use super::object::{Object, Shape};
use super::table::{DESCRIPTION, optional, required};

pub(super) static ROLE: Object = Object {
    noun: "a role",
    doc: "Some who ask, and what they may do. What no role allows is not allowed.",
    keys: &[
        required("kind", Shape::Constant("Role"), "Says that this document declares a role."),
        required("name", Shape::ModelName, "Unique among roles."),
        DESCRIPTION,
        required("members", Shape::List(&Shape::Object(&MEMBER)), "Who has it: whoever is one of these."),
        optional("allow", Shape::List(&Shape::Object(&ALLOW)), "What they may do."),
        optional("limits", Shape::Object(&LIMITS), "How much each of them may ask for, of each server."),
    ],
};

static MEMBER: Object = Object {
    noun: "a member",
    doc: "How one who has the role is known: exactly one of the four.",
    keys: &[
        optional(
            "spiffe",
            Shape::Text,
            "By the SPIFFE ID in their certificate, as `spiffe://corp/checkout`.",
        ),
        optional("dns", Shape::Text, "By the DNS name in their certificate."),
        optional("key", Shape::ModelName, "By an API key of this name."),
        optional("jwt", Shape::Object(&JWT), "By what their token says."),
    ],
};

static JWT: Object = Object {
    noun: "a token's claim",
    doc: "What a token says.",
    keys: &[
        required("claim", Shape::Text, "The claim: a text, or a list of texts; `groups`, `sub`."),
        required("has", Shape::Text, "What it says, or holds."),
        optional("issuer", Shape::Text, "Who gave it; any that the server believes unless given."),
    ],
};

static ALLOW: Object = Object {
    noun: "a grant",
    doc: "What they may do, and with what.",
    keys: &[
        optional(
            "predict",
            PICKS,
            "Models to ask for predictions: their outputs, and nothing of what they saw.",
        ),
        optional("label", PICKS, "Models whose predictions they may label."),
        optional("read_log", PICKS, "Models whose log, labels and verification they may read."),
        optional("route", PICKS, "Models whose weights they may change."),
        optional("train", PICKS, "Feature services to pull training sets of."),
        optional("read", Shape::List(&Shape::Object(&READ)), "Features to look up."),
        optional("push", PICKS, "Sources to push rows to."),
        optional(
            "apply",
            Shape::List(&Shape::Object(&OWNED)),
            "Whose definitions they may change: the difference counts, not the repository.",
        ),
        optional(
            "operate",
            Shape::List(&Shape::OneOf(&["backup", "materialize", "metrics", "scrub", "seal", "status"])),
            "What keeps the server running.",
        ),
    ],
};

/// Some of one kind.
const PICKS: Shape = Shape::List(&PICK);
const PICK: Shape = Shape::Short { key: "name", object: &PICKED };

static PICKED: Object = Object {
    noun: "what is picked",
    doc: "One of a name, or those of a tag.",
    keys: &[
        optional("name", Shape::ReferenceOrAll, "The one of this name; `\"*\"`: all of the role's project."),
        optional("tag", Shape::ModelName, "Those of the role's project that have this tag."),
    ],
};

static READ: Object = Object {
    noun: "what may be read",
    doc: "A feature service, or features of a view.",
    keys: &[
        optional("service", PICK, "Feature services, with all that they give."),
        optional("view", PICK, "Feature views, and services made of nothing else."),
        optional("except", Shape::List(&Shape::Identifier), "With `view`: features that may not be read."),
    ],
};

static OWNED: Object = Object {
    noun: "what may be changed",
    doc: "Definitions by their owner.",
    keys: &[required("owner", Shape::Reference, "The role that owns them.")],
};

static LIMITS: Object = Object {
    noun: "limits",
    doc: "How much each member may ask for, of each server; more is answered with 429.",
    keys: &[
        optional("requests", Shape::Rate, "Requests of any kind, as `500/s`, `30/m` or `10/h`."),
        optional("instances", Shape::Rate, "Rows in them: instances, entities, pushed rows."),
    ],
};
