//! Names of callers, parsed strictly: what is not exactly a name is none.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The longest SPIFFE ID in bytes (SPIFFE-ID section 2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// The longest trust domain in bytes (SPIFFE-ID section 2.3).
const MAX_TRUST_DOMAIN: usize = 255;

/// The longest name of a host in bytes (RFC 1035 section 2.3.4).
const MAX_DNS_NAME: usize = 253;

/// More names than any certificate of a caller needs.
const MAX_NAMES: usize = 64;

/// A caller's stable id: what rules, the record and `callers block` call it.
/// Written as `unix:1000`, `spiffe://domain/path` or `dns:host.example`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerId {
    /// The effective user id of a local process.
    Unix(u32),
    /// The SPIFFE ID of a certificate.
    Spiffe(SpiffeId),
    /// A DNS name of a certificate.
    Dns(DnsName),
}

/// A SPIFFE ID of a workload: `spiffe://trust-domain/path`, in its one
/// canonical spelling (SPIFFE-ID section 2), with a path (X509-SVID section
/// 3: that of a leaf has one).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(String);

/// SPIFFE IDs that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffePattern {
    /// This one.
    Exact(SpiffeId),
    /// All below this path: it ends in `/`, and at least one more segment
    /// follows. Holds the text before the `*`.
    Below(String),
}

/// The name of a host, in lower case: letters, digits, hyphens and underscores
/// between dots (RFC 1123 section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

/// What a certificate says of its holder (subjectAltName, RFC 5280 section
/// 4.2.1.6).
///
/// Invariant: at least one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    spiffe: Option<SpiffeId>,
    dns: BTreeSet<DnsName>,
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// No SPIFFE ID.
    #[error("expected a SPIFFE ID such as spiffe://example.org/service, got {got:?}: {why}")]
    Spiffe {
        /// The text, cut short.
        got: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No DNS name.
    #[error("expected a host's name such as login.example.org, got {got:?}: {why}")]
    Dns {
        /// The text, cut short.
        got: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No caller's id.
    #[error("expected unix:UID, spiffe://DOMAIN/PATH or dns:NAME, got {got:?}")]
    Id {
        /// The text, cut short.
        got: String,
    },
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNames {
    /// It has no DNS name and no SPIFFE ID.
    #[error("the certificate has no DNS name and no SPIFFE ID")]
    None,
    /// A SPIFFE ID stands beside another URI (X509-SVID section 2: exactly
    /// one).
    #[error("expected one URI beside no other where it is a SPIFFE ID, got {0}")]
    ManyUris(usize),
    /// More than anybody needs.
    #[error("expected at most {MAX_NAMES} names, got {0}")]
    TooMany(usize),
    /// One of them is no name.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl SpiffeId {
    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match check_spiffe(text) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(why) => Err(InvalidName::Spiffe {
                got: shortened(text),
                why,
            }),
        }
    }
}

fn check_spiffe(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_SPIFFE_ID {
        return Err("it has more than 2048 bytes");
    }
    let rest = text
        .strip_prefix("spiffe://")
        .ok_or("it does not begin with spiffe://, in lower case")?;
    let (domain, path) = rest
        .split_once('/')
        .ok_or("it has no path, as only a trust domain's own ID has")?;
    let in_domain =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    if domain.is_empty() || domain.len() > MAX_TRUST_DOMAIN || !domain.chars().all(in_domain) {
        return Err("its trust domain is not 1 to 255 of a-z, 0-9, '.', '-' and '_'");
    }
    let in_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err("its path has an empty segment");
        }
        if matches!(segment, "." | "..") {
            return Err("its path has a relative segment");
        }
        // No query, fragment, port, user or percent either.
        if !segment.chars().all(in_path) {
            return Err("its path has other characters than a-z, A-Z, 0-9, '.', '-' and '_'");
        }
    }
    Ok(())
}

impl SpiffePattern {
    /// Whether it is about this workload.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exact(exact) => id == exact,
            Self::Below(prefix) => id.0.len() > prefix.len() && id.0.starts_with(prefix),
        }
    }
}

impl FromStr for SpiffePattern {
    type Err = InvalidName;

