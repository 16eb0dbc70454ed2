//! What stands for an entity in the audit, so that its key need not?
//!
//! HMAC-SHA256 of the entity's name and of the bytes that its key has everywhere ([`Keys`]), cut to sixteen bytes. Who
//! has the secret finds an entity again; who has only the audit can neither read nor guess one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema};
use feature_defs::Column;
use quern_base::digest::hexadecimal;
use quern_engine::key::Keys;
use quern_engine::schema::arrow_type;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// In the data folder, where the settings name no secret.
const FILE: &str = "audit.key";
const SECRET_BYTES: usize = 32;
/// A shorter secret may be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// Of the HMAC.
const BYTES: usize = 16;

/// Finds what stands for entities.
#[derive(Debug)]
pub struct Pseudonyms(hmac::Key);

impl Pseudonyms {
    /// By the secret that the settings name, or the one in the data folder.
    ///
    /// # Errors
    /// A secret that cannot be read, or is short; none in the data folder.
    pub fn read(settings: &Settings) -> Result<Pseudonyms> {
        let own = settings.data.join(FILE);
        let (setting, path) = match &settings.audit_key {
            Some(path) => ("audit_key", path),
            None => ("audit", &own),
        };
        let secret = std::fs::read(path)
            .map_err(|error| Error::invalid(format!("`{setting}`: {}: {error}", path.display())))?;
        match secret.trim_ascii() {
            secret if secret.len() < SECRET_BYTES_MIN => Err(Error::invalid(format!(
                "`{setting}`: {} has {} bytes, and a secret {SECRET_BYTES_MIN} or more, as of `openssl rand -hex 32`",
                path.display(),
                secret.len()
            ))),
            secret => Ok(Pseudonyms(hmac::Key::new(hmac::HMAC_SHA256, secret))),
        }
    }

    /// The same; draws a secret where there is none yet.
    pub(super) fn open(settings: &Settings) -> Result<Pseudonyms> {
        if settings.audit_key.is_none() {
            draw(&settings.data)?;
        }
        Pseudonyms::read(settings)
    }

    /// What stands for the entity called `entity` that has these values of its join keys, of one row; none where one is
    /// null, and so there is no entity.
    ///
    /// # Errors
    /// Values that do not become what the keys are.
    pub fn of_values(
        &self,
        entity: &str,
        join_keys: &[Column],
        values: &[ArrayRef],
    ) -> Result<Option<String>> {
        let keys = keys(join_keys, values)?;
        Ok(keys.get(0).map(|key| self.of(entity, key)))
    }

    /// What stands for one entity.
    pub(crate) fn of(&self, entity: &str, key: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        // No name has a zero byte in it.
        [entity.as_bytes(), &[0], key].into_iter().for_each(|part| context.update(part));
        hexadecimal(&context.sign().as_ref()[..BYTES])
    }
}

/// The keys of an entity, of columns that have its join keys in other types perhaps.
pub(crate) fn keys(join_keys: &[Column], columns: &[ArrayRef]) -> Result<Keys> {
    let fields: Vec<Field> =
        join_keys.iter().map(|key| Field::new(&key.name, arrow_type(key.dtype), true)).collect();
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns =
        columns.iter().zip(&fields).map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(ArrayRef::clone(column)),
            false => cast_with_options(column, field.data_type(), &strict)
                .map_err(|error| Error::invalid(format!("join key `{}`", field.name())).quoting(error)),
        });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(Keys::encode(&Schema::new(fields).into(), &columns)?)
}

/// Draws a secret of this data folder's own, unless it has one.
fn draw(data: &Path) -> Result<()> {
    let path = data.join(FILE);
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        file => file?,
    };
    let mut secret = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut secret).map_err(|_| Error::broken("the system has no random numbers"))?;
    writeln!(file, "{}", hexadecimal(&secret))?;
    file.sync_all()?;
    Ok(File::open(data)?.sync_all()?)
}
