//! `policy test`: whether a request would pass, by the configuration alone.
//! Nothing is signed, and no agent is asked.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::compose;
use super::output::{Failure, say, table};
use super::sign::read_argument;
use crate::clock::{Clock, SystemClock};
use crate::config::KeySet;
use crate::jose::{Algorithm, SigningInput, jws};
use crate::policy::{
    self, Caller, CheckError, JwsRequest, JwtRequest, KeyFacts, Names, Refusal, Rule, Rules,
};
use crate::time::Time;

/// What stands for the active key's id, which the agent alone knows.
const ACTIVE: &str = "(the active key)";

/// `policy test`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key set; may be left out where only one is configured.
    #[arg(long, value_name = "NAME")]
    key_set: Option<String>,
    /// The caller's user id; yours where absent.
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// The caller's group ids, the effective one first; yours where absent.
    #[arg(long, value_name = "GID")]
    gid: Vec<u32>,
    /// A DNS name of the caller's certificate; may be repeated.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["uid", "gid"])]
    dns: Vec<String>,
    /// The SPIFFE ID of the caller's certificate.
    #[arg(long, value_name = "ID", conflicts_with_all = ["uid", "gid"])]
    spiffe: Option<String>,
    /// The track; the default track where absent.
    #[arg(long, value_name = "ALG", conflicts_with = "signing_input")]
    alg: Option<Algorithm>,
    /// The header's `typ`; the rule's default where absent.
    #[arg(long, conflicts_with = "signing_input")]
    typ: Option<String>,
    /// The request is a signing input, as for `SignJws`, and no claims.
    #[arg(long)]
    signing_input: bool,
    /// The claims, a JSON object, or the signing input; `-` reads standard
    /// input.
    request: String,
}

/// A request to either call.
enum Asked {
    Jwt(JwtRequest, KeyFacts),
    Jws(JwsRequest, Vec<KeyFacts>),
}

/// What would be signed.
struct Allowed {
    rule: String,
    header: Value,
    payload: Vec<u8>,
}

/// Says whether a request passes; it is an error if it does not.
pub(super) fn test(config: &Path, args: Args, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(config)?;
    let name = compose::key_set(&config, args.key_set.clone())?;
    let set = config
        .key_sets
        .get(&name)
        .ok_or_else(|| Failure::usage(format!("no key set {name:?} is configured")))?;
    let caller = caller(&args)?;
    let asked = asked(&name, set, args)?;
    let now = SystemClock::new().read().wall;
    let decided = asked.check(&set.rules, &caller, now);
    let verdicts: Vec<(&Rule, Result<Allowed, Refusal>)> = set
        .rules
        .rules()
        .iter()
        .map(|rule| (rule, asked.check(&set.rules.alone(rule), &caller, now)))
        .collect();
    if as_json {
        say(json_of(&name, &caller, &decided, &verdicts))?;
    } else {
        say(text_of(&name, &caller, &decided, &verdicts))?;
    }
    match decided {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::told()),
    }
}

fn caller(args: &Args) -> Result<Caller, Failure> {
    if args.spiffe.is_some() || !args.dns.is_empty() {
        let uris: Vec<&str> = args.spiffe.as_deref().into_iter().collect();
        let dns: Vec<&str> = args.dns.iter().map(String::as_str).collect();
        let names = Names::parse(&uris, &dns).map_err(|e| Failure::usage(e.to_string()))?;
        return Ok(Caller::Tls { names });
    }
    let groups = match (args.uid, &args.gid[..]) {
        (None, []) => own_groups()?,
        (_, gids) => gids.iter().copied().collect(),
    };
    Ok(Caller::Unix {
        uid: args
            .uid
            .unwrap_or_else(|| rustix::process::geteuid().as_raw()),
        gid: args.gid.first().copied().unwrap_or_else(own_group),
        groups,
        pid: None,
    })
}

/// Who runs this, as the agent would see them.
pub(super) fn own_caller() -> Result<Caller, Failure> {
    Ok(Caller::Unix {
        uid: rustix::process::geteuid().as_raw(),
        gid: own_group(),
        groups: own_groups()?,
        pid: None,
    })
}

fn own_group() -> u32 {
    rustix::process::getegid().as_raw()
}

fn own_groups() -> Result<BTreeSet<u32>, Failure> {
    let groups = rustix::process::getgroups()
        .map_err(|e| Failure::failed(format!("your groups cannot be read: {e}")))?;
    Ok(groups
        .into_iter()
        .map(rustix::process::Gid::as_raw)
        .collect())
}

fn asked(name: &str, set: &KeySet, args: Args) -> Result<Asked, Failure> {
    let request = read_argument(args.request)?;
    // No token outlives a ceiling that is not reached yet: the agent raises it
    // in time.
    let facts = |algorithm, kid: &str| KeyFacts {
        algorithm,
        kid: kid.to_owned(),
        exp_limit: Time::FAR_FUTURE,
    };
    let has = |algorithm| set.tracks.iter().any(|(track, _)| *track == algorithm);
    if args.signing_input {
        let request = request.trim_ascii().to_vec();
        // Whether the named key is the active one, the agent alone knows.
        let named = SigningInput::parse(&request, request.len())
            .ok()
            .map(|input| input.header)
            .filter(|header| has(header.algorithm))
            .and_then(|header| Some(facts(header.algorithm, &header.kid?)));
        return Ok(Asked::Jws(
            JwsRequest {
                key_set: name.to_owned(),
                signing_input: request,
            },
            named.into_iter().collect(),
        ));
    }
    // Invariant: a configuration has no key set without a track.
    let algorithm = args.alg.unwrap_or(set.tracks[0].0);
    if !has(algorithm) {
        let known: Vec<String> = set.tracks.iter().map(|(alg, _)| alg.to_string()).collect();
        return Err(
            Failure::failed(format!("the key set {name} has no track of {algorithm}"))
                .hint(format!("it has {}", known.join(", "))),
        );
    }
    Ok(Asked::Jwt(
        JwtRequest {
            key_set: name.to_owned(),
            algorithm: args.alg,
            typ: args.typ,
            claims: request,
        },
        facts(algorithm, ACTIVE),
    ))
}

