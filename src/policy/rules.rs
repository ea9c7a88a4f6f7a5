//! The rules of one key set, checked: what does not make sense is not loaded.

mod bounds;

use std::collections::BTreeSet;
use std::fmt;

use super::{Caller, Preset, Rate, Reason, Refusal};
use crate::jose::Algorithm;
use crate::time::Span;
use bounds::{check_audiences, check_bounds, check_preset};

pub use super::matcher::Matcher;

/// The largest payload where the configuration names none: 16 KiB.
pub const DEFAULT_MAX_PAYLOAD: usize = 16 * 1024;

/// The claims that the agent vouches for. It adds them where a caller leaves
/// them out, so no rule can forbid them.
pub(super) const OWN_CLAIMS: [&str; 3] = ["iss", "iat", "exp"];

/// The rules of one key set, before they are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The key set's name, for the names of its rules.
    pub key_set: String,
    /// The only `iss` that its tokens may have.
    pub issuer: String,
    /// The furthest that `exp` may lie ahead.
    pub max_token_lifetime: Span,
    /// How far ahead `exp` is put where the caller gives none.
    pub default_lifetime: Span,
    /// How far a caller's `iat` may be from our clock, either way.
    pub skew: Span,
    /// The largest payload in bytes, what the agent adds included.
    pub max_payload: usize,
    /// In order: the first that matches decides.
    pub rules: Vec<Rule>,
}

/// The rules of one key set.
///
/// Invariant: the default lifetime is at least a second and no longer than the
/// longest; each rule has a name of its own, lets somebody do something, and
/// does not contradict itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Draft);

/// Who may do what, with which tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its key set; appears in refusals and in the record.
    pub name: String,
    /// Whom it concerns.
    pub who: Matcher,
    /// What they may do.
    pub operations: BTreeSet<Operation>,
    /// With which algorithms.
    pub algorithms: Algorithms,
    /// The allowed `typ` of the header; the first is the default.
    pub typ: Vec<Typ>,
    /// Claims that must be there, and not `null`.
    pub required: BTreeSet<String>,
    /// Claims that must not be there.
    pub forbidden: BTreeSet<String>,
    /// What every `aud` must be one of; any, or none, where absent.
    pub audiences: Option<Vec<Audience>>,
    /// What kind of token it is for. Its `typ` are among the preset's.
    pub preset: Option<Preset>,
    /// The furthest that `exp` may lie ahead; the key set's where absent, and
    /// never further.
    pub max_lifetime: Option<Span>,
    /// The largest payload in bytes; the key set's where absent, and never
    /// larger.
    pub max_payload: Option<usize>,
    /// How many signatures each caller gets; no bound of its own where absent.
    pub rate: Option<Rate>,
}

/// What a caller can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Claims in, token out.
    SignJwt,
    /// A signing input in, a signature out.
    SignJws,
}

/// The algorithms of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithms {
    /// Whatever the key set has.
    All,
    /// These.
    Only(BTreeSet<Algorithm>),
}

/// A header's `typ` (RFC 7515 section 4.1.9), compared exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Typ {
    /// The header has no `typ`. For authorization servers that assemble their
    /// own headers without one; explicit typing is safer (RFC 8725 section
    /// 3.11).
    Absent,
    /// Such as `at+jwt`, without `application/`.
    Is(String),
}

/// What an audience may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Exactly this.
    Exact(String),
    /// This and anything after it. Ends in `/` or `:`, and that of a URL not
    /// before its host does, so that `https://api.example.com` does not let
    /// `https://api.example.com.evil` in, nor `https://api.example.com:`
    /// `https://api.example.com:x@evil`.
    Prefix(String),
}

/// Why a draft does not make sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidRules {
    /// The rule's place in the list; `None` for the key set's own fields.
    pub rule: Option<usize>,
    /// The field of [`Draft`] or [`Rule`].
    pub field: &'static str,
    /// What is wrong, with values.
    pub problem: String,
}

impl TryFrom<Draft> for Rules {
    type Error = InvalidRules;

    fn try_from(draft: Draft) -> Result<Self, InvalidRules> {
        check_limits(&draft).map_err(|(field, problem)| InvalidRules {
            rule: None,
            field,
            problem,
        })?;
        let mut names = BTreeSet::new();
        for (at, rule) in draft.rules.iter().enumerate() {
            let unique = names.insert(rule.name.as_str());
            let checked = check_rule(rule, unique).and_then(|()| check_bounds(&draft, rule));
            checked.map_err(|(field, problem)| InvalidRules {
                rule: Some(at),
                field,
                problem,
            })?;
        }
        Ok(Self(draft))
    }
}

