//! Something that signs as the test says, and remembers what it was asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sealkeeper::agent::{
    NoHistory, Published, Readiness, SignError, Signed, Signing, Trouble, TurnedAway, Watched,
};
use sealkeeper::api::v1;
use sealkeeper::jose::Algorithm;
use sealkeeper::metrics::Operation;
use sealkeeper::policy::{Caller, JwsRequest, JwtRequest};
use sealkeeper::serve::grpc::{Reload, Reloaded, Reloads};
use sealkeeper::time::Time;
use tokio::sync::{Semaphore, watch};

/// In the agent's place.
pub(super) struct Signer {
    /// What every request is answered with.
    pub(super) outcome: Mutex<Result<Signed, SignError>>,
    /// What was asked.
    pub(super) seen: Mutex<Vec<Seen>>,
    /// Requests that were begun and not answered because nobody waited.
    pub(super) dropped: AtomicUsize,
    /// Each request takes a permit before it is answered.
    pub(super) gate: Semaphore,
    /// The JWKS of the key set `main`, which is also the well-known one.
    pub(super) jwks: Mutex<Published>,
    /// The historical keys of the key set `main`.
    pub(super) history: Mutex<Option<Result<Published, NoHistory>>>,
    /// What the edge answered by itself, by key set and reason.
    pub(super) turned_away: Mutex<Vec<(Operation, String, &'static str)>>,
    /// How the key sets are.
    pub(super) health: Mutex<Vec<Readiness>>,
    /// For who follows what is published and who can sign.
    pub(super) changes: watch::Sender<()>,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) caller: Caller,
    pub(super) key_set: String,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) typ: Option<String>,
    /// The claims or the signing input.
    pub(super) bytes: Vec<u8>,
    /// How long it was until the deadline.
    pub(super) left: Duration,
}

impl Default for Signer {
    fn default() -> Self {
        Self {
            outcome: Mutex::new(Ok(signed())),
            seen: Mutex::new(vec![]),
            dropped: AtomicUsize::new(0),
            gate: Semaphore::new(1_000_000),
            jwks: Mutex::new(published("{\"keys\":[]}", "\"v1\"")),
            history: Mutex::default(),
            turned_away: Mutex::default(),
            health: Mutex::default(),
            changes: watch::Sender::default(),
        }
    }
}

impl Signer {
    /// One that answers nothing until [`Self::open`].
    pub(super) fn shut() -> Self {
        Self {
            gate: Semaphore::new(0),
            ..Self::default()
        }
    }

    pub(super) fn open(&self) {
        self.gate.add_permits(1_000_000);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn answer(&self, seen: Seen) -> Result<Signed, SignError> {
        self.seen.lock().unwrap().push(seen);
        let guard = CountDrop(&self.dropped);
        self.gate.acquire().await.unwrap().forget();
        std::mem::forget(guard);
        self.outcome.lock().unwrap().clone()
    }
}

/// Counts requests that nobody waited for.
struct CountDrop<'a>(&'a AtomicUsize);

impl Drop for CountDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Signing for Signer {
    async fn sign_jwt(
        &self,
        caller: &Caller,
        request: JwtRequest,
        deadline: Instant,
    ) -> Result<Signed, SignError> {
        self.answer(Seen {
            caller: caller.clone(),
            key_set: request.key_set,
            algorithm: request.algorithm,
            typ: request.typ,
            bytes: request.claims,
            left: deadline.saturating_duration_since(Instant::now()),
        })
        .await
    }

    async fn sign_jws(
        &self,
        caller: &Caller,
        request: JwsRequest,
        deadline: Instant,
    ) -> Result<Signed, SignError> {
        self.answer(Seen {
            caller: caller.clone(),
            key_set: request.key_set,
            algorithm: None,
            typ: None,
            bytes: request.signing_input,
            left: deadline.saturating_duration_since(Instant::now()),
        })
        .await
    }

    fn published(&self, key_set: &str) -> Option<Published> {
        (key_set == "main").then(|| self.jwks.lock().unwrap().clone())
    }

    fn well_known(&self) -> Option<Published> {
        self.published("main")
    }

    fn historical_keys(&self, key_set: &str) -> Option<Result<Published, NoHistory>> {
        let history = self.history.lock().unwrap().clone();
        history.filter(|_| key_set == "main")
    }

    fn knows(&self, key_set: &str) -> bool {
        matches!(key_set, "" | "main")
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn turned_away(&self, key_set: &str, operation: Operation, why: TurnedAway<'_>) {
        let why = match why {
            TurnedAway::Overloaded => "OVERLOADED",
            TurnedAway::Refused(refusal) => refusal.reason.code(),
        };
        let mut all = self.turned_away.lock().unwrap();
        all.push((operation, key_set.to_owned(), why));
    }
}

impl Watched for Signer {
    fn readiness(&self) -> Vec<Readiness> {
        self.health.lock().unwrap().clone()
    }
}

/// One key set's health: `None` is good, else a code.
pub(super) fn health(
    name: &str,
    jwks: Option<&'static str>,
    signing: Option<&'static str>,
) -> Readiness {
    let state = |reason: Option<&'static str>| match reason {
        None => Ok(()),
        Some(reason) => Err(Trouble {
            reason,
            why: "a sentence that names /a/path".to_owned(),
        }),
    };
    Readiness {
        key_set: name.to_owned(),
        jwks: state(jwks),
        signing: state(signing),
        tracks: vec![(Algorithm::Es256, state(signing))],
    }
}

pub(super) fn signed() -> Signed {
    Signed {
        signing_input: b"aGVhZGVy.cGF5bG9hZA".to_vec(),
        signature: vec![0xfb, 0xff, 0xfe],
        kid: "key-1".into(),
        algorithm: Algorithm::Es256,
        expires: Time::from_secs(1_800_000_600),
    }
}

pub(super) fn published(body: &str, etag: &str) -> Published {
    Published {
        body: body.as_bytes().into(),
        etag: etag.into(),
        max_age: Duration::from_millis(300_900),
    }
}

/// A configuration that never changes.
#[derive(Debug)]
pub(super) struct Unchanging;

impl Reloads for Unchanging {
    fn reload(&self, _order: Reload) -> Reloaded<'_> {
        Box::pin(async { Ok(v1::ConfigurationChange::default()) })
    }
}
