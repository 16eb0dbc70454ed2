//! Which version answers which entity?
//!
//! The sticky columns of an instance and the salt are hashed to a point on a line from 0 to 1, along which the versions
//! have their shares, in the order in which they are declared. So an entity always gets the same version, on every
//! server; and where a share grows, those that had the version keep it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use feature_defs::{DefError, Expr, Model as Declared, suggest};
use quern_engine::key::Keys;
use quern_engine::schema::type_name;

use super::version::LiveVersion;
use crate::error::Result;

/// Which version answers whom, compiled.
#[derive(Debug)]
pub struct Route {
    /// For each version where its share ends; the last end is the sum of all weights.
    ends: Vec<u64>,
    salt: u64,
    /// The places of the sticky columns among the model's inputs.
    sticky: Vec<usize>,
    sticky_schema: SchemaRef,
    /// The places of the versions that get the same requests without answering.
    pub(crate) shadow: Vec<usize>,
}

impl Route {
    pub(crate) fn new(
        declared: &Declared,
        versions: &[Arc<LiveVersion>],
        inputs: &Schema,
        weights: Option<&[(String, u32)]>,
    ) -> std::result::Result<Route, Vec<DefError>> {
        let mut mistakes = Vec::new();
        let Some(route) = &declared.route else {
            // The last version has it all.
            let last = versions.len().saturating_sub(1);
            let ends = (0..versions.len()).map(|place| u64::from(place == last)).collect();
            let sticky_schema = Arc::new(Schema::empty());
            return Ok(Route { ends, salt: 0, sticky: Vec::new(), sticky_schema, shadow: Vec::new() });
        };
        // Of weights that were set, all may be of versions that are gone.
        let answers = |set: &&[(String, u32)]| {
            set.iter()
                .any(|(name, weight)| *weight > 0 && versions.iter().any(|known| known.version == *name))
        };
        let weights = weights.filter(answers).unwrap_or(&route.weights);
        let mut end = 0;
        let ends = versions.iter().map(|version| {
            let weight =
                weights.iter().find(|(name, _)| *name == version.version).map_or(0, |(_, weight)| *weight);
            end += u64::from(weight);
            end
        });
        let ends = ends.collect();
        let sticky = if route.sticky.is_empty() {
            let keys = versions
                .iter()
                .flat_map(|version| version.service.inputs.fields()[..version.service.key_count].iter());
            let mut places: Vec<usize> = keys.filter_map(|key| inputs.index_of(key.name()).ok()).collect();
            places.sort_unstable();
            places.dedup();
            places
        } else {
            sticky(&route.sticky, inputs, &mut mistakes)
        };
        if sticky.is_empty() && mistakes.is_empty() {
            let cause = "no version sticks to anything: the feature services have no join keys";
            mistakes.push(DefError::new(&route.loc, cause).with_help("name request columns under `sticky`"));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let fields = sticky.iter().map(|place| Arc::clone(&inputs.fields()[*place])).collect::<Vec<_>>();
        let shadow = route.shadow.iter().filter_map(|name| versions.iter().position(|v| v.version == *name));
        Ok(Route {
            ends,
            salt: hash(0, route.salt.as_bytes()),
            sticky,
            sticky_schema: Arc::new(Schema::new(fields)),
            shadow: shadow.collect(),
        })
    }

    /// The weight of the version at `place`.
    pub fn weight(&self, place: usize) -> u64 {
        self.ends[place] - if place == 0 { 0 } else { self.ends[place - 1] }
    }

    /// The version that has it all.
    pub(crate) fn only(&self) -> Option<usize> {
        let total = self.ends.last().copied().unwrap_or_default();
        let first = self.ends.iter().position(|end| *end > 0)?;
        (self.ends[first] == total).then_some(first)
    }

    /// The version with the greatest share; the later one of two.
    pub(crate) fn heaviest(&self) -> usize {
        (0..self.ends.len()).max_by_key(|place| self.weight(*place)).unwrap_or_default()
    }

    /// The rows of each version, by its place: those of `inputs`, whose columns are the model's inputs.
    pub(crate) fn assign(&self, inputs: &RecordBatch) -> Result<Vec<(usize, Vec<usize>)>> {
        let rows = inputs.num_rows();
        let columns: Vec<ArrayRef> =
            self.sticky.iter().map(|place| Arc::clone(inputs.column(*place))).collect();
        let keys = Keys::encode(&self.sticky_schema, &columns)?;
        let mut assigned: Vec<Vec<usize>> = vec![Vec::new(); self.ends.len()];
        for row in 0..rows {
            // Without a key there is nobody to stick to, and one version is as good as another.
            assigned[self.place(hash(self.salt, keys.get(row).unwrap_or_default()))].push(row);
        }
        Ok(assigned.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).collect())
    }

    fn place(&self, point: u64) -> usize {
        let total = self.ends.last().copied().unwrap_or_default();
        let at = ((u128::from(point) * u128::from(total)) >> 64) as u64;
        self.ends.partition_point(|end| *end <= at)
    }
}

/// FNV-1a (Fowler, Noll and Vo) with the finalizer of SplitMix64, which spreads what keys that differ little have in
/// common over all bits.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = 0xCBF2_9CE4_8422_2325 ^ seed;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// The places of `columns` among `inputs`; each must be there, and of a type that tells entities apart.
fn sticky(columns: &[Expr], inputs: &Schema, mistakes: &mut Vec<DefError>) -> Vec<usize> {
    let mut places = Vec::new();
    for column in columns {
        match inputs.index_of(&column.sql) {
            Ok(place) => {
                let dtype = inputs.field(place).data_type();
                if dtype.is_floating() || matches!(dtype, DataType::List(_) | DataType::FixedSizeList(_, _)) {
                    let cause =
                        format!("`{}` is {}, which no version sticks to", column.sql, type_name(dtype));
                    mistakes.push(
                        DefError::new(&column.loc, cause)
                            .with_help("name join keys, or texts or whole numbers"),
                    );
                }
                places.push(place);
            }
            Err(_) => {
                let known = inputs.fields().iter().map(|field| field.name().as_str());
                let cause = format!("`{}` is no column that a request brings", column.sql);
                mistakes.push(DefError::new(&column.loc, cause).with_help(suggest(&column.sql, known)));
            }
        }
    }
    places
}
