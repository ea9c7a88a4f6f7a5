//! Ways to reach a module that no path shows: where one of them stands, the
//! rule of the floors reads a source that is not what the compiler builds.

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};

use super::paths::{self, Target};
use super::tree::{File, Tree};

/// Every disguise in the library and the program.
pub(super) fn found(tree: &Tree) -> Vec<String> {
    let source = tree.rust().filter(|file| file.path.starts_with("src/"));
    source.flat_map(in_file).collect()
}

fn in_file(file: &File) -> Vec<String> {
    let ast = file.parse();
    let mut reader = Reader::default();
    reader.visit_file(&ast);
    let module = file.module().unwrap_or_default();
    for mention in paths::mentions(&ast, &module, false) {
        let Target::Local(path) = &mention.target else {
            continue;
        };
        // Whoever names it reaches whatever stands around it, by a path in
        // which none of that is named.
        if mention.binds && mention.module.starts_with(path) {
            let what = match path.last() {
                None => "the crate's root".to_owned(),
                Some(name) => format!("{name}, which it stands in"),
            };
            let why = "a path through that name would pass the floors unseen";
            reader.say(format!("`use {}` names {what}: {why}", mention.written));
        }
    }
    let found = reader.found.into_iter();
    found.map(|what| format!("{}: {what}", file.path)).collect()
}

#[derive(Default)]
struct Reader {
    found: Vec<String>,
}

impl Reader {
    fn say(&mut self, what: impl Into<String>) {
        self.found.push(what.into());
    }

    /// What stands in the arguments of a macro, or in its definition.
    fn tokens(&mut self, mut at: Cursor<'_>) {
        // `pub(crate)`: alone between its parentheses.
        let alone = at.ident().is_some_and(|(_, next)| next.eof());
        while !at.eof() {
            if let Some((inner, _, _, next)) = at.any_group() {
                self.tokens(inner);
                at = next;
                continue;
            }
            let Some((_, next)) = at.token_tree() else {
                return;
            };
            match at.ident() {
                Some((name, _))
                    if (name == "crate" || name == "super")
                        && !alone
                        && !separator(next).is_some_and(is_named) =>
                {
                    self.say(format!(
                        "a macro takes `{name}` apart: what follows it must be a name that stands there"
                    ));
                }
                Some((name, _)) if name == "include" && is(next, '!') => self.include(),
                _ if is(at, '$') && next.ident().is_some_and(|(name, _)| name != "crate") => {
                    let after = next.token_tree().map(|(_, after)| after);
                    if after.and_then(separator).is_some() {
                        self.variable();
                    }
                }
                _ if separator(at).is_some_and(is_variable) => self.variable(),
                _ => {}
            }
            at = next;
        }
    }

    fn variable(&mut self) {
        self.say("a macro makes a path of a variable: write the path out");
    }

    fn include(&mut self) {
        self.say("`include!` builds another file's source here: make it a module");
    }
}

impl Visit<'_> for Reader {
    fn visit_item_extern_crate(&mut self, item: &syn::ItemExternCrate) {
        if item.ident == "self" {
            self.say("`extern crate self` gives the crate's root another name: write `crate`");
        }
    }

    fn visit_ident(&mut self, name: &syn::Ident) {
        if name == "include" {
            self.include();
        }
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(TokenBuffer::new2(call.tokens.clone()).begin());
    }

    fn visit_attribute(&mut self, attr: &syn::Attribute) {
        let text = match &attr.meta {
            syn::Meta::List(list) => list.tokens.to_string(),
            _ => String::new(),
        };
        let is = |name: &str| {
            attr.path().is_ident(name)
                || attr.path().is_ident("cfg_attr") && text.split(' ').any(|word| word == name)
        };
        if is("path") {
            self.say(
                "the attribute `path` makes a module of another's file: put it where its name is",
            );
        }
        if is("macro_use") {
            self.say("`#[macro_use]` brings macros in that no path names: import them by name");
        }
    }
}

fn is(at: Cursor<'_>, sign: char) -> bool {
    at.punct().is_some_and(|(punct, _)| punct.as_char() == sign)
}

/// Whether a name stands here, or a group of them.
fn is_named(at: Cursor<'_>) -> bool {
    at.ident().is_some() || at.any_group().is_some() || is(at, '*')
}

/// Whether a macro's variable stands here, or a group that begins with one.
fn is_variable(at: Cursor<'_>) -> bool {
    let at = at.any_group().map_or(at, |(inner, ..)| inner);
    let Some((_, next)) = at.punct().filter(|_| is(at, '$')) else {
        return false;
    };
    next.ident().is_none_or(|(name, _)| name != "crate")
}

/// What stands after `::`, if that is what stands here.
fn separator(at: Cursor<'_>) -> Option<Cursor<'_>> {
    let (_, second) = at.punct().filter(|_| is(at, ':'))?;
    let (_, next) = second.punct().filter(|_| is(second, ':'))?;
    Some(next)
}
