//! Where does a table go that leaves Quern? Into a file, an object of a bucket, or a table of Delta Lake.
//!
//! Whoever asks for it writes there, with rights of their own: a file wherever they may, a bucket through the
//! connections that their repository declares. A server writes nothing where somebody says.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf, absolute};

use arrow::datatypes::SchemaRef;
use feature_defs::Connection;
use quern_store::history::TableAt;
pub use quern_store::history::{DeltaWriter, Mode};
use quern_store::objects::{Bucket, Location};

use crate::error::{Error, Result};
use crate::repository;
use crate::settings::Settings;

/// Where a table goes.
#[derive(Debug)]
pub enum Destination {
    /// Into a file.
    File(PathBuf),
    /// Into an object.
    Object(Box<Object>),
    /// Into a table of Delta Lake.
    Delta(Delta),
}

/// An object of a bucket.
#[derive(Debug)]
pub struct Object {
    location: Location,
    bucket: Bucket,
    name: String,
}

/// A table of Delta Lake.
#[derive(Debug)]
pub struct Delta(TableAt);

impl Destination {
    /// What `to` says, a path or a URL to which a connection of the repository leads.
    ///
    /// # Errors
    /// Where none does, or it is no URL.
    pub fn file(settings: &Settings, to: &str) -> Result<Destination> {
        if !to.contains("://") {
            return Ok(Destination::File(absolute(to)?));
        }
        let connection = leading_to(settings, to)?;
        let location = Location::parse(to).map_err(Error::invalid)?.through(connection.storage);
        let (folder, name) = location.split();
        let object = Object { location, bucket: Bucket::open(folder)?, name };
        Ok(Destination::Object(Box::new(object)))
    }

    /// The same of the folder of a table of Delta Lake.
    ///
    /// # Errors
    /// As [`Destination::file`].
    pub fn delta(settings: &Settings, to: &str) -> Result<Destination> {
        if !to.contains("://") {
            return Ok(Destination::Delta(Delta(TableAt::Folder(absolute(to)?))));
        }
        let connection = leading_to(settings, to)?;
        let location = Location::parse_folder(to.trim_end_matches('/')).map_err(Error::invalid)?;
        let location = location.through(connection.storage.clone());
        Ok(Destination::Delta(Delta(TableAt::Bucket(location, Box::new(connection)))))
    }
}

/// The connection of the repository that leads there.
fn leading_to(settings: &Settings, url: &str) -> Result<Connection> {
    let mut files = Vec::new();
    for project in settings.projects() {
        files.extend(repository::read(settings, &project.name)?.files);
    }
    let definitions = feature_defs::parse(&files).map_err(Error::definitions)?;
    let found = definitions.leading_to(&settings.applies, url);
    found.cloned().map_err(|error| {
        let help = error.help.map(|help| format!("; {help}")).unwrap_or_default();
        Error::invalid(error.cause + &help)
    })
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.location)
    }
}

impl Object {
    /// Whether there is one.
    ///
    /// # Errors
    /// Where the store does not answer, or not us.
    pub async fn exists(&self) -> Result<bool> {
        Ok(self.bucket.head(&self.name).await?.is_some())
    }

    /// Makes it of a file: it is there once it is whole.
    ///
    /// # Errors
    /// As [`Object::exists`].
    pub async fn send(&self, file: &Path) -> Result<()> {
        let bytes = fs::metadata(file)?.len();
        Ok(self.bucket.replace(&self.name, &mut File::open(file)?, bytes).await?)
    }
}

impl Delta {
    /// Up to when it has the rows of `of`, as an export had it remember. Waits for disks and stores: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// As [`DeltaWriter::noted`].
    pub fn noted(&self, of: &str, scratch: &Path) -> Result<Option<i64>> {
        Ok(DeltaWriter::noted(&self.0, of, scratch)?)
    }

    /// Begins a version of it with rows of `schema`; a file that is to be sent lies in `scratch` meanwhile. Waits for
    /// disks and stores: call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`DeltaWriter::begin`].
    pub fn begin(&self, schema: &SchemaRef, mode: Mode, scratch: &Path) -> Result<DeltaWriter> {
        Ok(DeltaWriter::begin(&self.0, schema, mode, scratch)?)
    }
}
