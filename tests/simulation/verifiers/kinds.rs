//! The kinds of client that check tokens, with the numbers that they have by
//! default. Measured, and told by their makers; one line each.

use sealkeeper::time::Span;

/// How one kind keeps the keys that it fetched.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) keeps: Keeps,
    /// From this age on, a token that comes has the set fetched anew, and is
    /// itself judged by the old one.
    pub(crate) renews: Option<Span>,
    /// It fetches each time its set is over, though no token comes.
    pub(crate) timer: bool,
    pub(crate) unknown: Unknown,
    /// Where no fetch succeeds, it goes on with what it has.
    pub(crate) stale_on_error: bool,
    pub(crate) holds: Holds,
    pub(crate) promise: Promise,
}

/// For how long a fetched set is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keeps {
    /// Whatever its headers say.
    For(Span),
    /// `max-age`, less some, within bounds of its own.
    MaxAge {
        less: Span,
        least: Span,
        most: Span,
    },
    Ever,
}

/// What becomes of a token whose `kid` is in no set here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unknown {
    Refuse,
    /// The set is fetched first, unless that was done so recently.
    Fetch {
        cooldown: Span,
    },
    /// It is refused, and the set fetched for those that come after it.
    FetchLater {
        cooldown: Span,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    TheSet,
    /// So many keys, each fetched by itself; and that a `kid` is unknown, too.
    Keys {
        most: usize,
        unknown: bool,
    },
}

/// What a kind is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Where it keeps nothing for longer than `verifier_cache`, each token
    /// verifies at each instant of its life, and a revoked key is refused from
    /// the instant that the operator was told. Where it keeps a set for longer,
    /// a set that is too old may lack a new key, and trust a revoked one;
    /// nothing else may.
    Bounded,
    /// It drops no set, and asks at each `kid` that it does not know: each
    /// token verifies. A revoked key is trusted until it meets a key that was
    /// made after the revocation, or restarts.
    UntilItMeets,
    /// It wakes with the set that it fell asleep with: one too old may refuse
    /// and trust as that of a cache without bound.
    OnceMore,
}

const fn secs(s: u32) -> Span {
    Span::from_secs(s)
}

const fn mins(m: u32) -> Span {
    Span::from_mins(m)
}

const NOW: Unknown = Unknown::Fetch {
    cooldown: Span::ZERO,
};

const AFTER_30S: Unknown = Unknown::Fetch { cooldown: secs(30) };

/// A set, kept for so long, whatever happens.
const fn plain(name: &'static str, keeps: Span, unknown: Unknown) -> Kind {
    Kind {
        name,
        keeps: Keeps::For(keeps),
        renews: None,
        timer: false,
        unknown,
        stale_on_error: false,
        holds: Holds::TheSet,
        promise: Promise::Bounded,
    }
}

/// A set, kept for ever.
const fn ever(name: &'static str) -> Kind {
    Kind {
        keeps: Keeps::Ever,
        promise: Promise::UntilItMeets,
        ..plain(name, Span::ZERO, NOW)
    }
}

/// A set, kept for as long as it says.
const fn obedient(name: &'static str, less: Span, least: Span, most: Span) -> Kind {
    Kind {
        keeps: Keeps::MaxAge { less, least, most },
        ..plain(name, Span::ZERO, Unknown::Refuse)
    }
}

pub(crate) const KINDS: &[Kind] = &[
    plain("npm jose", mins(10), AFTER_30S),
    plain("PyJWT", mins(5), AFTER_30S),
    Kind {
        holds: Holds::Keys {
            most: 5,
            unknown: false,
        },
        ..plain("npm jwks-rsa", mins(10), NOW)
    },
    Kind {
        holds: Holds::Keys {
            most: 100,
            unknown: true,
        },
        ..plain("a gateway that remembers unknown keys", mins(5), NOW)
    },
    Kind {
        renews: Some(secs(270)),
        ..plain("Nimbus, Spring", mins(5), AFTER_30S)
    },
    ever("go-oidc"),
    ever("OpenBao"),
    obedient("kube-apiserver", secs(30), Span::ZERO, Span::from_days(365)),
    Kind {
        keeps: Keeps::Ever,
        renews: Some(mins(756)),
        unknown: Unknown::FetchLater { cooldown: mins(5) },
        stale_on_error: true,
        promise: Promise::OnceMore,
        ..plain(".NET ConfigurationManager", Span::ZERO, Unknown::Refuse)
    },
    plain("Envoy", mins(10), Unknown::Refuse),
    Kind {
        timer: true,
        stale_on_error: true,
        ..plain("Istio", mins(20), Unknown::Refuse)
    },
    plain("ESPv2", mins(5), Unknown::Refuse),
    plain("AWS REST API", mins(60), NOW),
    plain("AWS HTTP API", mins(120), Unknown::Refuse),
    obedient("Confluent Cloud", Span::ZERO, mins(5), Span::from_days(7)),
    Kind {
        renews: Some(mins(60)),
        ..plain(
            "Entra",
            Span::from_hours(24),
            Unknown::Fetch { cooldown: mins(5) },
        )
    },
    Kind {
        stale_on_error: true,
        ..obedient(
            "an HTTP client with stale-if-error",
            Span::ZERO,
            Span::ZERO,
            Span::from_days(365),
        )
    },
];
