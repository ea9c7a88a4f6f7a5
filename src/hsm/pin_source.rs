//! Where a PIN comes from: a file, a systemd credential, a prompt, or the
//! environment where it is asked for by name. Never an argument.

use std::env;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::message::Pin;

/// Longer than any token takes.
const MAX_PIN: u64 = 1024;

/// Where the configuration says that the PIN is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// A file that only its owner may read.
    File(PathBuf),
    /// `$CREDENTIALS_DIRECTORY/NAME` (systemd.exec(5), `LoadCredential=`).
    Credential(String),
    /// Asks on the terminal when the daemon starts.
    Prompt,
    /// This environment variable. Other processes of the same user can read
    /// it, and children inherit it: the weakest of the four.
    Environment(String),
}

/// A PIN for each new child, without asking anybody again.
#[derive(Clone, Debug)]
pub enum PinSupply {
    /// Read again each time, so that a PIN that was changed is picked up.
    File {
        /// Which file.
        path: PathBuf,
        /// Refuse it when its group or others may read it. A systemd
        /// credential is guarded by its directory instead.
        private: bool,
    },
    /// Held in memory: it was typed or came from the environment.
    Held(Pin),
}

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file cannot be read.
    #[error("PIN file {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Others than the owner can read the file.
    #[error(
        "PIN file {}: expected mode 0600 or stricter, got {mode:04o}; run: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is nothing in it, or more than a PIN.
    #[error("{from}: expected a PIN of 1 to {MAX_PIN} bytes, got {len}")]
    Length {
        /// Where the PIN was to come from.
        from: String,
        /// How many bytes were there.
        len: usize,
    },
    /// The daemon was not started by systemd with credentials.
    #[error(
        "credential {name:?}: CREDENTIALS_DIRECTORY is not set; add LoadCredential={name}:/path to the service"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
    /// A name that would leave the credentials' directory.
    #[error("credential {name:?}: expected a plain file name")]
    BadCredentialName {
        /// The credential's name.
        name: String,
    },
    /// The variable is not there.
    #[error("environment variable {name:?} is not set")]
    NotInEnvironment {
        /// The variable's name.
        name: String,
    },
    /// Nobody can be asked.
    #[error(
        "cannot ask for the PIN: standard input is not a terminal; use a file or a systemd credential"
    )]
    NoTerminal,
    /// The terminal failed.
    #[error("cannot ask for the PIN: {0}")]
    Prompt(io::Error),
}

impl PinSource {
    /// Finds the place, and asks where somebody must be asked. `device` is
    /// named in the prompt.
    pub fn supply(&self, device: &str) -> Result<PinSupply, PinError> {
        match self {
            Self::File(path) => Ok(PinSupply::File {
                path: path.clone(),
                private: true,
            }),
            Self::Credential(name) => credential(
                name,
                env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            ),
            Self::Prompt => prompt(device),
            Self::Environment(name) => environment(name, env::var_os(name)),
        }
    }
}

impl PinSupply {
    /// The PIN as it is now.
    pub fn pin(&self) -> Result<Pin, PinError> {
        match self {
            Self::File { path, private } => read(path, *private),
            Self::Held(pin) => Ok(pin.clone()),
        }
    }
}

fn credential(name: &str, directory: Option<PathBuf>) -> Result<PinSupply, PinError> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(PinError::BadCredentialName { name: name.into() });
    }
    let directory = directory.ok_or_else(|| PinError::NoCredentials { name: name.into() })?;
    Ok(PinSupply::File {
        path: directory.join(name),
        private: false,
    })
}

fn prompt(device: &str) -> Result<PinSupply, PinError> {
    if !io::stdin().is_terminal() {
        return Err(PinError::NoTerminal);
    }
    let typed =
        rpassword::prompt_password(format!("PIN of {device}: ")).map_err(PinError::Prompt)?;
    checked(typed.into_bytes(), || "the PIN that was typed".into()).map(PinSupply::Held)
}

