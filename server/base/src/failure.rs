//! Why could something not be done? A kind, what the caller is told, and a cause for the log.
//!
//! Each crate has an error type of its own, which [`error_type!`](crate::error_type) makes of a [`Failure`]: so it can
//! say how the errors of the libraries that it alone knows are to be understood. The edges map a kind to a status in
//! one `match` each.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

pub use quern_wire::Code as Kind;

/// Anything that explains a failure: a text, or facts that a program can read as well.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// What stands between backticks and is longer is cut, to so many characters.
const QUOTED_BYTES_MAX: usize = 256;
const QUOTED_CHARS_SHOWN: usize = 100;
/// More than this is told to nobody.
const BYTES_MAX: usize = 16 << 10;

/// Why something could not be done.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    what: Cause,
    cause: Option<Cause>,
    /// The same with the values of rows in it, where it met any.
    quoting: Option<String>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// One of this kind; the caller is told `what`.
    pub fn new(kind: Kind, what: impl Into<Cause>) -> Failure {
        Failure { kind, what: what.into(), cause: None, quoting: None, retry_after: None }
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the caller is told. Of a fault of the server's own that is what it was doing; the cause is in its log.
    pub fn said(&self) -> String {
        if self.kind == Kind::Internal && (self.cause.is_some() || self.quoting.is_some()) {
            return format!("the server failed ({}); its log has the cause, by this request's id", self.what);
        }
        in_short(self.what.to_string())
    }

    /// What a log says that many may read: what was to be done and the whole chain of causes, but no value of a row.
    pub fn logged(&self) -> String {
        let mut told = self.what.to_string();
        let mut next = self.cause.as_deref().map(|cause| cause as &dyn StdError);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors tell their own cause already.
            if !told.ends_with(&text) {
                told = format!("{told}: {text}");
            }
            next = cause.source();
        }
        told
    }

    /// What was to be done, without its causes.
    pub fn what(&self) -> &dyn fmt::Display {
        &self.what
    }

    /// The whole of it in words that may quote the values of rows, where it met any.
    pub fn quotes(&self) -> Option<&str> {
        self.quoting.as_deref()
    }

    /// The facts that the caller is told, where they are of this type.
    pub fn facts<F: StdError + 'static>(&self) -> Option<&F> {
        self.what.downcast_ref()
    }

    /// When the same request may be sent again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Notes what caused it.
    pub fn because(mut self, cause: impl Into<Cause>) -> Failure {
        self.cause = Some(cause.into());
        self
    }

    /// Notes when the same request may be sent again.
    pub fn again_after(mut self, time: Duration) -> Failure {
        self.retry_after = Some(time);
        self
    }

    /// Notes the whole of it in words that may quote the values of rows. Neither a caller nor a log at `info` gets
    /// them: they belong to people who never asked.
    pub fn quoting(mut self, whole: impl fmt::Display) -> Failure {
        self.quoting = Some(whole.to_string());
        self
    }

    /// The same failure for who may not know what it is about: they are told `words`, and the log the rest.
    pub fn veiled(self, words: &'static str) -> Failure {
        let whole = self.to_string();
        let (kind, retry_after, cause) = (self.kind, self.retry_after, self.logged());
        Failure { kind, what: words.into(), cause: Some(cause.into()), quoting: Some(whole), retry_after }
    }

    /// The same failure, told in other words.
    pub fn told(mut self, words: impl Fn(&dyn fmt::Display) -> String) -> Failure {
        self.quoting = self.quoting.map(|whole| words(&whole));
        self.what = words(&self.what).into();
        self
    }

    /// The same failure for one more who waits for the same thing.
    pub fn again(&self) -> Failure {
        Failure {
            kind: self.kind,
            what: self.what.to_string().into(),
            cause: self.cause.as_ref().map(|cause| cause.to_string().into()),
            quoting: self.quoting.clone(),
            retry_after: self.retry_after,
        }
    }
}

