//! What is a column: declared, computed, or constant?

use std::fmt;

use crate::dtype::Type;
use crate::epoch::Epoch;
use crate::error::Loc;
use crate::stored::Stored;

/// A named, typed column: a join key, a request column or a column of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Column name.
    pub name: String,
    /// Column type.
    pub dtype: Type,
    /// Stands in for null in a model input that has no NaN. Only request columns have one.
    pub default: Option<Literal>,
    /// What a number in it counts since 1970. Only columns of sources that are times have one.
    pub format: Option<Epoch>,
    /// What files hold in place of its type. Only columns of sources have it.
    pub from: Option<Stored>,
    /// Where it is declared.
    pub loc: Loc,
}

/// A SQL expression and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// SQL text.
    pub sql: String,
    /// Where it is declared.
    pub loc: Loc,
}

/// One feature: of a view (over source columns) or derived (over the columns of a feature service).
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Name, unique in its view or service.
    pub name: String,
    /// For people.
    pub description: String,
    /// SQL; a view's feature without one is the source column of the same name.
    pub expr: Expr,
    /// Declared type: the expression is cast to it. Absent: the expression's own type.
    pub dtype: Option<Type>,
    /// Stands in for null in a model input that has no NaN.
    pub default: Option<Literal>,
    /// Whether a value that cannot be computed is an error; else it is null.
    pub strict: bool,
    /// Where it is declared.
    pub loc: Loc,
}

/// A constant of the language.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// Constants of one type; none of them is a list.
    List(Vec<Literal>),
}

impl Literal {
    /// Whether no number in it is infinite or NaN.
    pub(crate) fn is_finite(&self) -> bool {
        match self {
            Literal::Float(value) => value.is_finite(),
            Literal::List(items) => items.iter().all(Literal::is_finite),
            Literal::Bool(_) | Literal::Int(_) | Literal::String(_) => true,
        }
    }
}

/// As it is written in a definition, a text in quotes.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::Int(value) => write!(f, "{value}"),
            Literal::Float(value) => write!(f, "{value:?}"),
            Literal::String(value) => write!(f, "{value:?}"),
            Literal::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
        }
    }
}