fn environment(name: &str, value: Option<std::ffi::OsString>) -> Result<PinSupply, PinError> {
    use std::os::unix::ffi::OsStringExt;
    let value = value.ok_or_else(|| PinError::NotInEnvironment { name: name.into() })?;
    checked(value.into_vec(), || {
        format!("environment variable {name:?}")
    })
    .map(PinSupply::Held)
}

fn read(path: &Path, private: bool) -> Result<Pin, PinError> {
    let io = |source| PinError::Io {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if private && meta.mode() & 0o077 != 0 {
        return Err(PinError::Exposed {
            path: path.to_owned(),
            mode: meta.mode() & 0o7777,
        });
    }
    // Room for one byte more than is allowed, so that it never grows: growing
    // would leave a copy behind.
    let mut bytes = Vec::with_capacity(MAX_PIN as usize + 2);
    file.take(MAX_PIN + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    checked(bytes, || format!("PIN file {}", path.display()))
}

fn checked(bytes: Vec<u8>, from: impl FnOnce() -> String) -> Result<Pin, PinError> {
    let bytes = Zeroizing::new(bytes);
    if bytes.is_empty() || bytes.len() as u64 > MAX_PIN {
        return Err(PinError::Length {
            from: from(),
            len: bytes.len(),
        });
    }
    Ok(Pin::new(bytes.to_vec()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    fn pin_of(content: &[u8]) -> Result<Pin, PinError> {
        let (_dir, path) = file(content, 0o600);
        PinSource::File(path).supply("hsm")?.pin()
    }

    #[test]
    fn one_trailing_newline_is_trimmed() {
        assert_eq!(pin_of(b"1234\n").unwrap().expose(), b"1234");
        assert_eq!(pin_of(b"1234\r\n").unwrap().expose(), b"1234");
        assert_eq!(pin_of(b" 12\n34 \n").unwrap().expose(), b" 12\n34 ");
        assert_eq!(pin_of(b"1234\n\n").unwrap().expose(), b"1234\n");
    }

    #[test]
    fn an_empty_or_huge_file_is_refused() {
        assert!(matches!(pin_of(b""), Err(PinError::Length { len: 0, .. })));
        assert!(matches!(
            pin_of(b"\n"),
            Err(PinError::Length { len: 0, .. })
        ));
        assert!(matches!(
            pin_of(&[b'1'; 5000]),
            Err(PinError::Length { .. })
        ));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o644, 0o660] {
            let (_dir, path) = file(b"1234", mode);
            let error = PinSource::File(path)
                .supply("hsm")
                .unwrap()
                .pin()
                .unwrap_err();
            assert!(matches!(error, PinError::Exposed { .. }), "{mode:o}");
            assert!(error.to_string().contains("chmod 600"));
            assert!(!error.to_string().contains("1234"));
        }
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let (_dir, path) = file(b"1234", 0o600);
        let supply = PinSource::File(path.clone()).supply("hsm").unwrap();
        assert_eq!(supply.pin().unwrap().expose(), b"1234");
        fs::write(&path, b"5678").unwrap();
        assert_eq!(supply.pin().unwrap().expose(), b"5678");
    }

    #[test]
    fn credentials_come_from_their_directory_alone() {
        let (dir, _) = file(b"1234\n", 0o440);
        let supply = credential("pin", Some(dir.path().to_owned())).unwrap();
        assert_eq!(supply.pin().unwrap().expose(), b"1234");
        assert!(matches!(
            credential("pin", None),
            Err(PinError::NoCredentials { .. })
        ));
        for name in ["", "..", "../pin", "/etc/passwd"] {
            assert!(matches!(
                credential(name, Some(dir.path().to_owned())),
                Err(PinError::BadCredentialName { .. })
            ));
        }
    }

    #[test]
    fn the_environment_is_read_by_name() {
        let supply = environment("HSM_PIN", Some("1234".into())).unwrap();
        assert_eq!(supply.pin().unwrap().expose(), b"1234");
        assert!(!format!("{supply:?}").contains("1234"));
        assert!(matches!(
            environment("HSM_PIN", None),
            Err(PinError::NotInEnvironment { .. })
        ));
    }
}