/// A disk that takes nothing more, for now or for this user, is no fault of the server's: there will be room again.
pub const DISK_FULL: &str = "the disk takes no writes; the data folder needs room, or the right to write";

/// A disk that fails is no fault of the server's either. What has met it may take nothing more.
pub const DISK_FAILS: &str = "the disk fails, or did: once it works (the system's log says), restart the server where this is said still";

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | ReadOnlyFilesystem => {
                Failure::new(Kind::Unavailable, DISK_FULL).because(error).again_after(Duration::from_secs(1))
            }
            _ => Failure::new(Kind::Internal, "reading or writing a file").because(error),
        }
    }
}

/// All that is known, the values of rows included: for a log that is asked for it, and for who owns the machine.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.quoting {
            Some(whole) => f.write_str(whole),
            None => f.write_str(&self.logged()),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &dyn StdError)
    }
}

/// A text without most of what stands in it that is longer than anybody reads: the names that a request brings are as
/// long as its body may be.
fn in_short(text: String) -> String {
    if text.len() <= QUOTED_BYTES_MAX {
        return text;
    }
    let cut = |(place, part): (usize, &str)| {
        let (max, shown) =
            if place % 2 == 1 { (QUOTED_BYTES_MAX, QUOTED_CHARS_SHOWN) } else { (BYTES_MAX, BYTES_MAX) };
        match part.len() > max {
            true => part.chars().take(shown).chain(['…']).collect(),
            false => part.to_owned(),
        }
    };
    let mut short = text.split('`').enumerate().map(cut).collect::<Vec<_>>().join("`");
    if short.len() > BYTES_MAX {
        short.truncate(short.floor_char_boundary(BYTES_MAX));
        short.push('…');
    }
    short
}

