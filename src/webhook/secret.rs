//! The secrets that a webhook signs with, and the signature.

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// Longer than any file of secrets.
const MAX_FILE: u64 = 1024;

/// How many bytes a secret has (Standard Webhooks, "Symmetric").
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// How many may sign at the same time.
const MOST: usize = 4;

/// Where the configuration says that a webhook's secrets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that only its owner may read.
    File(PathBuf),
    /// `$CREDENTIALS_DIRECTORY/NAME` (systemd.exec(5), `LoadCredential=`): its
    /// directory guards it.
    Credential(String),
}

impl SecretSource {
    /// The file, and whether its mode must keep others out.
    fn place(&self, credentials: Option<PathBuf>) -> Result<(PathBuf, bool), SecretError> {
        match self {
            Self::File(path) => Ok((path.clone(), true)),
            Self::Credential(name) => {
                let none = || SecretError::NoCredentials { name: name.clone() };
                Ok((credentials.ok_or_else(none)?.join(name), false))
            }
        }
    }
}

/// One or more secrets, shared with the receiver: while one is replaced, the
/// old one and the new one sign.
pub struct Secrets(Vec<Zeroizing<Vec<u8>>>);

/// Why nothing can be signed for a receiver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the secret's file {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Others than the owner can read the file.
    #[error(
        "the secret's file {}: expected mode 0600 or stricter, got {mode:04o}; run: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The process was not started by systemd with credentials.
    #[error(
        "the secret is the credential {name:?}, and CREDENTIALS_DIRECTORY is not set: add LoadCredential={name}:/path to the service"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
    /// There is something else in it. Never says what.
    #[error(
        "the secret's file {}: expected 1 to {MOST} lines of whsec_ and the base64 of 24 to 64 random bytes, got {got}; make one: echo whsec_$(openssl rand -base64 32)",
        path.display()
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        got: String,
    },
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads them: one a line, as `whsec_` and base64. Blocks.
    ///
    /// # Errors
    /// [`SecretError`]; none shows what stands in the file.
    pub fn read(source: &SecretSource) -> Result<Self, SecretError> {
        let credentials = env::var_os("CREDENTIALS_DIRECTORY");
        let (path, private) = source.place(credentials.map(PathBuf::from))?;
        Self::read_file(&path, private)
    }

    fn read_file(path: &Path, private: bool) -> Result<Self, SecretError> {
        let io = |source| SecretError::Io {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if private && meta.mode() & 0o077 != 0 {
            return Err(SecretError::Exposed {
                path: path.to_owned(),
                mode: meta.mode() & 0o7777,
            });
        }
        // With room for all of it: growing would leave a copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 2));
        let read = file.take(MAX_FILE + 1).read_to_end(&mut text);
        let len = read.map_err(io)?;
        let secrets = match len as u64 > MAX_FILE {
            true => Err(format!("more than {MAX_FILE} bytes")),
            false => Self::parse(&text),
        };
        secrets.map_err(|got| SecretError::Malformed {
            path: path.to_owned(),
            got,
        })
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| !line.is_empty()).enumerate();
        let secrets: Result<Vec<_>, _> = lines
            .map(|(n, line)| {
                let line = line.strip_prefix(b"whsec_").unwrap_or(line);
                let mut bytes = Zeroizing::new(vec![0; line.len()]);
                let decoded = Base64::decode(line, &mut bytes);
                let len = decoded
                    .map_err(|_| format!("no base64 in line {}", n + 1))?
                    .len();
                bytes.truncate(len);
                match LENGTH.contains(&len) {
                    true => Ok(bytes),
                    false => Err(format!("{len} bytes in line {}", n + 1)),
                }
            })
            .collect();
        match secrets? {
            all if (1..=MOST).contains(&all.len()) => Ok(Self(all)),
            all => Err(format!("{} lines", all.len())),
        }
    }

    /// The header `webhook-signature`: HMAC-SHA256 over `id.timestamp.body` by
    /// each secret.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|secret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let mut context = hmac::Context::with_key(&key);
            context.update(format!("{id}.{timestamp}.").as_bytes());
            context.update(body);
            format!("v1,{}", Base64::encode_string(context.sign().as_ref()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}
