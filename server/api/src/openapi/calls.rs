//! Which operations are there, and what does each take and give?

use std::collections::BTreeMap;

use quern_wire::{
    BackupLine, BackupRequest, CanReply, CanRequest, Catalogue, Checked, InferenceConfig, InferenceModel,
    InferenceServer, KeyList, LabelsReply, LabelsRequest, Live, MaterializeLine, MaterializeRequest, Me,
    ModelReady, ModelStatistics, NewKey, NewKeyRequest, OnlineFeatures, OnlineFeaturesRequest, Plan,
    ProjectRequest, PushReply, PushRequest, Ready, Report, RepositoryModel, RevokeKeysRequest, RouteRequest,
    Routed, ScrubLine, ScrubRequest, SealRequest, Sealed, ServerStatus, VerifyRequest,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::schemas::{
    Anything, InferReply, InferRequest, ModelMetadata, ModelNotReady, ModelStatus, NotReady, PredictBody,
    Predicted, WriteToOnlineStore,
};

/// The schema of a type, and of what it names.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

pub(super) const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const BYTES: &str = "application/octet-stream";

/// What any request may be told: `Host` twice, nobody known, a web page, another compression, too many, a fault of
/// ours, an issuer or an audit that is away.
const ALWAYS: [u16; 7] = [400, 401, 403, 415, 429, 500, 503];
/// What is told besides to who sends a body: it does not come, is too large, or breaks off.
const OF_A_BODY: [u16; 3] = [408, 413, 499];

/// An operation.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) group: &'static str,
    pub(super) summary: &'static str,
    /// Whether it answers whoever asks.
    pub(super) is_open: bool,
    /// Whether deadline and priority may be said.
    pub(super) has_terms: bool,
    /// Whether a query may say where one is led to.
    pub(super) has_to: bool,
    /// The status of a success without a body.
    pub(super) succeeds: Option<u16>,
    /// The body, and whether there must be one.
    pub(super) takes: Option<(SchemaOf, bool)>,
    /// The success, by media type.
    pub(super) gives: Vec<(&'static str, Option<SchemaOf>)>,
    /// The other statuses, with what says so where it is not an [`ErrorReply`](quern_wire::ErrorReply) alone.
    pub(super) refuses: BTreeMap<u16, Option<SchemaOf>>,
}

impl Call {
    fn takes<T: JsonSchema>(mut self) -> Call {
        self.takes = Some((schema_of::<T>, true));
        self.refuses(&OF_A_BODY)
    }

    fn may_take<T: JsonSchema>(mut self) -> Call {
        self.takes = Some((schema_of::<T>, false));
        self.refuses(&OF_A_BODY)
    }

    fn gives<T: JsonSchema>(mut self) -> Call {
        self.gives.push((JSON, Some(schema_of::<T>)));
        self
    }

    fn gives_lines<T: JsonSchema>(mut self) -> Call {
        self.gives.push((LINES, Some(schema_of::<T>)));
        self
    }

    fn gives_raw(mut self, media: &'static str) -> Call {
        self.gives.push((media, None));
        self
    }

    fn refuses(mut self, statuses: &[u16]) -> Call {
        self.refuses.extend(statuses.iter().map(|status| (*status, None)));
        self
    }

    fn refuses_with<T: JsonSchema>(mut self, status: u16) -> Call {
        self.refuses.insert(status, Some(schema_of::<T>));
        self
    }

    fn open(mut self) -> Call {
        self.is_open = true;
        self
    }

    fn leads_to(mut self) -> Call {
        self.has_to = true;
        self
    }

    fn succeeds(mut self, status: u16) -> Call {
        self.succeeds = Some(status);
        self
    }

    fn with_terms(mut self) -> Call {
        self.has_terms = true;
        self.refuses(&[504])
    }
}

fn call(group: &'static str, method: &'static str, path: &str, summary: &'static str) -> Call {
    let call = Call {
        method,
        path: path.to_owned(),
        group,
        summary,
        is_open: false,
        has_terms: false,
        has_to: false,
        succeeds: None,
        takes: None,
        gives: Vec::new(),
        refuses: BTreeMap::new(),
    };
    call.refuses(&ALWAYS)
}

/// All of them.
pub(super) fn calls() -> Vec<Call> {
    [server(), features(), serving(), inference("/v2/models/{model}"), of_models(), definitions(), upkeep()]
        .into_iter()
        .chain([inference("/v2/models/{model}/versions/{version}"), keys(), people()])
        .flatten()
        .collect()
}

fn server() -> Vec<Call> {
    let get = |path, summary| call("server", "get", path, summary);
    vec![
        get("/", "What this is, for people").gives_raw("text/plain; charset=utf-8"),
        get("/openapi.json", "This description").gives::<Anything>(),
        get("/health", "Whether look-ups are answered, as Feast's server says it")
            .open()
            .gives::<Ready>()
            .refuses_with::<NotReady>(503),
        get("/v2/health/live", "Whether the process lives").open().gives::<Live>(),
        get("/v2/health/ready", "Whether look-ups are answered")
            .open()
            .gives::<Ready>()
            .refuses_with::<NotReady>(503),
        get("/v1/me", "Who asks").gives::<Me>(),
        get("/v1/status", "How the server is").gives::<ServerStatus>(),
        get("/metrics", "What was counted, for Prometheus")
            .gives_raw("text/plain; version=0.0.4; charset=utf-8"),
    ]
}

fn features() -> Vec<Call> {
    let post = |path, summary| call("features", "post", path, summary);
    vec![
        post("/get-online-features", "Looks features up, as Feast's feature server does")
            .takes::<OnlineFeaturesRequest>()
            .gives::<OnlineFeatures>()
            .refuses(&[404, 409, 504]),
        post("/push", "Pushes rows to a source, as Feast's feature server takes them")
            .takes::<PushRequest>()
            .gives::<PushReply>()
            .refuses(&[404, 409]),
        post("/write-to-online-store", "Pushes rows to the online store alone, for one feature view")
            .takes::<WriteToOnlineStore>()
            .gives::<PushReply>()
            .refuses(&[404, 409]),
    ]
}

fn serving() -> Vec<Call> {
    let model = "/v1/models/{model}";
    let predict = |path, summary| {
        call("TensorFlow Serving", "post", path, summary)
            .with_terms()
            .takes::<PredictBody>()
            .gives::<Predicted>()
            .refuses(&[404, 409])
    };
    let get = |path, summary| call("TensorFlow Serving", "get", path, summary).refuses(&[404]);
    vec![
        predict("/v1/models/{model}:predict", "Predicts, by whichever version the model's route says"),
        predict("/v1/models/{model}/versions/{version}:predict", "Predicts, by one version"),
        get(model, "The state of a model's versions").gives::<ModelStatus>(),
        get("/v1/models/{model}/versions/{version}", "The state of one version").gives::<ModelStatus>(),
        get("/v1/models/{model}/metadata", "What a model takes and gives").gives::<ModelMetadata>(),
        get("/v1/models/{model}/versions/{version}/metadata", "What a version takes and gives")
            .gives::<ModelMetadata>(),
    ]
}

/// What is asked of a model, or of a version of it.
fn inference(of: &str) -> Vec<Call> {
    let ask = |method, rest: &str, summary| {
        call("Open Inference Protocol", method, &format!("{of}{rest}"), summary).refuses(&[404])
    };
    let get = |rest, summary| ask("get", rest, summary);
    vec![
        get("", "What a model takes and gives").gives::<InferenceModel>(),
        get("/ready", "Whether a model answers").gives::<ModelReady>().refuses_with::<ModelNotReady>(503),
        get("/config", "What a model takes and gives, in Triton's words").gives::<InferenceConfig>(),
        get("/stats", "What versions have been asked").gives::<ModelStatistics>(),
        ask("post", "/infer", "Predicts")
            .with_terms()
            .takes::<InferRequest>()
            .gives::<InferReply>()
            .gives_raw(BYTES)
            .refuses(&[409]),
    ]
}

fn of_models() -> Vec<Call> {
    let get = |path, summary| call("Open Inference Protocol", "get", path, summary);
    let post = |path, summary| call("Open Inference Protocol", "post", path, summary);
    vec![
        get("/v2", "What the server calls itself").gives::<InferenceServer>(),
        get("/v2/", "The same").gives::<InferenceServer>(),
        get("/v2/models/stats", "What versions of all models have been asked").gives::<ModelStatistics>(),
        post("/v2/repository/index", "Every model and version").gives::<Vec<RepositoryModel>>(),
        post("/v2/repository/models/{model}/load", "Is refused: definitions are applied").refuses(&[409]),
        post("/v2/repository/models/{model}/unload", "Is refused: definitions are applied").refuses(&[409]),
    ]
}

fn definitions() -> Vec<Call> {
    let get = |path, summary| call("definitions", "get", path, summary);
    let post = |path, summary| call("definitions", "post", path, summary);
    vec![
        get("/v1/definitions", "What is live").gives::<Catalogue>(),
        post("/v1/check", "Checks the definitions of a project")
            .with_terms()
            .may_take::<ProjectRequest>()
            .gives::<Checked>()
            .refuses(&[404, 409, 422]),
        post("/v1/plan", "Says what an apply would change")
            .with_terms()
            .may_take::<ProjectRequest>()
            .gives::<Plan>()
            .refuses(&[404, 409, 422]),
        post("/v1/apply", "Makes the definitions of a project live")
            .with_terms()
            .may_take::<ProjectRequest>()
            .gives::<Plan>()
            .refuses(&[404, 409, 422]),
        post("/v1/can", "Says whether somebody may do something")
            .takes::<CanRequest>()
            .gives::<CanReply>()
            .refuses(&[404]),
        post("/v1/models/{model}:route", "Changes which version answers whom")
            .may_take::<RouteRequest>()
            .gives::<Routed>()
            .refuses(&[404, 409]),
    ]
}

fn upkeep() -> Vec<Call> {
    let post = |path, summary| call("operations", "post", path, summary).refuses(&[404, 409]);
    vec![
        post("/v1/materialize", "Brings the head up to date, and says line by line how far it is")
            .may_take::<MaterializeRequest>()
            .gives_lines::<MaterializeLine>(),
        post("/v1/seal", "Writes pushed rows into segments").may_take::<SealRequest>().gives::<Sealed>(),
        post("/v1/scrub", "Reads all that is kept, and says line by line what is damaged")
            .may_take::<ScrubRequest>()
            .gives_lines::<ScrubLine>(),
        post("/v1/backup", "Copies all that counts, and says line by line how far it is")
            .takes::<BackupRequest>()
            .gives_lines::<BackupLine>(),
        post("/v1/verify", "Compares logged predictions with history")
            .may_take::<VerifyRequest>()
            .gives::<Report>(),
        post("/v1/labels", "Says what came true of predictions")
            .takes::<LabelsRequest>()
            .gives::<LabelsReply>(),
    ]
}

fn keys() -> Vec<Call> {
    let post = |path, summary| call("keys", "post", path, summary);
    vec![
        call("keys", "get", "/v1/keys", "All API keys, without their secrets").gives::<KeyList>(),
        post("/v1/keys", "Makes an API key, and shows it this once")
            .takes::<NewKeyRequest>()
            .gives::<NewKey>()
            .refuses(&[409]),
        post("/v1/keys/revoke", "Revokes API keys")
            .takes::<RevokeKeysRequest>()
            .gives::<KeyList>()
            .refuses(&[404]),
    ]
}

/// People in a browser, where they sign in.
fn people() -> Vec<Call> {
    let call = |method, path, summary| call("people", method, path, summary).open().refuses(&[404]);
    vec![
        call("get", "/login", "Sends a person to the issuer that they sign in at").leads_to().succeeds(302),
        call("get", "/login/callback", "Takes a person back who has signed in, and leads them on")
            .gives_raw("text/html; charset=utf-8")
            .refuses(&[413]),
        call("post", "/logout", "Signs a person out in this browser").succeeds(204),
    ]
}
