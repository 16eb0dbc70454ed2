//! What do messages say, as the registry's schemas have it, or as JSON?

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use feature_defs::{Connection, StreamSource};
use quern_base::secret::encoded;
use quern_decode::json::event;
use quern_decode::schema::{Framed, HEADER, Schema, SchemaName};
use quern_decode::{Protobuf, avro};
use quern_engine::json::Json;
use quern_http::{Refused, Session, Tokens, api_of};
use rdkafka::message::{Headers, Message, OwnedMessage};
use reqwest::Url;
use serde_json::Value;

use crate::error::{Error, Result};

/// What a message says, or why that cannot be told.
type Event<'a> = std::result::Result<Json<'a>, String>;

/// The registry's word for a schema that it does not have, and for a subject and a version.
const UNKNOWN: [u64; 3] = [40403, 40401, 40402];
/// More schemas than this no topic has, nor files that one of them needs.
const SCHEMAS_MAX: usize = 10_000;
const REFERENCES_MAX: usize = 1_000;
/// How long a schema is waited for that a registry does not have: it may have come to another of its servers first.
const PATIENCE: Duration = Duration::from_secs(600);

/// The schemas of one stream, and the registry that has them.
pub(super) struct Schemas {
    /// None where events are JSON and name none.
    registry: Option<Registry>,
    /// What each name stands for, which never changes; or why it cannot be read.
    known: HashMap<SchemaName, std::result::Result<Schema, String>>,
    /// Those that the registry does not have, and since when.
    lacking: HashMap<SchemaName, Instant>,
}

struct Registry {
    connection: Option<Connection>,
    session: Option<Session>,
}

impl Schemas {
    pub(super) fn of(stream: &StreamSource) -> Schemas {
        let connection = || stream.registered.clone();
        let registry = stream.registry.as_ref().map(|_| Registry { connection: connection(), session: None });
        Schemas { registry, known: HashMap::new(), lacking: HashMap::new() }
    }

    /// What messages say.
    ///
    /// # Errors
    /// A registry that does not answer, or does not have a schema: all is as before, and may be tried again. What it
    /// lacks for long is left behind, unless it never had any that it was asked for: then it is another one's.
    pub(super) async fn read<'m>(&mut self, messages: &'m [OwnedMessage]) -> Result<Vec<Event<'m>>> {
        let Some(registry) = &mut self.registry else {
            return Ok(messages.iter().map(|message| event(payload(message)?)).collect());
        };
        let framed: Vec<_> = messages.iter().map(framed).collect();
        let named: BTreeSet<&SchemaName> = framed.iter().flatten().map(|framed| &framed.schema).collect();
        for name in named.into_iter().filter(|name| !self.known.contains_key(name)).collect::<Vec<_>>() {
            let (schema, why) = match registry.schema(name).await? {
                Found::Schema(schema) => (schema, None),
                Found::Nothing(why) => (Err(why.clone()), Some(why)),
            };
            if let Some(why) = why {
                let since = *self.lacking.entry(name.clone()).or_insert_with(Instant::now);
                if self.known.is_empty() || since.elapsed() < PATIENCE {
                    return Err(Error::unavailable("the schema registry").because(why));
                }
            }
            if self.known.len() >= SCHEMAS_MAX {
                self.known.clear();
            }
            self.lacking.remove(name);
            self.known.insert(name.clone(), schema);
        }
        let read = |framed: std::result::Result<Framed<'m>, String>| {
            let framed = framed?;
            let schema = self.known.get(&framed.schema).ok_or("its schema is not known")?;
            schema.as_ref().map_err(Clone::clone)?.read(&framed)
        };
        Ok(framed.into_iter().map(read).collect())
    }
}

/// What a registry says of a name.
enum Found {
    /// What it stands for; or why that cannot be read, which will not change.
    Schema(std::result::Result<Schema, String>),
    /// That it stands for nothing.
    Nothing(String),
}

fn framed(message: &OwnedMessage) -> std::result::Result<Framed<'_>, String> {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let header = headers.filter(|header| header.key == HEADER).find_map(|header| header.value);
    Framed::read(header, payload(message)?)
}

fn payload(message: &OwnedMessage) -> std::result::Result<&[u8], String> {
    message.payload().ok_or_else(|| "the event has no value: it is a tombstone, which is no row".to_owned())
}

/// A schema as a registry has it, and those that it stands on, from below.
struct Said {
    text: String,
    kind: String,
    below: Vec<(String, String)>,
}

