//! The text files of the repository, or of one made up for a test.

use std::fs;
use std::path::Path;

/// A text file: its path from the top, with `/`, and what it says.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn is_rust(&self) -> bool {
        Path::new(&self.path).extension() == Some("rs".as_ref())
    }

    /// The module that a file below `src/` is, seen from the crate's root.
    /// `None` for what is no part of the library.
    pub(super) fn module(&self) -> Option<Vec<String>> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        if path == "main" {
            return None;
        }
        let path = path.strip_suffix("/mod").unwrap_or(path);
        Some(match path {
            "lib" => Vec::new(),
            _ => path.split('/').map(str::to_owned).collect(),
        })
    }

    pub(super) fn parse(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }
}

/// Every text file that a reader of the repository sees.
pub(super) struct Tree(Vec<File>);

impl Tree {
    /// The repository that this test was built from.
    pub(super) fn of_this_repository() -> Self {
        let mut files = Vec::new();
        walk(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self(files)
    }

    /// A repository that holds nothing but these.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Self(files.iter().map(file).collect())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        self.0.iter()
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files().filter(|file| file.is_rust())
    }

    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files().find(|file| file.path == path)
    }
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(dir).expect("a directory of the repository") {
        let entry = entry.expect("an entry of the repository");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let hidden = name.starts_with('.') && !matches!(&*name, ".ci" | ".gitignore");
        if hidden || path == "target" || path == "Cargo.lock" {
            continue;
        }
        let kind = entry.file_type().expect("the type of a file");
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else if kind.is_file()
            // What is not UTF-8 is not text.
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push(File { path, text });
        }
    }
}
