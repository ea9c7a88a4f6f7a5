//! The last JWKS of each key set, for a start without a store or a device; and
//! beside it the placeholder, for when every key of that set was revoked since,
//! and the signed document of the keys that left it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Disk, DurableError, PRIVATE, create_dir, sweep, write_atomic};

/// A directory with the last published JWKS of each key set, byte for byte.
#[derive(Clone)]
pub struct LastGood {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl LastGood {
    /// Opens the directory, and makes it where there is none. For the one
    /// process that writes to it.
    ///
    /// # Errors
    /// [`DurableError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Result<Self, DurableError> {
        let dir = dir.into();
        create_dir(&*disk, &dir)?;
        sweep(&*disk, &dir)?;
        Ok(Self { disk, dir })
    }

    /// For whoever only reads, beside the process that writes.
    pub fn beside(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { disk, dir }
    }

    /// Keeps `jwks` as the last good set. Durable when it returns.
    ///
    /// # Errors
    /// [`DurableError::Refused`] for what is not a JWKS with at least one key,
    /// and [`DurableError::Io`]; the earlier set stays.
    pub fn put(&self, key_set: &str, jwks: &[u8]) -> Result<(), DurableError> {
        self.write(self.path(key_set), jwks)
    }

    /// Keeps a JWKS of the placeholder alone. Durable when it returns.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_placeholder(&self, key_set: &str, jwks: &[u8]) -> Result<(), DurableError> {
        self.write(self.placeholder_path(key_set), jwks)
    }

    /// Keeps the signed document of the keys that left the set, which is not
    /// looked into here. Durable when it returns.
    ///
    /// # Errors
    /// [`DurableError::Io`]; the earlier one stays.
    pub fn put_history(&self, key_set: &str, token: &[u8]) -> Result<(), DurableError> {
        write_atomic(&*self.disk, &self.history_path(key_set), token, PRIVATE)
    }

    fn write(&self, path: PathBuf, jwks: &[u8]) -> Result<(), DurableError> {
        if let Err(why) = check(jwks) {
            return Err(DurableError::Refused { path, why });
        }
        write_atomic(&*self.disk, &path, jwks, PRIVATE)
    }

    /// The set that was put last, if one was.
    ///
    /// # Errors
    /// [`DurableError::Damaged`] for what is not a JWKS with at least one key,
    /// and [`DurableError::Io`].
    pub fn load(&self, key_set: &str) -> Result<Option<Vec<u8>>, DurableError> {
        self.read(self.path(key_set))
    }

    /// The placeholder, if it was put.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_placeholder(&self, key_set: &str) -> Result<Option<Vec<u8>>, DurableError> {
        self.read(self.placeholder_path(key_set))
    }

    /// The document that was put last, if one was.
    ///
    /// # Errors
    /// [`DurableError::Io`].
    pub fn load_history(&self, key_set: &str) -> Result<Option<Vec<u8>>, DurableError> {
        let path = self.history_path(key_set);
        match self.disk.read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => bytes.map(Some).map_err(DurableError::io("read", &path)),
        }
    }

    fn read(&self, path: PathBuf) -> Result<Option<Vec<u8>>, DurableError> {
        let bytes = match self.disk.read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(DurableError::io("read", &path))?,
        };
        match check(&bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(why) => Err(DurableError::Damaged { path, why }),
        }
    }

    /// Where a key set's JWKS lies. The name is readable and no name of a key
    /// set leaves the directory: what is not a letter, a digit, `-` or `_` is
    /// written as `%` and two hexadecimal digits.
    #[must_use]
    pub fn path(&self, key_set: &str) -> PathBuf {
        self.file(key_set, ".jwks.json")
    }

    /// Where its placeholder lies. No key set's own JWKS bears this name.
    #[must_use]
    pub fn placeholder_path(&self, key_set: &str) -> PathBuf {
        self.file(key_set, ".placeholder.jwks.json")
    }

    /// Where the document of its past keys lies.
    #[must_use]
    pub fn history_path(&self, key_set: &str) -> PathBuf {
        self.file(key_set, ".historical-keys.jwt")
    }

    fn file(&self, key_set: &str, end: &str) -> PathBuf {
        let mut name = String::with_capacity(key_set.len() + 10);
        for byte in key_set.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                name.push(char::from(byte));
            } else {
                name.push_str(&format!("%{byte:02x}"));
            }
        }
        self.dir.join(Path::new(&(name + end)))
    }
}

impl fmt::Debug for LastGood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LastGood").field(&self.dir).finish()
    }
}

/// An empty set is never good: verifiers would drop every key.
fn check(jwks: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Jwks {
        keys: Vec<IgnoredAny>,
    }
    match serde_json::from_slice::<Jwks>(jwks) {
        Ok(jwks) if jwks.keys.is_empty() => Err("expected at least one key, got none".into()),
        Ok(_) => Ok(()),
        Err(e) => Err(format!("expected a JWKS, got {} bytes: {e}", jwks.len())),
    }
}
