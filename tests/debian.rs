//! Where Debian puts libraries, on each of its architectures.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

/// A shared library by its name below a folder of libraries, such as
/// `softhsm/libsofthsm2.so`.
pub(crate) fn library(name: &str) -> Option<PathBuf> {
    below(Path::new("/usr/lib"), ARCH, name)
}

/// The module of SoftHSM2.
pub(crate) fn softhsm_module() -> PathBuf {
    library("softhsm/libsofthsm2.so")
        .expect("SoftHSM2, which scripts/test installs; or: apt-get install softhsm2 opensc")
}

/// In the folder itself, or in that of an architecture (`aarch64-linux-gnu`):
/// where several are installed beside each other, in our own.
fn below(folder: &Path, ours: &str, name: &str) -> Option<PathBuf> {
    let plain = folder.join(name);
    if plain.exists() {
        return Some(plain);
    }
    let triplets = fs::read_dir(folder).ok()?.flatten();
    let mut triplets: Vec<PathBuf> = triplets
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("-linux-gnu"))
        .collect();
    let of_ours = |path: &PathBuf| {
        let triplet = path.file_name().unwrap_or_default().to_string_lossy();
        // Debian's i386 is Rust's x86.
        triplet.starts_with(ours) || (ours == "x86" && triplet.starts_with("i386"))
    };
    triplets.sort_by_key(|path| !of_ours(path));
    let libraries = triplets.into_iter().map(|triplet| triplet.join(name));
    { libraries }.find(|path| path.exists())
}

#[test]
fn a_library_is_found_on_each_architecture() {
    let dir = tempfile::tempdir().unwrap();
    let put = |folder: &str| {
        let path = dir.path().join(folder);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("a.so"), "").unwrap();
        path.join("a.so")
    };
    assert_eq!(below(dir.path(), "aarch64", "a.so"), None);
    let foreign = put("x86_64-linux-gnu");
    assert_eq!(below(dir.path(), "aarch64", "a.so"), Some(foreign));
    let ours = put("aarch64-linux-gnu");
    assert_eq!(below(dir.path(), "aarch64", "a.so"), Some(ours));
    let arm = put("arm-linux-gnueabihf");
    assert_eq!(below(dir.path(), "arm", "a.so"), Some(arm));
    let i386 = put("i386-linux-gnu");
    assert_eq!(below(dir.path(), "x86", "a.so"), Some(i386));
    let plain = put(".");
    assert_eq!(below(dir.path(), "arm", "a.so"), Some(plain));
}
