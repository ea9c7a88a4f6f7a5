//! The configuration: one TOML file, read once, checked as a whole.
//!
//! What is written (`raw`, with the place of each value) becomes what is
//! meant ([`Config`]), or an [`Invalid`] that shows every mistake with file,
//! line and caret. Nothing outside the file is looked at: whether a module
//! can be loaded or a PIN file can be read is for the start to find out, so
//! that a configuration can be checked on another machine. Only
//! [`Config::check_files`] looks: at files without which an agent starts, and
//! then waits for ever.
//!
//! Trust: whoever may change this file may sign anything. It holds no secret.

mod check;
mod device;
mod diagnostic;
mod difference;
mod discovery;
mod key_set;
mod observe;
mod people;
mod raw;
mod rule;
mod serve;
mod uri;
mod webhook;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

pub use device::{Device, pin_marker};
pub use diagnostic::Invalid;
pub use difference::{Difference, differences};
pub use key_set::KeySet;
pub use serve::Serve;

use crate::webhook::Webhook;
use check::Check;

/// A configuration that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the agent keeps its state. Absolute.
    pub state_dir: PathBuf,
    /// Sockets and listeners.
    pub serve: Serve,
    /// Devices by name.
    pub devices: BTreeMap<String, Device>,
    /// Key sets by name; each one's device is in [`Config::devices`].
    pub key_sets: BTreeMap<String, KeySet>,
    /// Who is told of key events, by name.
    pub webhooks: BTreeMap<String, Webhook>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {why}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file can be read, and makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Config {
    /// Reads and checks a file. Relative paths in it start from its folder.
    ///
    /// # Errors
    /// Every mistake that can be told from the file alone, at once; but of
    /// what is not TOML, or not of the right type, only the first.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::read(path)?.0)
    }

    /// The same, and the text.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn read(path: &Path) -> Result<(Self, String), ConfigError> {
        let read = |why| ConfigError::Read {
            path: path.to_owned(),
            why,
        };
        let text = fs::read_to_string(path).map_err(read)?;
        let absolute = std::path::absolute(path).map_err(read)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        let config = Self::parse(&text, &path.display().to_string(), folder)?;
        Ok((config, text))
    }

    /// Looks at the files that a configuration names and that no start asks
    /// for: the roots of observed origins, without which no key is activated,
    /// and those of webhooks' receivers.
    ///
    /// # Errors
    /// Each that cannot be used, at the place where it is named; and as for
    /// [`Config::load`].
    pub fn check_files(path: &Path) -> Result<(), ConfigError> {
        let read = |why| ConfigError::Read {
            path: path.to_owned(),
            why,
        };
        let text = fs::read_to_string(path).map_err(read)?;
        let absolute = std::path::absolute(path).map_err(read)?;
        let mut check = Check::new(absolute.parent().unwrap_or(Path::new("/")));
        match toml::from_str::<raw::Config>(&text) {
            Ok(raw) => {
                for (name, key_set) in &raw.key_set {
                    observe::check_files(name, key_set, &mut check);
                }
                for (name, hook) in &raw.webhook {
                    webhook::check_files(name, hook, &mut check);
                }
            }
            Err(error) => check.not_toml(&error, text.len()),
        }
        match check.into_problems() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(Invalid::new(&path.display().to_string(), &text, problems).into()),
        }
    }

    /// Checks a text. `name` stands for the file in what is said about it;
    /// relative paths start from `folder`, which is absolute.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(text: &str, name: &str, folder: &Path) -> Result<Self, Invalid> {
        let mut check = Check::new(folder);
        let config = match toml::from_str(text) {
            Ok(raw) => Self::check(&raw, &mut check),
            Err(error) => {
                check.not_toml(&error, text.len());
                None
            }
        };
        match (config, check.into_problems()) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(Invalid::new(name, text, problems)),
        }
    }

    /// `None` only after a problem was noted.
    fn check(raw: &raw::Config, check: &mut Check<'_>) -> Option<Self> {
        let state_dir = check.path_or(raw.state_dir.as_ref(), "state_dir", "/var/lib/sealkeeper");
        let serve = serve::check(&raw.serve, &raw.key_set, check);
        let devices: Option<BTreeMap<_, _>> = all(raw.device.iter().map(|(name, device)| {
            let named = check.name("device", name);
            let device = device::check(name, device, check);
            Some((named?, device?))
        }));
        let people = people::check(&raw.person, check);
        let key_sets: Option<BTreeMap<_, _>> = all(raw.key_set.iter().map(|(name, key_set)| {
            let named = check.name("key_set", name);
            let key_set = key_set::check(name, key_set, (&raw.device, people.as_ref()), check);
            Some((named?, key_set?))
        }));
        discovery::check_distinct(&raw.key_set, check);
        if raw.key_set.is_empty() {
            check.say(
                0..0,
                "expected at least one [key_set.NAME], got none".into(),
                "a key set is what the agent signs for: an issuer, a device, tracks and rules",
            );
        }
        let webhooks: Option<BTreeMap<_, _>> = all(raw.webhook.iter().map(|(name, hook)| {
            let named = check.name("webhook", name);
            let hook = webhook::check(name, hook, check);
            Some((named?, hook?))
        }));
        Some(Self {
            state_dir: state_dir?,
            serve: serve?,
            devices: devices?,
            key_sets: key_sets?,
            webhooks: webhooks?,
        })
    }
}

/// All of them, or nothing, but only after each was looked at.
fn all<T, C: FromIterator<T>>(items: impl Iterator<Item = Option<T>>) -> Option<C> {
    let items: Vec<_> = items.collect();
    items.into_iter().collect()
}