impl Registry {
    /// What `name` stands for.
    async fn schema(&mut self, name: &SchemaName) -> Result<Found> {
        let said = match self.said(name).await {
            Ok(said) => said,
            Err(refused) if refused.code.is_some_and(|code| UNKNOWN.contains(&code)) => {
                return Ok(Found::Nothing(format!("it has no schema `{name}`: {}", refused.why)));
            }
            Err(refused) => return Err(self.failed(&refused)),
        };
        let read = said.and_then(|Said { text, kind, below }| match kind.as_str() {
            "AVRO" => {
                let texts: Vec<&str> =
                    below.iter().map(|(_, text)| text.as_str()).chain([text.as_str()]).collect();
                avro::Schema::parse(&texts).map(Schema::Avro)
            }
            "PROTOBUF" => Protobuf::parse(&text, &below).map(Schema::Protobuf),
            "JSON" => Ok(Schema::Json),
            other => Err(format!("it is of the kind `{other}`, which is not read")),
        });
        Ok(Found::Schema(
            read.map_err(|why| format!("the schema `{name}` of the registry cannot be read: {why}")),
        ))
    }

    /// What the registry says of a schema, and of all that it stands on.
    async fn said(
        &mut self,
        name: &SchemaName,
    ) -> std::result::Result<std::result::Result<Said, String>, Refused> {
        let said = self.ask(&format!("schemas/{name}")).await?;
        if is_changed(&said) {
            let why = "its `ruleSet` changes what is read, as where it is encrypted, and such rules are not followed";
            return Ok(Err(why.to_owned()));
        }
        let kind = said["schemaType"].as_str().unwrap_or("AVRO").to_owned();
        let text = said["schema"].as_str().ok_or_else(odd)?.to_owned();
        // From above: whatever is named later stands below.
        let (mut below, mut open): (Vec<(String, String)>, Vec<Value>) = (Vec::new(), references(&said));
        while let Some(reference) = open.pop() {
            if below.len() >= REFERENCES_MAX {
                return Ok(Err(format!("it stands on more than {REFERENCES_MAX} others")));
            }
            let said = |key: &str| reference[key].as_str().map(encoded).ok_or_else(odd);
            let version = reference["version"].as_i64().ok_or_else(odd)?;
            let found = self.ask(&format!("subjects/{}/versions/{version}", said("subject")?)).await?;
            let name = reference["name"].as_str().ok_or_else(odd)?.to_owned();
            let text = found["schema"].as_str().ok_or_else(odd)?.to_owned();
            below.retain(|(known, _)| *known != name);
            below.push((name, text));
            open.extend(references(&found));
        }
        below.reverse();
        Ok(Ok(Said { text, kind, below }))
    }

    async fn ask(&mut self, path: &str) -> std::result::Result<Value, Refused> {
        let lost = || Refused::odd("the stream names no connection to it that leads there");
        let connection = self.connection.as_ref().ok_or_else(lost)?;
        let registry = connection.schema_registry.as_ref().ok_or_else(lost)?;
        let (server, base) = api_of(connection, &registry.path).map_err(Refused::odd)?;
        let held = self.session.take().filter(Session::holds);
        let session = match held {
            Some(session) => session,
            None => {
                let tokens = Tokens { oauth: &registry.oauth, own: None, scope: None };
                Session::begin(connection, &server, &tokens).await?
            }
        };
        let url: Url = format!("{base}{path}").parse().map_err(|_| odd())?;
        let request =
            session.get(url).header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        // Where it is asked by nobody it knows, the next one asks anew who that is.
        let said = session.said(request).await?;
        self.session = Some(session);
        serde_json::from_slice(&said).map_err(|_| odd())
    }

    fn failed(&self, refused: &Refused) -> Error {
        let name = self.connection.as_ref().map_or("", |connection| connection.name.as_str());
        Error::unavailable("the schema registry").because(format!("connection `{name}`: {}", refused.why))
    }
}

fn odd() -> Refused {
    Refused::odd("it does not answer as a registry of schemas does")
}

fn references(said: &Value) -> Vec<Value> {
    said["references"].as_array().cloned().unwrap_or_default()
}

/// Whether a registry has its clients change what they read, as they do where it is encrypted.
fn is_changed(said: &Value) -> bool {
    let rules = ["domainRules", "encodingRules"].map(|kind| said["ruleSet"][kind].as_array());
    rules
        .into_iter()
        .flatten()
        .flatten()
        .any(|rule| rule["kind"] == "TRANSFORM" && rule["disabled"] != true && rule["mode"] != "WRITE")
}
