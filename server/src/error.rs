//! What went wrong, in the caller's words?

use arrow::error::ArrowError;
use feature_defs::DefError;
use quern_base::Failure;
pub use quern_base::Kind;
use quern_engine::EngineError;
use quern_wire::Rejected;

quern_base::error_type! {
    /// Every error of the server. The edges map its kind to HTTP, gRPC and exit codes in one `match` each.
    pub struct Error;
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// The mistakes in definitions: all of them.
#[derive(Debug)]
pub struct Mistakes(pub Vec<DefError>);

impl std::fmt::Display for Mistakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mistakes: Vec<String> = self.0.iter().map(DefError::to_string).collect();
        f.write_str(&mistakes.join("\n"))?;
        if self.0.len() > 1 { write!(f, "\n{} mistakes", self.0.len()) } else { Ok(()) }
    }
}

impl std::error::Error for Mistakes {}

/// So many mistakes are told at a time.
const MISTAKES_MAX: usize = 1_000;

/// The rows of a push of which none was taken: for each why.
#[derive(Debug)]
pub struct NoneTaken(pub Vec<Rejected>);

impl std::fmt::Display for NoneTaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(first) = self.0.first() else { return f.write_str("no row was taken") };
        let column = first.column.as_ref().map(|column| format!(", column `{column}`")).unwrap_or_default();
        let (rows, index, cause) = (self.0.len(), first.index, &first.cause);
        write!(f, "none of the {rows} rows was taken; row {index}{column}: {cause}")
    }
}

impl std::error::Error for NoneTaken {}

/// What was read of the stream of this source does not begin where reading ended: somebody has read on in between.
#[derive(Debug)]
pub struct ReadOn(pub String);

impl std::fmt::Display for ReadOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the stream of source `{}` was read on already", self.0)
    }
}

impl std::error::Error for ReadOn {}

impl Error {
    /// The definitions have these mistakes; of very many the first are told.
    pub fn definitions(mut mistakes: Vec<DefError>) -> Error {
        if let Some(next) = mistakes.get(MISTAKES_MAX) {
            let rest = mistakes.len() - MISTAKES_MAX;
            let more = DefError::new(&next.loc, format!("from here on there are {rest} more mistakes"));
            mistakes.truncate(MISTAKES_MAX);
            mistakes.push(more);
        }
        Failure::new(Kind::Definitions, Mistakes(mistakes)).into()
    }

    /// No row of a push was taken.
    pub fn none_taken(rejected: Vec<Rejected>) -> Error {
        Failure::new(Kind::InvalidArgument, NoneTaken(rejected)).into()
    }

    /// Somebody has read on in the stream of `source`.
    pub fn read_on(source: &str) -> Error {
        Failure::new(Kind::Refused, ReadOn(source.to_owned())).into()
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Failure::new(quern_features::kind_of(&error), error.told()).quoting(error).into()
    }
}

impl From<quern_features::Error> for Error {
    fn from(error: quern_features::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<quern_identity::Error> for Error {
    fn from(error: quern_identity::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<quern_inference::Error> for Error {
    fn from(error: quern_inference::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        match error {
            // The bytes of a column are counted in 31 bits.
            ArrowError::OffsetOverflowError(_) => Error::too_large(
                "a column of all these rows would hold more than 2 GiB; send fewer at a time",
            ),
            error => Error::broken("computing with Arrow").quoting(error),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        quern_base::Failure::from(error).into()
    }
}

impl From<quern_warehouse::Error> for Error {
    fn from(error: quern_warehouse::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<quern_store::Error> for Error {
    fn from(error: quern_store::Error) -> Self {
        Failure::from(error).into()
    }
}
