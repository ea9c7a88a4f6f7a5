//! A strict reader of JSON (RFC 8259, with RFC 7493's demands on members and
//! strings).
//!
//! What is signed here is read elsewhere, by parsers that differ: of two
//! members with one name some take the first, some the last. So a text that
//! parsers may understand in different ways is refused: members that stand
//! twice, at any depth and however they are escaped; strings that are not
//! Unicode; nesting beyond [`MAX_DEPTH`]; bytes after the value.
//!
//! Values are handed on verbatim, byte for byte, because a signature covers
//! bytes. Errors say where, never what: the text may hold claims.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// How deep arrays and objects may nest; the outermost one counts.
pub const MAX_DEPTH: usize = 32;

/// Why a text is not the JSON that it should be. Offsets are in bytes from
/// the start of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is not UTF-8 (RFC 8259 section 8.1).
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first byte that does not fit.
        at: usize,
    },
    /// The text is not JSON.
    #[error("expected {expected} at byte {at}")]
    Syntax {
        /// What could have stood there.
        expected: &'static str,
        /// Where.
        at: usize,
    },
    /// The value is whole, and something follows it.
    #[error("expected the end of the text at byte {at}")]
    Trailing {
        /// The first byte after the value.
        at: usize,
    },
    /// The value is not an object.
    #[error("expected an object at byte {at}")]
    NotAnObject {
        /// Where the value starts.
        at: usize,
    },
    /// Two members of one object have the same name after unescaping.
    #[error("the members at byte {first} and at byte {second} of one object have the same name")]
    Duplicate {
        /// Where the first one's name starts.
        first: usize,
        /// Where the second one's name starts.
        second: usize,
    },
    /// Half of a surrogate pair (RFC 7493 section 2.1).
    #[error("a surrogate without its other half at byte {at}")]
    LoneSurrogate {
        /// Where its escape starts.
        at: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep {
        /// Where the level that is too much opens.
        at: usize,
    },
}

/// The members of an object: each name unescaped, each value verbatim, in the
/// order of the text.
pub type Members<'a> = Vec<(String, &'a RawValue)>;

/// Splits the text of one object into its members, after checking all of it.
///
/// # Errors
/// [`JsonError`], with the place in the text.
pub fn members(text: &[u8]) -> Result<Members<'_>, JsonError> {
    let mut reader = Reader::new(text)?;
    reader.space();
    if reader.peek() != Some(b'{') {
        return Err(JsonError::NotAnObject { at: reader.at });
    }
    let mut spans = Vec::new();
    reader.object(1, Some(&mut spans))?;
    reader.end()?;
    spans
        .into_iter()
        .map(|(name, start, end)| Ok((name.into_owned(), reader.raw(start, end)?)))
        .collect()
}

/// Checks the text of one value of any kind.
///
/// # Errors
/// [`JsonError`], with the place in the text.
pub fn check(text: &[u8]) -> Result<(), JsonError> {
    let mut reader = Reader::new(text)?;
    reader.space();
    reader.value(1)?;
    reader.end()
}

/// The string that `value` is, unescaped; `None` if it is something else.
#[must_use]
pub fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// One member's name, and where its value starts and ends.
type MemberSpan<'a> = (Cow<'a, str>, usize, usize);

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(text).map_err(|e| JsonError::NotUtf8 {
            at: e.valid_up_to(),
        })?;
        Ok(Self { text, at: 0 })
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(JsonError::Trailing { at: self.at }),
        }
    }

    /// `depth` is that of the array or object that the value may be.
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => self.object(depth, None),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.syntax("a value")),
        }
    }

    fn object(
        &mut self,
        depth: usize,
        mut spans: Option<&mut Vec<MemberSpan<'a>>>,
    ) -> Result<(), JsonError> {
        self.open(depth)?;
        let mut names = BTreeMap::new();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.syntax("a member's name"));
            }
            let name = self.string()?;
            if let Some(first) = names.insert(name.clone(), name_at) {
                return Err(JsonError::Duplicate {
                    first,
                    second: name_at,
                });
            }
            self.space();
            if !self.take(b':') {
                return Err(self.syntax("a colon"));
            }
            self.space();
            let start = self.at;
            self.value(depth + 1)?;
            if let Some(spans) = &mut spans {
                spans.push((name, start, self.at));
            }
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax("a comma or the end of the object"));
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.open(depth)?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax("a comma or the end of the array"));
            }
            self.space();
        }
    }

    /// Steps over the opening bracket of an array or object.
    fn open(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep { at: self.at });
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Reads a string, and unescapes it where it must.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let text = self.text;
        self.at += 1;
        let mut start = self.at;
        let mut unescaped = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    let rest = &text[start..self.at];
                    self.at += 1;
                    if unescaped.is_empty() {
                        return Ok(Cow::Borrowed(rest));
                    }
                    unescaped.push_str(rest);
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => {
                    unescaped.push_str(&text[start..self.at]);
                    unescaped.push(self.escape()?);
                    start = self.at;
                }
                None | Some(0..0x20) => return Err(self.syntax("the rest of a string")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let at = self.at;
        self.at += 1;
        let char = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.code_unit()?;
                return self.code_point(unit, at);
            }
            _ => return Err(self.syntax("an escape")),
        };
        self.at += 1;
        Ok(char)
    }

    /// What `unit` stands for, together with the low surrogate that must
    /// follow a high one.
    fn code_point(&mut self, unit: u32, at: usize) -> Result<char, JsonError> {
        if let Some(char) = char::from_u32(unit) {
            return Ok(char);
        }
        let lone = JsonError::LoneSurrogate { at };
        let followed = self.text[self.at..].starts_with("\\u");
        if unit >= 0xdc00 || !followed {
            return Err(lone);
        }
        self.at += 1;
        let low = self.code_unit()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(lone);
        }
        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or(lone)
    }

    /// Reads `uXXXX`.
    fn code_unit(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            let digit = self.peek().and_then(|c| char::from(c).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.syntax("a hexadecimal digit"))?;
        }
        self.at += 1;
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At least one.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.syntax("a digit"));
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.syntax(word));
        }
        self.at += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
        }
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn syntax(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax {
            expected,
            at: self.at,
        }
    }

    /// A value that this reader has checked, as `serde_json` sees it: a second
    /// opinion, since only `serde_json` makes a [`RawValue`].
    fn raw(&self, start: usize, end: usize) -> Result<&'a RawValue, JsonError> {
        serde_json::from_str(&self.text[start..end]).map_err(|_| JsonError::Syntax {
            expected: "a value",
            at: start,
        })
    }
}

#[cfg(test)]
mod tests;
