//! Throwaway SoftHSM2 tokens: a directory, a configuration and a token of
//! their own for each test. No test process sets `SOFTHSM2_CONF` for itself;
//! children and tools get it in their environment.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sealkeeper::hsm::{DeviceConfig, PinSource, TokenSelector};

use crate::debian::softhsm_module;

/// The user PIN of every token here.
pub(crate) const PIN: &str = "1234";
/// The label of every token here.
pub(crate) const LABEL: &str = "lab";

/// A token that goes when this is dropped.
#[derive(Debug)]
pub(crate) struct SoftHsm {
    dir: tempfile::TempDir,
}

impl SoftHsm {
    /// A fresh token with [`LABEL`] and [`PIN`].
    pub(crate) fn new() -> Self {
        let hsm = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(hsm.tokens()).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            hsm.tokens().display()
        );
        fs::write(hsm.conf(), conf).unwrap();
        hsm.write_pin(PIN);
        hsm.init_token();
        hsm
    }

    /// A device on this token whose child is the program under test.
    pub(crate) fn device_config(&self) -> DeviceConfig {
        let token = TokenSelector {
            label: Some(LABEL.into()),
            serial: None,
        };
        let pin = PinSource::File(self.pin_file()).supply("lab").unwrap();
        let mut config = DeviceConfig::new("lab", softhsm_module(), token, pin, self.pin_marker());
        config.env = vec![self.env()];
        config.program = Some(env!("CARGO_BIN_EXE_sealkeeper").into());
        // Beside other tests on few cores, however slow.
        config.max_wait = Duration::from_secs(60);
        config.health_interval = Duration::from_millis(500);
        config
    }

    /// The environment variable that SoftHSM reads.
    pub(crate) fn env(&self) -> (OsString, OsString) {
        ("SOFTHSM2_CONF".into(), self.conf().into())
    }

    /// The directory that holds the token; rename it and the token is gone.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.dir.path().join("tokens")
    }

    /// Where the token is while it is unplugged.
    pub(crate) fn unplugged(&self) -> PathBuf {
        self.dir.path().join("unplugged")
    }

    /// Takes the token away.
    pub(crate) fn unplug(&self) {
        fs::rename(self.tokens(), self.unplugged()).unwrap();
    }

    /// Puts it back.
    pub(crate) fn plug(&self) {
        fs::rename(self.unplugged(), self.tokens()).unwrap();
    }

    /// A second token, in place of the first, with the same label and PIN.
    pub(crate) fn replace(&self) {
        self.unplug();
        fs::create_dir(self.tokens()).unwrap();
        self.init_token();
    }

    /// A file with the PIN, as an operator would make it.
    pub(crate) fn pin_file(&self) -> PathBuf {
        self.dir.path().join("pin")
    }

    /// Writes the PIN file.
    pub(crate) fn write_pin(&self, pin: &str) {
        fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.pin_file())
            .and_then(|mut file| writeln!(file, "{pin}"))
            .unwrap();
    }

    /// The device's PIN marker.
    pub(crate) fn pin_marker(&self) -> PathBuf {
        self.dir.path().join("lab.pin-marker")
    }

    /// What another program leaves of the private keys when it lists them
    /// while they are being made: SoftHSM 2.6 gives an object that has not got
    /// its attributes yet empty ones, and writes it. The files are those of
    /// its `ObjectFile`: a generation, then attributes, the class first.
    pub(crate) fn spoil_private_keys(&self) {
        const CLASS_TOKEN_PRIVATE: usize = 8 + 24 + 17 + 17;
        for (path, mut bytes) in self.private_keys() {
            let generation = number_at(0, &bytes).unwrap() + 1;
            bytes.truncate(CLASS_TOKEN_PRIVATE);
            bytes[..8].copy_from_slice(&generation.to_be_bytes());
            fs::write(path, bytes).unwrap();
        }
    }

    /// The files of the private keys, as they are now.
    pub(crate) fn private_keys(&self) -> Vec<(PathBuf, Vec<u8>)> {
        const PRIVATE_KEY: u64 = 3;
        let token = fs::read_dir(self.tokens()).unwrap().next().unwrap();
        fs::read_dir(token.unwrap().path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "object"))
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .filter(|(_, bytes)| number_at(24, bytes) == Some(PRIVATE_KEY))
            .collect()
    }

    /// Runs OpenSC's tool on the token; its output.
    ///
    /// Not while a key is being made: see [`Self::spoil_private_keys`].
    pub(crate) fn pkcs11_tool(&self, args: &[&str]) -> String {
        let (name, conf) = self.env();
        run(Command::new("pkcs11-tool")
            .arg("--module")
            .arg(softhsm_module())
            .args(["--token-label", LABEL])
            .args(args)
            .env(name, conf))
    }

    /// As [`Self::pkcs11_tool`], logged in.
    pub(crate) fn pkcs11_tool_logged_in(&self, args: &[&str]) -> String {
        self.pkcs11_tool(&[&["--login", "--pin", PIN], args].concat())
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("softhsm2.conf")
    }

    fn init_token(&self) {
        let (name, conf) = self.env();
        run(Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL])
            .args(["--so-pin", "5678", "--pin", PIN])
            .env(name, conf));
    }
}

fn number_at(at: usize, bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().unwrap()))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
