//! What do messages say, as the registry's schemas have it, or as JSON?

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use feature_defs::{Connection, StreamSource};
use quern_decode::json::event;
use quern_decode::schema::{Framed, HEADER, Schema, SchemaName};
use quern_decode::{Protobuf, avro};
use quern_engine::json::Json;
use quern_http::{Refused, Session, Tokens, api_of};
use quern_server::live::Live;
use rdkafka::message::{Headers, Message, OwnedMessage};
use reqwest::Url;
use serde_json::Value;

use super::references::{Below, odd, references};
use crate::Reader;
use crate::batch::Event;
use crate::error::{Error, Result};

/// The registry's word for a schema that it does not have, and for a subject and a version.
const UNKNOWN: [u64; 3] = [40403, 40401, 40402];
/// More schemas than this no topic has.
const SCHEMAS_MAX: usize = 10_000;
/// More than this no answer of a registry is.
const ANSWER_BYTES_MAX: usize = 16 << 20;
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
    /// Those of which an event was looked at for the columns of the source.
    looked_at: HashSet<SchemaName>,
    live: Live,
    source: String,
}

struct Registry {
    connection: Option<Connection>,
    session: Option<Session>,
}

impl Schemas {
    pub(super) fn of(reader: &Reader, stream: &StreamSource) -> Schemas {
        let connection = || stream.registered.clone();
        let registry = stream.registry.as_ref().map(|_| Registry { connection: connection(), session: None });
        Schemas {
            registry,
            known: HashMap::new(),
            lacking: HashMap::new(),
            looked_at: HashSet::new(),
            live: reader.node.live.clone(),
            source: reader.source.clone(),
        }
    }

    /// What messages say.
    ///
    /// # Errors
    /// A registry that does not answer, or does not have a schema: all is as before, and may be tried again. What it
    /// lacks for long is left behind, unless it never had any that it was asked for: then it is another one's.
    pub(super) async fn read<'m>(&mut self, messages: &'m [OwnedMessage]) -> Result<Vec<Event<'m>>> {
        if self.registry.is_none() {
            return Ok(messages.iter().map(|message| event(payload(message)?)).collect());
        }
        let framed: Vec<_> = messages.iter().map(framed).collect();
        self.ask_for(framed.iter().flatten().map(|framed| &framed.schema).collect()).await?;
        let read = |framed: &std::result::Result<Framed<'m>, String>| {
            let framed = framed.as_ref().map_err(Clone::clone)?;
            let schema = self.known.get(&framed.schema).ok_or("its schema is not known")?;
            schema.as_ref().map_err(Clone::clone)?.read(framed)
        };
        let events: Vec<Event<'m>> = framed.iter().map(read).collect();
        self.note_columns(&framed, &events);
        Ok(events)
    }

    /// Asks for those of `named` that are not known: all of them, before one that is lacking is waited for.
    async fn ask_for(&mut self, named: BTreeSet<&SchemaName>) -> Result<()> {
        let Some(registry) = &mut self.registry else { return Ok(()) };
        if self.known.len() + named.len() > SCHEMAS_MAX {
            self.known.clear();
            self.looked_at.clear();
        }
        let mut lacking = Vec::new();
        for name in named {
            if self.known.contains_key(name) {
                continue;
            }
            match registry.schema(name).await? {
                Found::Schema(schema) => {
                    self.lacking.remove(name);
                    self.known.insert(name.clone(), schema);
                }
                Found::Nothing(why) => {
                    let since = *self.lacking.entry(name.clone()).or_insert_with(Instant::now);
                    lacking.push((name, why, since));
                }
            }
        }
        let waits = |since: &Instant| self.known.is_empty() || since.elapsed() < PATIENCE;
        if let Some((_, why, _)) = lacking.iter().find(|(_, _, since)| waits(since)) {
            return Err(Error::unavailable("the schema registry").because(why.clone()));
        }
        for (name, why, _) in lacking {
            self.lacking.remove(name);
            self.known.insert(name.clone(), Err(why));
        }
        Ok(())
    }

    /// Says once of each schema which columns of the source it does not have: they are null in all of its events.
    fn note_columns(&mut self, framed: &[std::result::Result<Framed<'_>, String>], events: &[Event<'_>]) {
        let live = self.live.now();
        let Some(source) = live.compiled.catalog.definitions.sources.get(&self.source) else { return };
        for (framed, event) in framed.iter().zip(events) {
            let (Ok(Framed { schema, .. }), Ok(Json::Object(fields))) = (framed, event) else { continue };
            // What is JSON need not have what it could.
            let is_json = matches!(self.known.get(schema), Some(Ok(Schema::Json)));
            if is_json || self.looked_at.contains(schema) {
                continue;
            }
            self.looked_at.insert(schema.clone());
            let is_there = |name: &str| fields.iter().any(|(field, _)| field == name);
            let columns = source.columns.iter().filter(|column| !is_there(&column.name));
            let columns: Vec<String> = columns.map(|column| format!("`{}`", column.name)).collect();
            if !columns.is_empty() {
                let (source, columns) = (&self.source, columns.join(", "));
                tracing::warn!(source, %schema, columns, "columns are null in all events of a schema: it has none of them");
            }
        }
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
        let mut below = Below::of(references(&said)?);
        loop {
            let next = match below.next() {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(Ok(Said { text, kind, below: below.into_texts() })),
                Err(why) => return Ok(Err(why)),
            };
            let found = self.ask(&next.path()).await?;
            let text = found["schema"].as_str().ok_or_else(odd)?.to_owned();
            below.found(next, text, references(&found)?);
        }
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
        let request = session.get(url.clone());
        let request = request.header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        let said = session.said_within(request, ANSWER_BYTES_MAX).await;
        // Where it is asked by nobody it knows, the next one asks anew who that is.
        self.session = said.is_ok().then_some(session);
        // Another path on the same server is what is wrong most often.
        said.and_then(|said| serde_json::from_slice(&said).map_err(|_| odd()))
            .map_err(|refused| Refused { why: format!("`{url}`: {}", refused.why), ..refused })
    }

    fn failed(&self, refused: &Refused) -> Error {
        let name = self.connection.as_ref().map_or("", |connection| connection.name.as_str());
        Error::unavailable("the schema registry").because(format!("connection `{name}`: {}", refused.why))
    }
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