    /// A SPIFFE ID, or one with `*` as its last segment.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.strip_suffix("/*") {
            None => Ok(Self::Exact(text.parse()?)),
            Some(above) => {
                // What stands in the star's place is a segment like any other.
                let example = check_spiffe(&format!("{above}/x"));
                example.map_err(|why| InvalidName::Spiffe {
                    got: shortened(text),
                    why,
                })?;
                Ok(Self::Below(format!("{above}/")))
            }
        }
    }
}

impl DnsName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = InvalidName;

    /// Upper case becomes lower case: names are compared without it (RFC 4343).
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let lower = text.to_ascii_lowercase();
        match check_dns(&lower) {
            Ok(()) => Ok(Self(lower)),
            Err(why) => Err(InvalidName::Dns {
                got: shortened(text),
                why,
            }),
        }
    }
}

fn check_dns(name: &str) -> Result<(), &'static str> {
    if name.len() > MAX_DNS_NAME {
        return Err("it has more than 253 bytes");
    }
    let mut last = "";
    for label in name.split('.') {
        if !(1..=63).contains(&label.len()) {
            return Err("expected 1 to 63 characters between dots");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a hyphen stands at an edge");
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if !label.chars().all(fits) {
            return Err("expected letters, digits, hyphens and underscores");
        }
        last = label;
    }
    if last.chars().all(|c| c.is_ascii_digit()) {
        return Err("an address is no name");
    }
    Ok(())
}

impl Names {
    /// Reads a certificate's URIs and DNS names.
    ///
    /// A wildcard (`*.example`) names many hosts and so no one caller: it
    /// counts for nothing. URIs that are no SPIFFE ID count for nothing, unless
    /// a SPIFFE ID stands beside them.
    ///
    /// # Errors
    /// [`InvalidNames`]: then the certificate names nobody, whatever else it
    /// holds.
    pub fn parse(uris: &[&str], dns: &[&str]) -> Result<Self, InvalidNames> {
        let count = uris.len() + dns.len();
        if count > MAX_NAMES {
            return Err(InvalidNames::TooMany(count));
        }
        // However it is spelt: `SPIFFE://` must not pass for something else.
        let is_spiffe = |uri: &&&str| {
            let scheme = uri.get(..7);
            scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
        };
        let spiffe = match uris.iter().find(is_spiffe) {
            Some(_) if uris.len() > 1 => return Err(InvalidNames::ManyUris(uris.len())),
            Some(uri) => Some(uri.parse()?),
            None => None,
        };
        let dns = dns.iter().filter(|name| !name.starts_with("*."));
        let dns: BTreeSet<DnsName> = dns.map(|name| name.parse()).collect::<Result<_, _>>()?;
        if spiffe.is_none() && dns.is_empty() {
            return Err(InvalidNames::None);
        }
        Ok(Self { spiffe, dns })
    }

    /// The SPIFFE ID, if it has one.
    #[must_use]
    pub const fn spiffe(&self) -> Option<&SpiffeId> {
        self.spiffe.as_ref()
    }

    /// The DNS names.
    #[must_use]
    pub const fn dns(&self) -> &BTreeSet<DnsName> {
        &self.dns
    }

    /// All of them; the first is the holder's id.
    pub(super) fn ids(&self) -> impl Iterator<Item = CallerId> {
        let spiffe = self.spiffe.iter().cloned().map(CallerId::Spiffe);
        spiffe.chain(self.dns.iter().cloned().map(CallerId::Dns))
    }
}

impl FromStr for CallerId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.starts_with("spiffe:") {
            return text.parse().map(Self::Spiffe);
        }
        if let Some(name) = text.strip_prefix("dns:") {
            return name.parse().map(Self::Dns);
        }
        let uid = text.strip_prefix("unix:");
        // One spelling for each: no sign, no leading zero.
        let uid = uid.and_then(|uid| Some((uid, uid.parse::<u32>().ok()?)));
        match uid {
            Some((written, uid)) if written == uid.to_string() => Ok(Self::Unix(uid)),
            _ => Err(InvalidName::Id {
                got: shortened(text),
            }),
        }
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(uid) => write!(f, "unix:{uid}"),
            Self::Spiffe(id) => f.write_str(&id.0),
            Self::Dns(name) => write!(f, "dns:{}", name.0),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => f.write_str(&id.0),
            Self::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Enough of a text to know it by. It may be a stranger's.
fn shortened(text: &str) -> String {
    const ENOUGH: usize = 80;
    match text.char_indices().nth(ENOUGH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
