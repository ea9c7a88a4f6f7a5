//! What the end of a key means, for whoever thinks of it, or has done it.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::advice::Advice;
use super::keys::{date, rfc3339};
use super::output::{Failure, warn};
use crate::agent::impact::UNDATED;
use crate::api::v1::key_admin_client::KeyAdminClient;
use crate::api::v1::{CallerTokens, GetHealthRequest, PreviewRevocationResponse, RevocationImpact};

/// How many callers people are told of; JSON has all that the agent tells.
const TOLD: usize = 10;

/// After this long whoever waits is told what for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longer than any order takes: one for a whole device waits for its keys one
/// after the other, and a preview reads the log for a minute.
const LONGEST: Duration = Duration::from_secs(180);

/// Waits for an answer that takes as long as the log of signatures is, and no
/// longer than the agent shows signs of life. What the wait is for is told
/// once the agent was heard of: before that nothing is known.
pub(super) async fn waited_for<T>(
    admin: &KeyAdminClient<Channel>,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    let mut answer = std::pin::pin!(answer);
    if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut answer).await {
        return answer;
    }
    let mut admin = admin.clone();
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        alive = admin.get_health(GetHealthRequest {}) => if alive.is_ok() {
            warn("the agent is still at it, and may be reading its log of signatures; a revocation blocks its key before that");
        },
    }
    match tokio::time::timeout(LONGEST, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the agent runs, and has not answered within {LONGEST:?}: `sealkeeper keys list` shows what it has done"
        ))),
    }
}

/// Tells what a revocation would mean.
pub(super) fn tell_preview(
    preview: &PreviewRevocationResponse,
    advice: &Advice,
    as_json: bool,
) -> Result<(), Failure> {
    let impact = preview.impact.as_ref();
    if as_json {
        return advice.say_json(json!({
            "dry_run": true,
            "impact": impact.map(json_of),
            "notes": preview.notes,
        }));
    }
    advice.say("dry run: nothing was changed. After the revocation:")?;
    if let Some(impact) = impact {
        tell(impact, advice)?;
        let until = date(impact.trusted_until.as_ref());
        advice.say(format!(
            "until:   {until} bounded verifiers may still trust the key"
        ))?;
        advice.say(format!("until:   {}", unbounded(impact)))?;
    }
    for note in &preview.notes {
        advice.say(format!("note:    {note}"))?;
    }
    Ok(())
}

/// Tells it to people: tokens, callers, what signs, what verifiers get.
pub(super) fn tell(impact: &RevocationImpact, advice: &Advice) -> Result<(), Failure> {
    for line in text_of(impact) {
        advice.say(line)?;
    }
    Ok(())
}

fn text_of(impact: &RevocationImpact) -> Vec<String> {
    let mut lines = vec![format!("tokens:  {}", tokens(impact))];
    let others = impact.tokens_of_others;
    lines.extend(callers(&impact.callers, others, &impact.log_gaps));
    let at = date(impact.next_at.as_ref());
    lines.push(match (impact.signs.as_str(), impact.next_kid.as_str()) {
        ("", "") if impact.fresh_enters && impact.fresh_active => {
            format!("signs:   {FRESH}, before every verifier can hold it")
        }
        ("", "") if impact.next_at.is_none() => "signs:   nothing".to_owned(),
        ("", "") if impact.fresh_enters => {
            format!("signs:   nothing before {at}, then {FRESH}")
        }
        ("", "") => format!("signs:   nothing before {at}"),
        ("", next) => format!("signs:   nothing before {at}, then {next}"),
        (kid, _) => format!("signs:   {kid}"),
    });
    if impact.next_at.is_some() && impact.signs.is_empty() {
        let waits = impact.waits_for.iter();
        lines.extend(waits.map(|wait| format!("         that waits for {wait}")));
    }
    lines.push(match (impact.placeholder, impact.jwks.len()) {
        (_, 0) if impact.fresh_enters => format!("jwks:    {FRESH}"),
        (true, _) => "jwks:    the placeholder alone".to_owned(),
        (false, 0) => "jwks:    none".to_owned(),
        (false, _) => format!("jwks:    {}", impact.jwks.join(", ")),
    });
    lines
}

/// Who has how many tokens, and what else there may be.
pub(super) fn callers(callers: &[CallerTokens], others: u64, gaps: &[String]) -> Vec<String> {
    let told = |caller: &CallerTokens| {
        let until = caller.latest_exp.as_ref();
        let until = until.map(|at| format!(", the last until {}", date(Some(at))));
        let until = until.unwrap_or_default();
        format!("         {} of {}{until}", caller.tokens, caller.caller)
    };
    let mut lines: Vec<String> = callers.iter().take(TOLD).map(told).collect();
    let more = callers.iter().skip(TOLD).map(|caller| caller.tokens);
    let others = more.sum::<u64>() + others;
    if others > 0 {
        lines.push(format!("         {others} of others (--json tells more)"));
    }
    let gaps = gaps.iter();
    lines.extend(gaps.map(|gap| format!("         and perhaps more: {gap}")));
    lines
}

/// The same for programs.
pub(super) fn json_of_callers(callers: &[CallerTokens]) -> Value {
    let callers = callers.iter().map(|caller| {
        json!({
            "caller": caller.caller,
            "tokens": caller.tokens,
            "latest_exp": rfc3339(caller.latest_exp.as_ref()),
        })
    });
    callers.collect()
}

