//! Kinds of tokens that a standard describes: what their headers and claims
//! must look like, so that a rule needs to name the kind alone.

use std::fmt;

use super::Typ;

/// A kind of token. What it demands comes on top of a rule's own demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preset {
    /// A JWT access token (RFC 9068 section 2).
    AccessToken,
    /// An ID token (OpenID Connect Core 1.0 section 2).
    IdToken,
}

/// What a claim must be where it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string.
    Text,
    /// A string of at most 255 ASCII characters.
    ShortAscii,
    /// A list of strings.
    Texts,
    /// A JSON integer, in seconds.
    Date,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 2] = [Self::AccessToken, Self::IdToken];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccessToken => "at+jwt",
            Self::IdToken => "id-token",
        }
    }

    /// What the header's `typ` may be; the first is the default.
    #[must_use]
    pub fn typ(self) -> Vec<Typ> {
        match self {
            // Section 2.1: so that no ID token is taken for an access token.
            Self::AccessToken => vec![Typ::Is("at+jwt".to_owned())],
            Self::IdToken => vec![Typ::Is("JWT".to_owned()), Typ::Absent],
        }
    }

    /// The claims that must be there, and not `null`.
    #[must_use]
    pub const fn required(self) -> &'static [&'static str] {
        match self {
            Self::AccessToken => &["iss", "exp", "aud", "sub", "client_id", "iat", "jti"],
            Self::IdToken => &["iss", "sub", "aud", "exp", "iat"],
        }
    }

    /// Where that is written.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::AccessToken => "RFC 9068 section 2.2",
            Self::IdToken => "OpenID Connect Core section 2",
        }
    }

    /// The types of claims beyond those that every token is held to.
    pub(super) const fn shapes(self) -> &'static [(&'static str, Shape)] {
        use Shape::{Date, ShortAscii, Text, Texts};
        match self {
            Self::AccessToken => &[
                ("client_id", Text),
                ("scope", Text),
                ("auth_time", Date),
                ("acr", Text),
                ("amr", Texts),
            ],
            Self::IdToken => &[
                ("sub", ShortAscii),
                ("nonce", Text),
                ("auth_time", Date),
                ("acr", Text),
                ("amr", Texts),
                ("azp", Text),
                ("at_hash", Text),
                ("c_hash", Text),
            ],
        }
    }
}

impl Shape {
    /// As in "expected `sub` to be ...".
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::ShortAscii => "a string of at most 255 ASCII characters",
            Self::Texts => "a list of strings",
            Self::Date => "a JSON integer, in seconds",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
