//! The paths that a module is given in its environment: a module that fails
//! says a number, and these are what an operator can look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The first path that is not there or cannot be read: what names it and why,
/// for people, and the path.
pub(super) fn broken(env: &BTreeMap<String, String>) -> Option<(String, PathBuf)> {
    let mut named: Vec<(String, PathBuf)> = Vec::new();
    for (name, value) in env {
        let path = Path::new(value);
        if !path.is_absolute() {
            continue;
        }
        named.push((name.clone(), path.into()));
        if name == "SOFTHSM2_CONF"
            && let Some(tokens) = token_folder(path)
        {
            let by = format!("directories.tokendir in {}", path.display());
            named.push((by, tokens));
        }
    }
    named.into_iter().find_map(|(by, path)| {
        let why = unreadable(&path)?;
        Some((format!("{by} names {}: {why}", path.display()), path))
    })
}

/// Where SoftHSM keeps its tokens (softhsm2.conf(5)).
fn token_folder(file: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "directories.tokendir").then(|| value.trim().into())
    })
}

fn unreadable(path: &Path) -> Option<std::io::Error> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => fs::read_dir(path).err(),
        Ok(meta) if meta.is_file() => fs::File::open(path).err(),
        Ok(_) => None, // To open a socket or a device would be more than a look.
        Err(e) => Some(e),
    }
}

/// The file beside `missing` whose name is most like it: a library of another
/// version, or a slip of the pen.
pub(super) fn alike(missing: &Path) -> Option<PathBuf> {
    /// `lib` and two letters are no likeness yet.
    const ENOUGH: usize = 6;
    let wanted = missing.file_name()?.to_str()?;
    let files = fs::read_dir(missing.parent()?).ok()?.flatten();
    let likeness = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str())?;
        let same = name.bytes().zip(wanted.bytes());
        let same = same.take_while(|(a, b)| a == b).count();
        (same >= ENOUGH && name.contains(".so")).then_some(same)
    };
    let found = files.map(|file| file.path()).filter(|path| path.is_file());
    let best = found.filter_map(|path| Some((likeness(&path)?, path)));
    best.max().map(|(_, path)| path)
}