/// A field and what is wrong with it.
type Problem = (&'static str, String);

fn check_limits(draft: &Draft) -> Result<(), Problem> {
    let problem = |field, problem: String| Err((field, problem));
    if draft.issuer.is_empty() || draft.issuer.chars().any(char::is_control) {
        return problem(
            "issuer",
            "expected a name without control characters".into(),
        );
    }
    if draft.default_lifetime < Span::from_secs(1) {
        return problem(
            "default_lifetime",
            format!("expected at least 1s, got {}", draft.default_lifetime),
        );
    }
    if draft.default_lifetime > draft.max_token_lifetime {
        return problem(
            "default_lifetime",
            format!(
                "expected at most max_token_lifetime = {}, got {}",
                draft.max_token_lifetime, draft.default_lifetime
            ),
        );
    }
    if draft.max_payload == 0 {
        return problem("max_payload", "expected at least 1 byte, got 0".into());
    }
    Ok(())
}

fn check_rule(rule: &Rule, unique: bool) -> Result<(), Problem> {
    let problem = |field, problem: String| Err((field, problem));
    if rule.name.is_empty() {
        return problem("name", "expected a name, got nothing".into());
    }
    if !unique {
        return problem("name", format!("two rules are named {:?}", rule.name));
    }
    if let Err(why) = rule.who.check() {
        return problem("who", why.to_owned());
    }
    if rule.operations.is_empty() {
        return problem("operations", "expected at least one, got none".into());
    }
    if matches!(&rule.algorithms, Algorithms::Only(set) if set.is_empty()) {
        return problem("algorithms", "expected at least one, got none".into());
    }
    if rule.typ.is_empty() {
        return problem("typ", "expected at least one, got none".into());
    }
    if let Some(bad) = rule.typ.iter().find(|typ| !typ.is_sound()) {
        return problem(
            "typ",
            format!("expected a media type without application/, got {bad}"),
        );
    }
    if let Some(both) = rule.required.intersection(&rule.forbidden).next() {
        return problem("forbidden", format!("{both:?} is also required"));
    }
    if let Some(own) = OWN_CLAIMS.iter().find(|own| rule.forbidden.contains(**own)) {
        return problem("forbidden", format!("every token has {own:?}"));
    }
    check_preset(rule)?;
    check_audiences(rule.audiences.as_deref())
}

impl Rules {
    /// The key set's name.
    #[must_use]
    pub fn key_set(&self) -> &str {
        &self.0.key_set
    }

    /// The only `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The furthest that `exp` may lie ahead.
    #[must_use]
    pub const fn max_token_lifetime(&self) -> Span {
        self.0.max_token_lifetime
    }

    /// How far ahead `exp` is put where the caller gives none.
    #[must_use]
    pub const fn default_lifetime(&self) -> Span {
        self.0.default_lifetime
    }

    /// How far a caller's `iat` may be from our clock.
    #[must_use]
    pub const fn skew(&self) -> Span {
        self.0.skew
    }

    /// The largest payload in bytes.
    #[must_use]
    pub const fn max_payload(&self) -> usize {
        self.0.max_payload
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// The first rule that lets `caller` do this; `typ` is `None` where the
    /// caller leaves it to the rule.
    ///
    /// Where there is none, the refusal is about the rule that came closest:
    /// who asks for the wrong `typ` wants to hear of `typ`.
    pub(super) fn rule_for(
        &self,
        caller: &Caller,
        operation: Operation,
        algorithm: Algorithm,
        typ: Option<&Typ>,
    ) -> Result<&Rule, Refusal> {
        let mine = || self.0.rules.iter().filter(|rule| rule.who.matches(caller));
        let able = || mine().filter(|rule| rule.operations.contains(&operation));
        let fit = || able().filter(|rule| rule.algorithms.contains(algorithm));
        let found = fit().find(|rule| typ.is_none_or(|typ| rule.typ.contains(typ)));
        if let Some(rule) = found {
            return Ok(rule);
        }
        if let Some(rule) = fit().next() {
            let allowed = list(fit().flat_map(|rule| &rule.typ));
            return Err(self.refuse(
                Reason::HeaderNotAllowed,
                rule.path(self, "typ"),
                format!("expected typ {allowed}, got {}", shape(typ)),
                "use an allowed typ, or ask the operator to allow this one",
            ));
        }
        if let Some(rule) = able().next() {
            return Err(self.refuse(
                Reason::NotAllowed,
                rule.path(self, "algorithms"),
                format!("no rule lets {caller} {operation} with {algorithm}"),
                "use another algorithm, or ask the operator to allow this one",
            ));
        }
        if let Some(rule) = mine().next() {
            return Err(self.refuse(
                Reason::NotAllowed,
                rule.path(self, "operations"),
                format!("no rule lets {caller} {operation}"),
                "use another call, or ask the operator to allow this one",
            ));
        }
        Err(self.refuse(
            Reason::NotAllowed,
            format!("key_set.{}.rule", self.0.key_set),
            format!("no rule is about {caller}"),
            "an operator adds a rule that names this caller: `sealkeeper policy test` tries the rules out, `sealkeeper doctor` looks at them",
        ))
    }

    /// The path of one of the key set's own fields.
    pub(super) fn path(&self, field: &str) -> String {
        format!("key_set.{}.{field}", self.0.key_set)
    }

    #[expect(clippy::unused_self, reason = "reads as the rules speaking")]
    pub(super) fn refuse(
        &self,
        reason: Reason,
        rule: String,
        message: String,
        hint: impl Into<String>,
    ) -> Refusal {
        Refusal::new(reason, rule, message, hint)
    }

    /// What a caller is told who has used up what a rule grants.
    #[must_use]
    pub fn rate_limited(&self, rule: &str, rate: Rate, retry_after: Span) -> Refusal {
        let Rate { count, per, burst } = rate;
        let refusal = Refusal::new(
            Reason::RateLimited,
            self.path(&format!("rule.{rule}.rate")),
            format!("expected at most {count} signatures in {per}, {burst} of them at once"),
            format!("try again after {retry_after}, and less often"),
        );
        Refusal {
            retry_after: Some(retry_after),
            ..refusal
        }
    }

    /// The same key set with this one rule, to learn what that alone says.
    #[must_use]
    pub fn alone(&self, rule: &Rule) -> Self {
        // Invariant: what holds for each of several rules holds for one.
        Self(Draft {
            rules: vec![rule.clone()],
            ..self.0.clone()
        })
    }
}

impl Rule {
    /// The furthest that `exp` may lie ahead, and the setting that says so.
    pub(super) fn lifetime(&self, rules: &Rules) -> (Span, String) {
        match self.max_lifetime {
            Some(own) => (own, self.path(rules, "max_lifetime")),
            None => (rules.max_token_lifetime(), rules.path("max_token_lifetime")),
        }
    }

    /// The largest payload in bytes, and the setting that says so.
    pub(super) fn payload(&self, rules: &Rules) -> (usize, String) {
        match self.max_payload {
            Some(own) => (own, self.path(rules, "max_payload")),
            None => (rules.max_payload(), rules.path("max_payload")),
        }
    }

    /// The path of one of this rule's fields.
    pub(super) fn path(&self, rules: &Rules, field: &str) -> String {
        format!("key_set.{}.rule.{}.{field}", rules.0.key_set, self.name)
    }
}

impl Algorithms {
    /// Whether this algorithm is one of them.
    #[must_use]
    pub fn contains(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::All => true,
            Self::Only(set) => set.contains(&algorithm),
        }
    }
}

impl Typ {
    /// What goes into the header.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Is(name) => Some(name.clone()),
        }
    }

    /// Media types are made of these characters (RFC 6838 section 4.2), so a
    /// `typ` needs no escaping in JSON.
    fn is_sound(&self) -> bool {
        let Self::Is(name) = self else { return true };
        let sound = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+/".contains(c);
        (1..=127).contains(&name.len())
            && name.chars().all(sound)
            && !name.to_ascii_lowercase().starts_with("application/")
    }
}

impl Audience {
    /// Whether it lets this audience in.
    #[must_use]
    pub fn allows(&self, audience: &str) -> bool {
        match self {
            Self::Exact(text) => audience == text,
            Self::Prefix(text) => audience.starts_with(text),
        }
    }
}

impl fmt::Display for Typ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("(none)"),
            Self::Is(name) => write!(f, "{name:?}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SignJwt => "sign_jwt",
            Self::SignJws => "sign_jws",
        })
    }
}

/// Our own names, each once, as a sentence has them.
fn list<'a>(typs: impl Iterator<Item = &'a Typ>) -> String {
    let mut names = Vec::new();
    for typ in typs {
        let name = typ.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" or ")
}

/// What can be said of a caller's `typ` without repeating it.
const fn shape(typ: Option<&Typ>) -> &'static str {
    match typ {
        None | Some(Typ::Absent) => "none",
        Some(Typ::Is(_)) => "another",
    }
}

#[cfg(test)]
mod tests;
