//! Which features does a model get?

use std::collections::BTreeMap;

use super::column::{Column, Expr, Feature};
use super::role::Governance;
use crate::error::Loc;

/// The features that one model (version) is trained on and served with.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureService {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Columns that the request brings.
    pub request: Vec<Column>,
    /// Views joined, in order.
    pub projections: Vec<Projection>,
    /// Expressions over join keys, `event_timestamp`, request columns, features and other derived features.
    pub derived: Vec<Feature>,
    /// What leaves, in order, each the bare name of a column; absent: every feature as listed, then every
    /// derived one.
    pub outputs: Option<Vec<Expr>>,
    /// Whose it is.
    pub governance: Governance,
    /// Where it is declared.
    pub loc: Loc,
}

/// One view as a feature service joins it.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// Name of the view.
    pub view: String,
    /// Prefixes the output columns (`alias__feature`), so that a view can be joined twice.
    pub alias: Option<String>,
    /// Join key of the view → column of the spine or request, where the two differ.
    pub keys: BTreeMap<String, String>,
    /// The columns of the spine or request that hold the `event_id` of an event that does not count; empty where all
    /// do.
    pub exclude_event: Vec<Expr>,
    /// The features taken, in order; all are named here even where the YAML names none.
    pub features: Vec<String>,
    /// Where it is declared.
    pub loc: Loc,
}

impl Projection {
    /// The name under which `feature` leaves the service.
    pub fn output_name(&self, feature: &str) -> String {
        match &self.alias {
            Some(alias) => format!("{alias}__{feature}"),
            None => feature.to_owned(),
        }
    }
}
