//! Origins in `sealkeeper.v1.KeyAdmin`.

use super::desk::timestamp;
use super::status::Fault;
use crate::agent::OriginHealth;
use crate::agent::admin::{Change, SightingStatus};
use crate::api::v1;
use crate::keyring::Wrong;
use crate::time::Span;

/// A waiver as it is asked for. `note` is checked.
pub(super) fn waive(
    order: Option<v1::Order>,
    origin: String,
    span: Option<prost_types::Duration>,
    note: String,
) -> Result<(Option<v1::Order>, Change), Fault> {
    if note.trim().is_empty() {
        return Err(Fault::field(
            "note",
            "expected why, got nothing".into(),
            "say in a few words why nobody should wait for it: it goes on record",
        ));
    }
    let span = span.and_then(|span| std::time::Duration::try_from(span).ok());
    let Some(span) = span else {
        return Err(Fault::field(
            "span",
            "expected a length of time, got none".into(),
            "say for how long: it counts again by itself after that",
        ));
    };
    let span = Span::from(span);
    Ok((order, Change::WaiveOrigin { origin, span, note }))
}

pub(super) fn sighting(sighting: SightingStatus) -> v1::Sighting {
    let (mut instead, mut addresses) = (String::new(), Vec::new());
    if let Some(wrong) = sighting.wrong {
        (instead, addresses) = (wrong.detail, wrong.addresses);
    }
    v1::Sighting {
        origin: sighting.origin,
        since: sighting.since.map(timestamp),
        instead,
        addresses,
        waived_until: sighting.waived_until.map(timestamp),
    }
}

pub(super) fn origin(origin: OriginHealth) -> v1::Origin {
    let wrong = origin.wrong.into_iter().map(|wrong| v1::WrongKey {
        kid: wrong.kid,
        what: match wrong.what {
            Wrong::Lacks => v1::Wrong::Lacks,
            Wrong::Lags => v1::Wrong::Lags,
            Wrong::ShowsRevoked => v1::Wrong::ShowsRevoked,
            Wrong::Impostor => v1::Wrong::Impostor,
        }
        .into(),
        page: wrong.page,
        detail: wrong.detail,
        addresses: wrong.addresses,
    });
    v1::Origin {
        name: origin.name,
        url: origin.url,
        answered: origin.answered.map(timestamp),
        why: origin.why.unwrap_or_default(),
        silent: origin.silent,
        wrong: wrong.collect(),
        waiver: origin.waiver.map(|waiver| v1::Waiver {
            since: Some(timestamp(waiver.since)),
            until: Some(timestamp(waiver.until)),
            by: waiver.mandate.by,
            note: waiver.mandate.note,
        }),
    }
}
