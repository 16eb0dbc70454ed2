//! What goes over the wire as JSON? Server and clients read and write these same types.
//!
//! Times are RFC 3339 strings, naive ones read as UTC, or whole microseconds since the Unix epoch; replies always
//! give RFC 3339 with `Z`.

mod access;
mod catalogue;
mod error;
mod fits;
mod inference;
mod keys;
mod materialize;
mod online;
mod path;
mod percent;
mod pin;
mod plan;
mod predict;
mod push;
mod ramp;
mod route;
mod status;
mod tables;
mod upkeep;
mod verify;

pub use self::access::{CanReply, CanRequest, Me};
pub use self::catalogue::{
    Catalogue, Checked, ColumnInfo, ConnectionInfo, EntityInfo, FeatureServiceInfo, FeatureViewInfo,
    ModelInfo, ModelVersionInfo,
};
pub use self::error::{Code, ErrorReply, Mistake, REQUEST_ID, RETRY_PUSHBACK_MS};
pub use self::fits::{ColumnFit, InputFit, ModelFit, Trial};
pub use self::inference::{
    ConfigTensor, InferenceConfig, InferenceModel, InferenceServer, InferenceStatistics, Live, ModelReady,
    ModelStatistics, Ready, RepositoryModel, StatisticDuration, TensorInfo, VersionStatistics,
};
pub use self::keys::{KeyInfo, KeyList, KeyState, NewKey, NewKeyRequest, RevokeKeysRequest};
pub use self::materialize::{
    MaterializeLine, MaterializeRequest, Progress, PullSummary, Summary, ViewSummary,
};
pub use self::online::{
    FeatureViewMetadata, OnlineColumn, OnlineFeatures, OnlineFeaturesRequest, OnlineMetadata, Status,
};
pub use self::path::{predict_path, route_path};
pub use self::percent::Percent;
pub use self::pin::{TrainingReport, TrainingSetPin};
pub use self::plan::{
    AccessChange, Action, Break, Change, DefinitionKind, KeyChange, Plan, ProjectRequest, Reason,
    ViewToMaterialize,
};
pub use self::predict::{
    FallbackInfo, FeatureVectors, PredictPart, PredictRequest, Predictions, VERSION_HEADER,
};
pub use self::push::{PushCommand, PushReply, PushRequest, PushTo, Rejected};
pub use self::ramp::{RampRequest, RampState, RampStatus, StopIf};
pub use self::route::{RouteRequest, Routed, Share, percentages};
pub use self::status::{
    Degraded, HeadState, LogStatus, Part, PartitionsStatus, PastError, PredictionsStatus, PullStatus,
    PushedStatus, RunState, RunStatus, ServerInfo, ServerStatus, SourceStatus, StoreStatus, Stores,
    StreamStatus, Trouble, ViewStatus,
};
pub use self::tables::{
    BatchCommand, DEFAULTS, FAILED, FALLBACK_CAUSE, FEATURE_SERVICE, FUNCTIONS, LabelsCommand, LabelsReply,
    LabelsRequest, OUTPUTS, ObjectReads, PredictionsCommand, SERVED_BY, SourceCommand, TRAINING_SET,
    TableNotes, TrainingSetCommand, ViewCommand,
};
pub use self::upkeep::{
    BackupLine, BackupRequest, BackupSummary, Copied, Damaged, ScrubLine, ScrubProgress, ScrubRequest,
    ScrubSummary, SealRequest, Sealed, SealedSource,
};
pub use self::verify::{Cause, FeatureReport, ModelReport, Place, Report, VerifyRequest};

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_push_reads_as_feast_writes_it() {
        let text = r#"{"push_source_name": "landings", "df": {"tailnum": ["N1"], "delay": [1.5]}, "to": "online",
            "allow_registry_cache": true, "transform_on_write": true}"#;
        let request: PushRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.to, PushTo::Online);
        assert_eq!(request.df["delay"], [Value::from(1.5)]);
        let bare: PushRequest =
            serde_json::from_str(r#"{"push_source_name": "landings", "df": {}}"#).unwrap();
        assert!(bare.to.online() && bare.to.offline());
        assert_eq!(bare.idempotency_key, None);
    }

    #[test]
    fn what_is_absent_is_not_written() {
        let reply = PushReply { accepted: 2, rejected: vec![Rejected::default()], ..PushReply::default() };
        assert_eq!(
            serde_json::to_string(&reply).unwrap(),
            r#"{"accepted":2,"repeated":0,"rejected":[{"index":0,"cause":""}]}"#
        );
        let error: ErrorReply = serde_json::from_str(r#"{"error": "later", "code": "overloaded"}"#).unwrap();
        assert_eq!((error.code, error.rejected.len()), (Code::Overloaded, 0));
        assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"error":"later","code":"overloaded"}"#);
        let error = ErrorReply { retry_after_ms: Some(1_000), ..error };
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":"later","code":"overloaded","retry_after_ms":1000}"#
        );
    }
}