impl Asked {
    fn check(&self, rules: &Rules, caller: &Caller, now: Time) -> Result<Allowed, Refusal> {
        let refused = |error| match error {
            CheckError::Refused(refusal) => refusal,
            // Invariant: the ceilings here are never reached.
            CheckError::CeilingReached { exp, .. } => Refusal::new(
                policy::Reason::ExpTooFar,
                "builtin.ceiling",
                format!("expected an exp that can be, got {exp}"),
                "set an earlier exp",
            ),
        };
        match self {
            Self::Jwt(request, key) => {
                let checked =
                    policy::check_jwt(rules, caller, request, key, now).map_err(refused)?;
                let header = jws::Header {
                    algorithm: key.algorithm,
                    kid: key.kid.clone(),
                    typ: checked.typ,
                };
                Ok(Allowed {
                    rule: checked.rule,
                    header: serde_json::to_value(header).unwrap_or_default(),
                    payload: checked.payload,
                })
            }
            Self::Jws(request, keys) => {
                let checked =
                    policy::check_jws(rules, caller, request, keys, now).map_err(refused)?;
                let input = &request.signing_input;
                let payload = SigningInput::parse(input, input.len())
                    .map(|input| input.payload)
                    .unwrap_or_default();
                let header = jws::Header {
                    algorithm: checked.algorithm,
                    kid: checked.kid,
                    typ: checked.typ,
                };
                Ok(Allowed {
                    rule: checked.rule,
                    header: serde_json::to_value(header).unwrap_or_default(),
                    payload,
                })
            }
        }
    }
}

/// Whether a rule decides, would allow as well, or refuses.
fn verdict(
    rule: &Rule,
    alone: &Result<Allowed, Refusal>,
    decided: &Result<Allowed, Refusal>,
) -> &'static str {
    let first = decided
        .as_ref()
        .is_ok_and(|allowed| allowed.rule == rule.name);
    match alone {
        Ok(_) if first => "allows",
        Ok(_) => "would allow",
        Err(_) => "refuses",
    }
}

fn text_of(
    name: &str,
    caller: &Caller,
    decided: &Result<Allowed, Refusal>,
    verdicts: &[(&Rule, Result<Allowed, Refusal>)],
) -> String {
    let mut text = match decided {
        Ok(allowed) => format!("allowed: {caller} by the rule {}\n", allowed.rule),
        Err(refusal) => format!(
            "refused: {refusal} ({})\n  rule: {}\n  hint: {}\n",
            refusal.reason, refusal.rule, refusal.hint
        ),
    };
    let rows = verdicts.iter().map(|(rule, alone)| {
        let misses = rule.who.misses(caller);
        let refused = |refusal: &Refusal| match misses.as_slice() {
            [] => refusal.to_string(),
            misses => misses.join(", and "),
        };
        let why = alone.as_ref().map_or_else(refused, |_| {
            rule.rate.map_or(String::new(), |rate| {
                format!("at most {} in {}, not counted here", rate.count, rate.per)
            })
        });
        vec![
            rule.name.clone(),
            verdict(rule, alone, decided).to_owned(),
            why,
        ]
    });
    text.push_str(&format!("\nrules of {name}, in order\n"));
    text.push_str(&table(&["RULE", "VERDICT", "WHY"], rows));
    if let Ok(allowed) = decided {
        text.push_str(&format!(
            "\n\nwould be signed\nheader  {}\nclaims  {}",
            allowed.header,
            String::from_utf8_lossy(&allowed.payload)
        ));
    }
    text
}

fn json_of(
    name: &str,
    caller: &Caller,
    decided: &Result<Allowed, Refusal>,
    verdicts: &[(&Rule, Result<Allowed, Refusal>)],
) -> Value {
    let refusal = |refusal: &Refusal| {
        json!({
            "reason": refusal.reason.code(),
            "rule": refusal.rule,
            "message": refusal.message,
            "hint": refusal.hint,
        })
    };
    let rules = verdicts.iter().map(|(rule, alone)| {
        let misses = rule.who.misses(caller);
        json!({
            "name": rule.name,
            "verdict": verdict(rule, alone, decided),
            // Of a rule about others, what it misses is all there is to say.
            "refusal": alone.as_ref().err().filter(|_| misses.is_empty()).map(refusal),
            "misses": misses,
        })
    });
    json!({
        "allowed": decided.is_ok(),
        "key_set": name,
        "caller": caller.to_string(),
        "rule": decided.as_ref().ok().map(|allowed| &allowed.rule),
        "refusal": decided.as_ref().err().map(refusal),
        "rules": rules.collect::<Vec<_>>(),
        "would_sign": decided.as_ref().ok().map(|allowed| json!({
            "header": allowed.header,
            "claims": String::from_utf8_lossy(&allowed.payload),
        })),
    })
}
