//! Which names the source of a module mentions, resolved as the compiler
//! would: `crate`, `self`, `super`, groups, globs, renames, and what stands
//! in the arguments of macros and attributes.

use std::collections::BTreeMap;

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Below the crate's root.
    Local(Vec<String>),
    /// In another crate, or in the prelude.
    Extern(Vec<String>),
}

impl Target {
    fn join(&self, rest: &[String]) -> Self {
        match self {
            Self::Local(path) => Self::Local([path, rest].concat()),
            Self::Extern(path) => Self::Extern([path, rest].concat()),
        }
    }
}

/// One path in the source.
#[derive(Debug)]
pub(super) struct Mention {
    /// The module that it stands in.
    pub(super) module: Vec<String>,
    /// As it was written, groups taken apart.
    pub(super) written: String,
    pub(super) target: Target,
    pub(super) glob: bool,
    /// Whether it is a `use` that brings a name into the module.
    pub(super) binds: bool,
    pub(super) in_tests: bool,
}

/// Every path in a file that is `module`. `in_tests`: the whole file is built
/// only for tests.
pub(super) fn mentions(file: &syn::File, module: &[String], in_tests: bool) -> Vec<Mention> {
    let mut reader = Reader {
        module: module.to_vec(),
        in_tests,
        found: Vec::new(),
    };
    reader.visit_file(file);
    let aliases = aliases(&reader.found);
    let found = reader.found.into_iter();
    found
        .map(|raw| Mention {
            target: resolve(&raw.module, &raw.segments, &aliases, 0),
            written: raw.segments.join("::") + if raw.glob { "::*" } else { "" },
            module: raw.module,
            glob: raw.glob,
            binds: raw.binds.is_some(),
            in_tests: raw.in_tests,
        })
        .collect()
}

/// Whether the attributes say that this is built only for tests.
pub(super) fn only_for_tests(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        syn::Meta::List(list) if attr.path().is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || condition.starts_with("all (test")
        }
        _ => is_test(attr),
    })
}

/// `#[test]`, or a runtime's own form of it.
pub(super) fn is_test(attr: &syn::Attribute) -> bool {
    let last = attr.path().segments.last();
    last.is_some_and(|segment| segment.ident == "test")
}

struct Raw {
    module: Vec<String>,
    segments: Vec<String>,
    glob: bool,
    in_tests: bool,
    /// The name that a `use` brings into the module.
    binds: Option<String>,
}

type Aliases = BTreeMap<(Vec<String>, String), (Vec<String>, Vec<String>)>;

fn aliases(found: &[Raw]) -> Aliases {
    let bound = found.iter().filter_map(|raw| {
        let name = raw.binds.clone()?;
        let key = (raw.module.clone(), name);
        Some((key, (raw.module.clone(), raw.segments.clone())))
    });
    bound.collect()
}

fn resolve(module: &[String], segments: &[String], aliases: &Aliases, depth: usize) -> Target {
    let Some((first, rest)) = segments.split_first() else {
        return Target::Extern(Vec::new());
    };
    match first.as_str() {
        "crate" => return resolve_local(Vec::new(), rest),
        "self" => return resolve_local(module.to_vec(), rest),
        "super" => return resolve_local(module.to_vec(), segments),
        _ => {}
    }
    let key = (module.to_vec(), first.clone());
    match aliases.get(&key) {
        // `use time::x as time` binds the name that it is made of.
        Some((module, target)) if depth < 8 && target != segments => {
            resolve(module, target, aliases, depth + 1).join(rest)
        }
        _ => Target::Extern(segments.to_vec()),
    }
}

fn resolve_local(mut base: Vec<String>, rest: &[String]) -> Target {
    for segment in rest {
        match segment.as_str() {
            "self" => {}
            "super" => drop(base.pop()),
            name => base.push(name.to_owned()),
        }
    }
    Target::Local(base)
}

struct Reader {
    module: Vec<String>,
    in_tests: bool,
    found: Vec<Raw>,
}

impl Reader {
    fn mention(&mut self, segments: Vec<String>, glob: bool, binds: Option<String>) {
        self.found.push(Raw {
            module: self.module.clone(),
            segments,
            glob,
            in_tests: self.in_tests,
            binds,
        });
    }

    fn within(&mut self, attrs: &[syn::Attribute], read: impl FnOnce(&mut Self)) {
        let before = self.in_tests;
        self.in_tests |= only_for_tests(attrs);
        read(self);
        self.in_tests = before;
    }

