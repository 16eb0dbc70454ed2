//! What can be asked over HTTP, for programs? `GET /openapi.json`, an OpenAPI 3.1 description, made of the very types
//! that are read and written.

mod calls;
mod schemas;

use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use quern_server::Node;
use quern_server::settings::Auth;
use quern_wire::{ErrorReply, REQUEST_ID, VERSION_HEADER};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use self::calls::{Call, JSON, calls};

/// The description, for who is known.
pub(super) async fn openapi(State(node): State<Arc<Node>>) -> Response {
    static ASKED: LazyLock<Bytes> = LazyLock::new(|| description(Auth::Required).to_string().into());
    static OPEN: LazyLock<Bytes> = LazyLock::new(|| description(Auth::None).to_string().into());
    let text = match node.settings.auth() {
        Auth::None => OPEN.clone(),
        Auth::Required => ASKED.clone(),
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(JSON))], text).into_response()
}

/// What a server says whose callers must say who they are, or need not.
fn description(auth: Auth) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut requests = settings.clone().for_deserialize().into_generator();
    let mut replies = settings.for_serialize().into_generator();
    let (mut paths, mut refusals) = (Map::new(), Map::new());
    for call in calls() {
        let operation = operation(&call, (&mut requests, &mut replies));
        for status in call.refuses.keys() {
            let schema = json!({"schema": replies.subschema_for::<ErrorReply>()});
            refusals.insert(status.to_string(), reply(meaning(*status), json!({JSON: schema})));
        }
        let path = paths.entry(call.path.clone()).or_insert_with(|| json!({}));
        path[call.method] = operation;
    }
    let mut schemas = requests.take_definitions(true);
    schemas.extend(replies.take_definitions(true));
    // Who need not say who they are may all the same, and what does not hold is refused.
    let nobody = matches!(auth, Auth::None).then(|| json!({}));
    let ways = [json!({"bearer": []}), json!({"apiKey": []}), json!({"mutualTLS": []})];
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Quern",
            "summary": "A feature store that serves models",
            "description": "What is asked over gRPC and Arrow Flight, on the same port, is described elsewhere.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": nobody.into_iter().chain(ways).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": refusals,
            "headers": {"request-id": {
                "description": "What the request is called, in the server's log too.",
                "schema": {"type": "string"},
            }},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of an issuer."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "mutualTLS": {"type": "mutualTLS"},
            },
        },
    })
}

fn operation(call: &Call, (requests, replies): (&mut SchemaGenerator, &mut SchemaGenerator)) -> Value {
    let mut responses = Map::new();
    let mut given = Map::new();
    for (media, schema) in &call.gives {
        let schema = schema.map_or_else(|| json!({}), |schema| json!({"schema": schema(replies)}));
        given.insert((*media).to_owned(), schema);
    }
    if !given.is_empty() {
        responses.insert("200".to_owned(), reply(call.summary, given.into()));
    }
    if let Some(status) = call.succeeds {
        responses.insert(status.to_string(), reply(call.summary, json!({})));
    }
    for (status, schema) in &call.refuses {
        let said = match schema {
            None => json!({"$ref": format!("#/components/responses/{status}")}),
            Some(schema) => reply(meaning(*status), json!({JSON: {"schema": schema(replies)}})),
        };
        responses.insert(status.to_string(), said);
    }
    let mut operation = json!({
        "operationId": name_of(call),
        "tags": [call.group],
        "summary": call.summary,
        "parameters": parameters(call),
        "responses": responses,
    });
    if let Some((schema, required)) = call.takes {
        let content = json!({JSON: {"schema": schema(requests)}});
        operation["requestBody"] = json!({"required": required, "content": content});
    }
    if call.is_open {
        operation["security"] = json!([{}]);
    }
    operation
}

fn reply(description: &str, content: Value) -> Value {
    let named = json!({REQUEST_ID: {"$ref": "#/components/headers/request-id"}});
    json!({"description": description, "headers": named, "content": content})
}

/// A name for programs that are made of the description: `post_v1_models_model_predict`.
fn name_of(call: &Call) -> String {
    let words =
        call.path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let same = if call.path.len() > 1 && call.path.ends_with('/') { Some("slash") } else { None };
    [call.method].into_iter().chain(words).chain(same).collect::<Vec<_>>().join("_")
}

fn parameters(call: &Call) -> Vec<Value> {
    let names = call.path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let in_path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}});
    let in_header = |name: &str, schema: Value, description: &str| json!({"name": name, "in": "header", "description": description, "schema": schema});
    let mut parameters: Vec<Value> = names.map(in_path).collect();
    if call.has_terms {
        let millis = json!({"type": "integer", "minimum": 0});
        parameters.push(in_header("x-request-timeout-ms", millis, "For how long somebody waits."));
        let names = json!({"enum": ["interactive", "batch"]});
        parameters.push(in_header("x-priority", names, "Who goes first where not all can."));
    }
    if call.has_to {
        let schema = json!({"type": "string", "default": "/"});
        let description = "The path of this server where they go on.";
        parameters.push(json!({"name": "to", "in": "query", "description": description, "schema": schema}));
    }
    if call.path.ends_with(":predict") {
        let text = json!({"type": "string"});
        parameters.push(in_header(VERSION_HEADER, text, "The version that is to answer."));
    }
    parameters
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is wrong.",
        401 => "Who asks has not said who they are, or it does not hold.",
        403 => "Who asks may not do this, or is a web page.",
        404 => "There is no such thing, or none for who asks.",
        408 => "The request did not come in time.",
        409 => "It would do harm, or is not how it is done here.",
        413 => "It is larger than the server takes.",
        415 => "The body is compressed in a way that is not read.",
        422 => "Definitions have mistakes.",
        429 => "No room at the moment: try again later.",
        499 => "The client has gone.",
        503 => "Not now: a part that it needs is away.",
        504 => "The deadline passed before the answer was there.",
        _ => "A fault of the server; its log says more.",
    }
}
