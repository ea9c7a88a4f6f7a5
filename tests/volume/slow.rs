//! The slow module (`tests/slow-module`), built when a test first asks for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::live::lab::softhsm_module;

/// The module's path. Built beside the program under test, where a later run
/// finds it again.
pub(crate) fn module() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_sealkeeper"));
        let target = program.ancestors().nth(2).unwrap().join("slow-module");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--manifest-path"])
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/slow-module/Cargo.toml"
            ))
            .arg("--target-dir")
            .arg(&target)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        target.join("debug/libslow_module.so")
    })
}

/// What the module's process must have in its environment; its counters begin
/// with `counters`.
pub(crate) fn env(sign: Duration, counters: &Path) -> [(&'static str, String); 3] {
    [
        ("SLOW_MODULE_BEHIND", softhsm_module().display().to_string()),
        ("SLOW_MODULE_SIGN_US", sign.as_micros().to_string()),
        ("SLOW_MODULE_COUNTERS", counters.display().to_string()),
    ]
}

/// What the module counted, over all processes that loaded it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Calls of `C_SignInit`.
    pub(crate) sign_init: u64,
    /// Calls of `C_Sign`.
    pub(crate) sign: u64,
    /// Those that returned a signature.
    pub(crate) signatures: u64,
    /// The most of those at the same time, in one process.
    pub(crate) most_inside: u64,
}

impl Counters {
    pub(crate) fn read(prefix: &Path) -> Self {
        let name = format!("{}.", prefix.file_name().unwrap().to_str().unwrap());
        let mut all = Self::default();
        for entry in fs::read_dir(prefix.parent().unwrap()).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_str().unwrap().starts_with(&name) {
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            let n: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            // Empty until the module has written for the first time.
            let [sign_init, sign, signatures, _inside, most_inside] = n[..] else {
                continue;
            };
            all.sign_init += sign_init;
            all.sign += sign;
            all.signatures += signatures;
            all.most_inside = all.most_inside.max(most_inside);
        }
        all
    }
}