    fn use_tree(&mut self, mut prefix: Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(prefix, &path.tree);
            }
            syn::UseTree::Name(name) => {
                let name = name.ident.to_string();
                if name != "self" {
                    prefix.push(name);
                }
                let binds = prefix.last().cloned();
                self.mention(prefix, false, binds);
            }
            syn::UseTree::Rename(rename) => {
                if rename.ident != "self" || prefix.is_empty() {
                    prefix.push(rename.ident.to_string());
                }
                self.mention(prefix, false, Some(rename.rename.to_string()));
            }
            syn::UseTree::Glob(_) => self.mention(prefix, true, None),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(prefix.clone(), tree);
                }
            }
        }
    }

    fn tokens(&mut self, tokens: &[Token]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                Token::Name(_) => at = self.token_path(Vec::new(), tokens, at),
                // Attributes name paths in strings: `#[serde(with = "...")]`.
                Token::Text(text) => {
                    if let Ok(path) = syn::parse_str::<syn::Path>(text) {
                        self.visit_path(&path);
                    }
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// Reads one path, or one branch of a `use`, from a name on; returns where
    /// it ends.
    fn token_path(&mut self, mut path: Vec<String>, tokens: &[Token], mut at: usize) -> usize {
        let mut glob = false;
        loop {
            match tokens.get(at) {
                Some(Token::Name(name)) => path.push(name.clone()),
                Some(Token::Star) => glob = true,
                Some(Token::Open) => return self.token_group(&path, tokens, at + 1),
                _ => break,
            }
            at += 1;
            if tokens.get(at) != Some(&Token::Separator) {
                break;
            }
            at += 1;
        }
        if path.len() > 1 || glob {
            self.mention(path, glob, None);
        }
        at
    }

    fn token_group(&mut self, prefix: &[String], tokens: &[Token], mut at: usize) -> usize {
        while let Some(token) = tokens.get(at) {
            at = match token {
                Token::Close => return at + 1,
                Token::Name(name) if name == "as" => at + 2,
                Token::Name(_) | Token::Star => self.token_path(prefix.to_vec(), tokens, at),
                _ => at + 1,
            };
        }
        at
    }
}

impl Visit<'_> for Reader {
    fn visit_item(&mut self, item: &syn::Item) {
        let attrs = match item {
            syn::Item::Fn(item) => &*item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
            _ => &[],
        };
        self.within(attrs, |reader| visit::visit_item(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &syn::ImplItemFn) {
        self.within(&item.attrs, |reader| {
            visit::visit_impl_item_fn(reader, item);
        });
    }

    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.use_tree(Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if segments.len() > 1 {
            self.mention(segments, false, None);
        }
        // Generic arguments and what stands in them.
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        self.visit_path(&call.path);
        let buffer = TokenBuffer::new2(call.tokens.clone());
        let mut tokens = flatten(buffer.begin());
        // What a macro prints is not code.
        tokens.retain(|token| !matches!(token, Token::Text(_)));
        self.tokens(&tokens);
    }

    fn visit_attribute(&mut self, attr: &syn::Attribute) {
        self.visit_path(attr.path());
        if let syn::Meta::List(list) = &attr.meta {
            let buffer = TokenBuffer::new2(list.tokens.clone());
            self.tokens(&flatten(buffer.begin()));
        }
    }
}

#[derive(PartialEq)]
enum Token {
    Name(String),
    Separator,
    Star,
    Open,
    Close,
    Text(String),
    Other,
}

fn flatten(mut at: Cursor<'_>) -> Vec<Token> {
    let mut tokens = Vec::new();
    while !at.eof() {
        if let Some((inner, _, _, next)) = at.any_group() {
            tokens.push(Token::Open);
            tokens.extend(flatten(inner));
            tokens.push(Token::Close);
            at = next;
        } else if let Some(next) = separator(at) {
            tokens.push(Token::Separator);
            at = next;
        } else if let Some((token, next)) = at.token_tree() {
            let text = token.to_string();
            let string = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            tokens.push(match (at.ident(), string) {
                (Some(_), _) => Token::Name(text),
                (_, Some(string)) => Token::Text(string.to_owned()),
                _ if text == "*" => Token::Star,
                _ => Token::Other,
            });
            at = next;
        }
    }
    tokens
}

/// What stands after `::`, if that is what stands here.
fn separator(at: Cursor<'_>) -> Option<Cursor<'_>> {
    let colon = |at: Cursor<'_>| -> Option<()> { (at.punct()?.0.as_char() == ':').then_some(()) };
    colon(at)?;
    let (_, second) = at.punct()?;
    colon(second)?;
    Some(second.punct()?.1)
}