/// What has no id yet.
const FRESH: &str = "a key that is made in the same change";

fn tokens(impact: &RevocationImpact) -> String {
    let count = match impact.tokens {
        0 => "none unexpired".to_owned(),
        n => format!("{n} unexpired"),
    };
    let last = date(impact.latest_exp.as_ref());
    match (impact.latest_exp.is_some(), impact.latest_exp_from_log) {
        (true, true) => format!("{count}, the last until {last}, by the log of signatures"),
        (true, false) => format!("{count} in the log of signatures; none lives after {last}"),
        (false, true) => format!("{count}, by the log of signatures"),
        (false, false) => format!("{count} in the log of signatures, as far as it was read"),
    }
}

/// Until when the verifiers trust the key that no time bounds.
fn unbounded(impact: &RevocationImpact) -> String {
    let kinds = impact.unbounded_verifiers.join(", ");
    let met = match (impact.fresh_active, &impact.fresh_expected) {
        (true, _) => "which signs already".to_owned(),
        (false, None) => UNDATED.to_owned(),
        (false, at) if impact.waits_for.is_empty() => {
            format!("expected to be active at {}", date(at.as_ref()))
        }
        (false, at) => format!(
            "expected to be active at {}, which waits for {}",
            date(at.as_ref()),
            impact.waits_for.join(" and ")
        ),
    };
    format!(
        "verifiers that fetch only at an unknown kid ({kinds}, and others) meet a key made after the revocation, {met}, or restart"
    )
}

/// The same for programs.
pub(super) fn json_of(impact: &RevocationImpact) -> Value {
    json!({
        "kid": impact.kid,
        "tokens": impact.tokens,
        "latest_exp": rfc3339(impact.latest_exp.as_ref()),
        "latest_exp_from_log": impact.latest_exp_from_log,
        "callers": json_of_callers(&impact.callers),
        "tokens_of_others": impact.tokens_of_others,
        "log_gaps": impact.log_gaps,
        "signs": Some(&impact.signs).filter(|kid| !kid.is_empty()),
        "next": impact.next_at.as_ref().map(|at| json!({
            "kid": Some(&impact.next_kid).filter(|kid| !kid.is_empty()),
            "at": rfc3339(Some(at)),
        })),
        "waits_for": impact.waits_for,
        "jwks": impact.jwks,
        "placeholder": impact.placeholder,
        "fresh_enters": impact.fresh_enters,
        "trusted_until": rfc3339(impact.trusted_until.as_ref()),
        "unbounded": {
            "verifiers": impact.unbounded_verifiers,
            "fresh_active": impact.fresh_active,
            "fresh_expected": rfc3339(impact.fresh_expected.as_ref()),
        },
    })
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn impact() -> RevocationImpact {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let caller = |n: u64| CallerTokens {
            caller: format!("unix:{n}"),
            tokens: 100 - n,
            latest_exp: None,
        };
        RevocationImpact {
            kid: "key-1".into(),
            tokens: 5000,
            latest_exp: at(1_800_000_000),
            latest_exp_from_log: true,
            callers: (0..12).map(caller).collect(),
            tokens_of_others: 7,
            next_at: at(1_800_000_060),
            jwks: vec!["key-2".into(), "key-3".into()],
            fresh_expected: at(1_800_086_400),
            unbounded_verifiers: vec!["go-oidc".into()],
            ..Default::default()
        }
    }

    #[test]
    fn people_read_what_it_breaks() {
        let text = text_of(&impact()).join("\n");
        for told in [
            "5000 unexpired, the last until 2027-01-15T08:00:00Z, by the log",
            "100 of unix:0",
            "91 of unix:9\n         186 of others",
            "nothing before 2027-01-15T08:01:00Z",
            "jwks:    key-2, key-3",
        ] {
            assert!(text.contains(told), "{told:?} in {text}");
        }
        let bound = RevocationImpact {
            latest_exp_from_log: false,
            log_gaps: vec!["3 lines are damaged".into()],
            signs: "key-2".into(),
            placeholder: true,
            ..impact()
        };
        let text = text_of(&bound).join("\n");
        for told in [
            "none lives after 2027-01-15T08:00:00Z",
            "and perhaps more: 3 lines are damaged",
            "signs:   key-2",
            "the placeholder alone",
        ] {
            assert!(text.contains(told), "{told:?} in {text}");
        }
    }

    #[test]
    fn people_read_for_whom_no_time_bounds_it() {
        let expected = unbounded(&impact());
        assert!(
            expected.contains("go-oidc") && expected.contains("active at 2027-01-16"),
            "{expected}"
        );
        let waits = RevocationImpact {
            waits_for: vec!["the origin web to answer".into()],
            ..impact()
        };
        let told = unbounded(&waits);
        assert!(
            told.contains("which waits for the origin web to answer, or"),
            "{told}"
        );
        let text = text_of(&waits).join("\n");
        let told = "2027-01-15T08:01:00Z\n         that waits for the origin web to answer\n";
        assert!(text.contains(told), "{text}");
        let met = RevocationImpact {
            fresh_active: true,
            ..impact()
        };
        assert!(unbounded(&met).contains("signs already"));
    }
}
