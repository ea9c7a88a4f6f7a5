//! `verify`: whether resource servers accept a token, or exactly why not.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::compose;
use super::output::{Failure, say, table};
use crate::api::v1::GetJwksRequest;
use crate::clock::{Clock, SystemClock};
use crate::jose::ServedSet;
use crate::jose::diagnose::{Diagnosis, Expected, diagnose};
use crate::observe::{self, Origin, Trust};
use crate::time::{Span, Time};

/// Longer than any verifier waits for a JWKS.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than a token or a set has; keeps a mistaken file out of memory.
const LARGEST: u64 = 2 << 20;

/// `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The JWKS: a file, or an http or https address. What the agent publishes
    /// where absent.
    #[arg(long, value_name = "FILE|URL")]
    jwks: Option<String>,
    /// For an https address: the roots that its certificate must lead to, PEM;
    /// the system's where absent.
    #[arg(long, value_name = "FILE", requires = "jwks")]
    ca: Option<PathBuf>,
    /// Without --jwks: the key set; may be left out where only one is
    /// configured.
    #[arg(long, value_name = "NAME", conflicts_with = "jwks")]
    key_set: Option<String>,
    /// The `iss` that the token must have. Without --jwks, the key set's; any
    /// otherwise.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// What `aud` must be or contain; anything where absent.
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// How far clocks may be apart, such as 60s.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = span)]
    leeway: Span,
    /// The token; `-` reads standard input, which other users of the machine
    /// cannot see.
    token: String,
}

/// A set, and where it came from.
struct Source {
    /// For people.
    name: String,
    text: Vec<u8>,
    fresh: bool,
    issuer: Option<String>,
}

/// Says whether a token is good; it is an error if it is not.
pub(super) fn run(config: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let token = match args.token.as_str() {
        "-" => {
            let text = read(std::io::stdin(), "standard input")?;
            String::from_utf8_lossy(&text).trim().to_owned()
        }
        token => token.to_owned(),
    };
    let source = match &args.jwks {
        Some(place) => given(place, args.ca)?,
        None => published(config, args.key_set)?,
    };
    let keys = ServedSet::read(&source.text).map_err(|e| {
        Failure::failed(format!("{}: {e}", source.name))
            .hint("a JWKS is a JSON object with an array `keys` (RFC 7517 section 5)")
    })?;
    let issuer = args.issuer.or(source.issuer);
    let found = diagnose(
        &token,
        &keys,
        &Expected {
            now: SystemClock::new().read().wall,
            leeway: args.leeway,
            issuer: issuer.as_deref(),
            audience: args.audience.as_deref(),
            fresh: source.fresh,
        },
    );
    if as_json {
        say(json_of(&found, &keys, &source.name))?;
    } else {
        say(text_of(&found, &source.name))?;
    }
    if found.is_good() {
        return Ok(());
    }
    Err(Failure::told())
}

/// A file or an address.
fn given(place: &str, ca: Option<PathBuf>) -> Result<Source, Failure> {
    let over_tls = place.starts_with("https://");
    if ca.is_some() && !over_tls {
        return Err(Failure::usage("--ca is about an https address")
            .hint("leave it out, or give --jwks an address that begins with https://"));
    }
    if over_tls || place.starts_with("http://") {
        let origin = Origin::new("--jwks", place).map_err(Failure::usage)?;
        let origin = origin.trusting(ca.map_or(Trust::System, Trust::Roots));
        let fetched = compose::block_on(observe::fetch_set(&origin, PATIENCE))?;
        let text = fetched.map_err(|e| {
            Failure::failed(e).hint("a verifier that fetches its keys there gets no further either")
        })?;
        return Ok(Source {
            name: origin.url().to_string(),
            text: text.to_vec(),
            fresh: true,
            issuer: None,
        });
    }
    let path = PathBuf::from(place);
    let file = File::open(&path).map_err(|e| {
        Failure::failed(format!("{}: {e}", path.display()))
            .hint("--jwks takes a file, or an address that begins with https:// or http://")
    })?;
    Ok(Source {
        text: read(file, place)?,
        name: place.to_owned(),
        fresh: false,
        issuer: None,
    })
}

/// What the agent publishes for a key set.
fn published(config: &Path, key_set: Option<String>) -> Result<Source, Failure> {
    let config = compose::config(config)?;
    let key_set = compose::key_set(&config, key_set)?;
    let issuer = config.key_sets.get(&key_set).map(|set| &set.rules);
    let issuer = issuer.map(|rules| rules.issuer().to_owned());
    let request = GetJwksRequest {
        key_set: key_set.clone(),
    };
    let answer = compose::block_on(async {
        let mut signer = compose::signer(&config).await?;
        Ok::<_, Failure>(signer.get_jwks(request).await?.into_inner())
    })??;
    Ok(Source {
        name: format!("the agent's key set {key_set}"),
        text: answer.jwks,
        fresh: true,
        issuer,
    })
}

fn text_of(found: &Diagnosis, source: &str) -> String {
    let mut text = String::new();
    if found.is_good() {
        text.push_str(&format!("good, by the keys of {source}\n"));
    } else {
        text.push_str(&format!("not good, by the keys of {source}\n"));
        for finding in &found.findings {
            text.push_str(&format!(
                "\n{}: {}\n  hint: {}\n",
                finding.code, finding.problem, finding.hint
            ));
        }
    }
    let date = |at: Option<Time>| at.map(|at| at.to_string());
    let facts = [
        ("kid", found.kid.clone()),
        ("alg", found.algorithm.map(|alg| alg.to_string())),
        ("typ", found.typ.clone()),
        ("iss", found.issuer.clone()),
        ("iat", date(found.issued)),
        ("nbf", date(found.not_before)),
        ("exp", date(found.expires)),
    ];
    let rows = facts
        .into_iter()
        .filter_map(|(name, value)| Some(vec![name.to_owned(), value?]));
    text.push('\n');
    text.push_str(&table(&["TOKEN", ""], rows));
    text
}

fn json_of(found: &Diagnosis, keys: &ServedSet, source: &str) -> serde_json::Value {
    let date = |at: Option<Time>| at.map(|at| at.to_string());
    let findings = found.findings.iter().map(|finding| {
        json!({
            "code": finding.code.name(),
            "problem": finding.problem,
            "hint": finding.hint,
        })
    });
    let kids: Vec<&str> = keys.set.keys.iter().map(|jwk| &*jwk.kid).collect();
    json!({
        "good": found.is_good(),
        "kid": found.kid,
        "alg": found.algorithm.map(|alg| alg.to_string()),
        "typ": found.typ,
        "iss": found.issuer,
        "issued": date(found.issued),
        "not_before": date(found.not_before),
        "expires": date(found.expires),
        "findings": findings.collect::<Vec<_>>(),
        "jwks": { "source": source, "kids": kids },
    })
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    from.take(LARGEST)
        .read_to_end(&mut text)
        .map_err(|e| Failure::failed(format!("{name}: {e}")))?;
    Ok(text)
}

fn span(text: &str) -> Result<Span, String> {
    humantime::parse_duration(text)
        .map(Span::from)
        .map_err(|e| format!("expected a duration such as 60s: {e}"))
}