/// Makes the error type of a crate: a [`Failure`] on the heap, so that a `Result` stays small.
///
/// ```
/// quern_base::error_type! {
///     /// Why a file could not be read.
///     pub struct Error;
/// }
///
/// let error = Error::unavailable("the file is locked").because("by process 7");
/// assert_eq!(error.kind(), quern_base::Kind::Unavailable);
/// assert_eq!(error.said(), "the file is locked");
/// assert_eq!(error.to_string(), "the file is locked: by process 7");
/// ```
#[macro_export]
macro_rules! error_type {
    ($(#[$doc:meta])* $vis:vis struct $Error:ident;) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $Error(Box<$crate::Failure>);

        #[allow(dead_code, missing_docs, unreachable_pub, reason = "the same constructors everywhere, named after the kinds")]
        impl $Error {
            pub fn invalid(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::InvalidArgument, what).into()
            }

            pub fn unauthenticated(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::Unauthenticated, what).into()
            }

            pub fn forbidden(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::Forbidden, what).into()
            }

            pub fn not_found(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::NotFound, what).into()
            }

            pub fn refused(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::Refused, what).into()
            }

            pub fn too_large(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::TooLarge, what).into()
            }

            /// More than can be taken now: the same may be sent again after a second.
            pub fn overloaded(what: impl Into<$crate::Cause>) -> Self {
                let failure = $crate::Failure::new($crate::Kind::Overloaded, what);
                failure.again_after(std::time::Duration::from_secs(1)).into()
            }

            pub fn late(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::Late, what).into()
            }

            pub fn unavailable(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::Unavailable, what).into()
            }

            /// Not at this moment, and nothing was done: the same may be sent again after a second.
            pub fn busy(what: impl Into<$crate::Cause>) -> Self {
                let failure = $crate::Failure::new($crate::Kind::Unavailable, what);
                failure.again_after(std::time::Duration::from_secs(1)).into()
            }

            /// A fault of the server or of what it stands on, in doing `what`.
            pub fn internal(what: impl Into<$crate::Cause>, cause: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::Internal, what).because(cause).into()
            }

            /// Something that cannot be has happened; `what` is all there is to say.
            pub fn broken(what: impl Into<$crate::Cause>) -> Self {
                $crate::Failure::new($crate::Kind::Internal, what).into()
            }

            /// Notes what caused it, for the log.
            pub fn because(self, cause: impl Into<$crate::Cause>) -> Self {
                self.0.because(cause).into()
            }

            /// Notes the whole of it in words that may quote the values of rows, which no caller gets.
            pub fn quoting(self, whole: impl std::fmt::Display) -> Self {
                self.0.quoting(whole).into()
            }

            /// The same failure for who may not know what it is about.
            pub fn veiled(self, words: &'static str) -> Self {
                let failure: $crate::Failure = self.into();
                failure.veiled(words).into()
            }

            /// The same failure, told in other words.
            pub fn told(self, words: impl Fn(&dyn std::fmt::Display) -> String) -> Self {
                self.0.told(words).into()
            }
        }

        impl From<$crate::Failure> for $Error {
            fn from(failure: $crate::Failure) -> Self {
                $Error(Box::new(failure))
            }
        }

        impl From<$Error> for $crate::Failure {
            fn from(error: $Error) -> Self {
                *error.0
            }
        }

        impl std::ops::Deref for $Error {
            type Target = $crate::Failure;

            fn deref(&self) -> &$crate::Failure {
                &self.0
            }
        }

        impl std::fmt::Display for $Error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::error::Error for $Error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.0.source()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_for_the_log() {
        let failure = Failure::new(Kind::Internal, "reading a table").because("disk 7 is on fire");
        assert_eq!(failure.to_string(), "reading a table: disk 7 is on fire");
        assert!(
            failure.said().contains("reading a table") && !failure.said().contains("disk"),
            "{}",
            failure.said()
        );
        let busy = Failure::new(Kind::Overloaded, "7 rows wait").again_after(Duration::from_secs(2));
        let other = busy.again();
        assert_eq!((other.kind(), other.retry_after()), (Kind::Overloaded, Some(Duration::from_secs(2))));
        assert_eq!(busy.told(|what| format!("in row 3: {what}")).said(), "in row 3: 7 rows wait");
    }

    crate::error_type! {
        struct Error;
    }

    #[test]
    fn values_are_for_those_who_own_them() {
        let error = Error::internal("running a model", "its node `Gather` fails").quoting("idx=987654321");
        let error = error.told(|what| format!("in row 3: {what}"));
        let all = [error.said(), error.logged(), error.again().said(), error.again().logged()];
        assert!(
            all.iter().all(|told| told.contains("running a model") && !told.contains("987654321")),
            "{all:?}"
        );
        assert!(error.logged().ends_with("its node `Gather` fails"), "{}", error.logged());
        assert_eq!((error.to_string(), error.again().to_string()), twice("in row 3: idx=987654321"));
        let refused = Error::invalid("a cell is no int64").quoting("`S3CRET` is no int64");
        assert_eq!((refused.said(), refused.logged()), twice("a cell is no int64"));
    }

    fn twice(text: &str) -> (String, String) {
        (text.to_owned(), text.to_owned())
    }

    #[test]
    fn who_did_nothing_says_when_to_come_again() {
        let busy = Error::busy("another server pushed in between");
        assert_eq!((busy.kind(), busy.retry_after()), (Kind::Unavailable, Some(Duration::from_secs(1))));
        assert_eq!(Error::unavailable("the disk is gone").retry_after(), None);
    }

    #[test]
    fn a_full_disk_is_worth_another_try() {
        let full = Failure::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!((full.kind(), full.retry_after()), (Kind::Unavailable, Some(Duration::from_secs(1))));
        let lost = Failure::from(std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!((lost.kind(), lost.retry_after()), (Kind::Internal, None));
    }

    #[test]
    fn facts_stay_facts() {
        let number = "x".parse::<i32>().unwrap_err();
        let failure = Failure::new(Kind::InvalidArgument, number.clone());
        assert_eq!(failure.facts(), Some(&number));
        assert!(failure.facts::<std::fmt::Error>().is_none());
    }
}
