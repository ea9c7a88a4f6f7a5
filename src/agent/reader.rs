//! What readers have: one immutable snapshot for each key set, behind an
//! atomic pointer. The signing path and the JWKS take no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::figures::Overview;
use super::outdated::{self, Gate};
use super::pulse::Pulse;
use super::signing::{Published, SignError, entity_tag};
use super::terms::Terms;
use super::unwritten::Unwritten;
use crate::clock::Reading;
use crate::jose::{Algorithm, Jwk, JwkSet, Verifier};
use crate::keyring::{ClockGuard, Moment, NoSigner, Outdated, SigningKey, Timing, View};
use crate::metrics::KeySetMetrics;
use crate::policy::{Reason, Refusal};
use crate::store::{REBUILD, StoreError};
use crate::time::Time;

/// One key set, for its readers and its one writer.
pub(super) struct Reader {
    /// The key set's name.
    pub(super) name: String,
    terms: ArcSwap<Terms>,
    /// What is counted.
    pub(super) figures: KeySetMetrics,
    snapshot: ArcSwap<Snapshot>,
    /// Ahead of the store: what signs no more, whatever the view says.
    blocks: ArcSwap<Blocks>,
    /// The key that the token did not have when it was last to sign.
    missing: ArcSwapOption<String>,
    /// What is revoked in memory alone.
    unwritten: ArcSwap<Unwritten>,
    /// What the writer last saw.
    overview: ArcSwap<Overview>,
    /// When it last came round.
    round: ArcSwap<Instant>,
    pulse: Pulse,
    /// What signatures wait for when a process begins.
    pub(super) gate: Gate,
}

/// The `kid`s that sign no more.
#[derive(Clone, Default)]
struct Blocks {
    /// For the life of this process.
    for_good: BTreeSet<String>,
    /// By how many orders that the writer has not decided on.
    orders: BTreeMap<String, usize>,
    /// Both.
    all: BTreeSet<String>,
}

/// That a key is blocked by an order that is under way.
pub(super) struct Blocked {
    reader: Arc<Reader>,
    kid: String,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.reader.change_blocks(|blocks| {
            let left = blocks.orders.get(&self.kid).copied().unwrap_or(0);
            if left > 1 {
                blocks.orders.insert(self.kid.clone(), left - 1);
            } else {
                blocks.orders.remove(&self.kid);
            }
        });
    }
}

/// One picture of a key set.
#[derive(Clone)]
pub(super) struct Snapshot {
    /// Who signs; or why nothing does.
    pub(super) signers: Result<Arc<Signers>, Dark>,
    /// The set as verifiers get it; none where nothing was ever published.
    pub(super) published: Option<PublishedSet>,
}

/// What it takes to sign.
#[derive(Clone)]
pub(super) struct Signers {
    pub(super) view: Arc<View>,
    verifiers: Arc<BTreeMap<String, Verifier>>,
    guard: ClockGuard,
    high_water: Time,
}

/// The JWKS, ready to be sent.
#[derive(Clone)]
pub(super) struct PublishedSet {
    pub(super) body: Arc<[u8]>,
    etag: Arc<str>,
    /// The view that it came from; none for the last good copy on disk.
    view: Option<Arc<View>>,
}

/// Why nothing is signed for this key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Dark {
    /// The first load has not ended yet.
    #[error("the key set {0:?} is being loaded")]
    Loading(String),
    /// Nobody ran `init`.
    #[error(
        "the key set {0:?} has no record, and the log knows no key event of it: if it never signed before, stop the agent, run `sealkeeper init`, and start it again; else `sealkeeper restore --from FILE` puts your newest backup in place"
    )]
    NoRecord(String),
    /// There was one.
    #[error(
        "the store has lost the record of the key set {key_set:?}, of which the log knows {events} key events; {REBUILD}"
    )]
    RecordLost {
        /// The key set.
        key_set: String,
        /// How much the log knows of it.
        events: u64,
    },
    /// `init` was cut short.
    #[error(
        "the init of the key set {0:?} was not finished: stop the agent, run `sealkeeper init` again, and start it"
    )]
    InitUnfinished(String),
    /// The record cannot be used.
    #[error("{0}")]
    BadRecord(String),
    /// Others know more than the record.
    #[error(
        "the record of the key set {key_set:?} is older than what others know: {proof}. {}",
        outdated::cure(proof)
    )]
    Outdated {
        /// The key set.
        key_set: String,
        /// How that shows.
        proof: Outdated,
    },
    /// The store cannot be read.
    #[error("{0}")]
    NoStore(StoreError),
    /// A revocation on disk cannot be read: it may be of any key.
    #[error("{0}; look at it, then restart the agent")]
    BadTombstone(String),
}

impl Dark {
    /// Nothing is stored, and the log knows so many key events.
    pub(super) const fn no_record(key_set: String, events: u64) -> Self {
        match events {
            0 => Self::NoRecord(key_set),
            _ => Self::RecordLost { key_set, events },
        }
    }

    /// The stable code that callers see.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Loading(_) => "LOADING",
            Self::NoRecord(_) => "NOT_INITIALIZED",
            Self::RecordLost { .. } => "RECORD_LOST",
            Self::InitUnfinished(_) => "INIT_UNFINISHED",
            Self::BadRecord(_) => "RECORD_UNUSABLE",
            Self::Outdated { .. } => "RECORD_OUTDATED",
            Self::NoStore(StoreError::Full { .. }) => "DISK_FULL",
            Self::NoStore(e) if e.may_pass() => "STORE_UNAVAILABLE",
            Self::NoStore(_) => "STORE_UNUSABLE",
            Self::BadTombstone(_) => "TOMBSTONE_UNREADABLE",
        }
    }
}

impl Reader {
    pub(super) fn new(name: &str, terms: Terms, figures: KeySetMetrics, pulse: Pulse) -> Self {
        let loading = Dark::Loading(name.to_owned());
        Self {
            name: name.to_owned(),
            terms: ArcSwap::from_pointee(terms),
            figures,
            snapshot: ArcSwap::from_pointee(Snapshot {
                signers: Err(loading),
                published: None,
            }),
            blocks: ArcSwap::default(),
            missing: ArcSwapOption::empty(),
            unwritten: ArcSwap::default(),
            overview: ArcSwap::default(),
            round: ArcSwap::from_pointee(Instant::now()),
            pulse,
            gate: Gate::default(),
        }
    }

    /// What the configuration wants.
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// The configuration wants something else from now on.
    pub(super) fn agree(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
    }

    /// The writer came round; where it has a record, this is what it saw.
    pub(super) fn came_round(&self, saw: Option<Overview>) {
        self.round.store(Arc::new(Instant::now()));
        if let Some(saw) = saw {
            self.overview.store(Arc::new(saw));
        }
    }

    pub(super) fn overview(&self) -> Arc<Overview> {
        self.overview.load_full()
    }

    /// What a restart would forget, from now on.
    pub(super) fn has_unwritten(&self, unwritten: Unwritten) {
        self.unwritten.store(Arc::new(unwritten));
    }

    /// What a restart would forget.
    pub(super) fn unwritten(&self) -> Arc<Unwritten> {
        self.unwritten.load_full()
    }

    /// Since when the writer has not come round.
    pub(super) fn idle(&self) -> Duration {
        self.round.load().elapsed()
    }

    /// Takes a `kid` out of service, now and for the life of this process.
    pub(super) fn block(&self, kid: &str) {
        self.change_blocks(|blocks| {
            blocks.for_good.insert(kid.to_owned());
        });
    }

    /// Takes a `kid` out of service for as long as an order to revoke it is
    /// under way. If the order is carried out, [`Reader::block`] makes that
    /// last; if it is refused, the key signs again, unless another order or a
    /// revocation stands against it.
    pub(super) fn block_for_order(self: &Arc<Self>, kid: &str) -> Blocked {
        self.change_blocks(|blocks| *blocks.orders.entry(kid.to_owned()).or_default() += 1);
        Blocked {
            reader: Arc::clone(self),
            kid: kid.to_owned(),
        }
    }

    fn change_blocks(&self, change: impl Fn(&mut Blocks)) {
        self.blocks.rcu(|blocks| {
            let mut blocks = Blocks::clone(blocks);
            change(&mut blocks);
            blocks.all = blocks.for_good.clone();
            blocks.all.extend(blocks.orders.keys().cloned());
            blocks
        });
        self.pulse.beat();
    }

    /// Whether a `kid` is out of service.
    pub(super) fn is_blocked(&self, kid: &str) -> bool {
        self.blocks.load().all.contains(kid)
    }

    pub(super) fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.pulse.beat();
    }

    pub(super) fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The instant of a reading, as the writer would judge it: a clock that is
    /// not believed says nothing here. As it is where nobody can judge.
    pub(super) fn judged(&self, reading: Reading) -> Time {
        let snapshot = self.load();
        let signers = snapshot.signers.as_ref();
        signers.map_or(reading.wall, |signers| {
            signers.moment(reading, &self.terms.load().timing).time()
        })
    }

    /// What to sign with, or why nothing is.
    pub(super) fn signers(&self) -> Result<Arc<Signers>, SignError> {
        self.load()
            .signers
            .clone()
            .map_err(|dark| SignError::Unavailable {
                reason: dark.reason(),
                why: dark.to_string(),
                retry_after: None,
            })
    }

    /// Whether a finished signature may leave: by the snapshot of now.
    pub(super) fn may_release(&self, kid: &str, reading: Reading) -> bool {
        let snapshot = self.load();
        let Ok(signers) = &snapshot.signers else {
            return false;
        };
        let moment = signers.moment(reading, &self.terms.load().timing);
        signers
            .view
            .may_release(kid, moment, &self.blocks.load().all)
    }

    /// Refuses a key that is blocked in memory already.
    pub(super) fn check_blocked(&self, key: &SigningKey) -> Result<(), SignError> {
        if self.blocks.load().all.contains(&key.kid) {
            return Err(SignError::Unavailable {
                reason: "KEY_BLOCKED",
                why: format!("the key {} was revoked", key.kid),
                retry_after: None,
            });
        }
        Ok(())
    }

    /// The token did not have the key when it was to sign.
    pub(super) fn missed(&self, kid: &str) {
        self.missing.store(Some(Arc::new(kid.to_owned())));
    }

    /// The token has the key.
    pub(super) fn found(&self, kid: &str) {
        if self.missing.load().as_ref().is_some_and(|it| **it == *kid) {
            self.missing.store(None);
        }
    }

    /// The key that the token did not have when it was last to sign.
    pub(super) fn missing(&self) -> Option<String> {
        self.missing.load().as_ref().map(|kid| kid.to_string())
    }

    /// Refuses the key that the token did not have the last time.
    pub(super) fn check_missing(&self, key: &SigningKey) -> Result<(), SignError> {
        match self.missing.load().as_ref() {
            Some(kid) if **kid == key.kid => Err(SignError::Unavailable {
                reason: "KEY_MISSING",
                why: format!(
                    "the token did not have the key {kid} (object id {}) when it was to sign",
                    key.id
                ),
                retry_after: None,
            }),
            _ => Ok(()),
        }
    }

    /// The JWKS, with the longest time for which it may be kept.
    pub(super) fn published(&self, reading: Reading) -> Option<Published> {
        let (snapshot, now) = (self.load(), self.judged(reading));
        let set = snapshot.published.as_ref()?;
        let max_age = match &set.view {
            Some(view) => view.max_age(now),
            None => self.terms.load().timing.max_age,
        };
        Some(Published {
            body: Arc::clone(&set.body),
            etag: Arc::clone(&set.etag),
            max_age: max_age.to_duration(),
        })
    }
}

impl Signers {
    /// Prepares a view for signing: each key's verifier is made once, here.
    pub(super) fn new(view: Arc<View>, guard: ClockGuard, high_water: Time) -> Self {
        let verifiers = view
            .published
            .iter()
            .filter_map(|key| {
                let verifier = Verifier::new(key.algorithm, &key.public).ok()?;
                Some((key.kid.clone(), verifier))
            })
            .collect();
        Self {
            view,
            verifiers: Arc::new(verifiers),
            guard,
            high_water,
        }
    }

    /// The moment of a reading, as this view's writer would judge it.
    pub(super) fn moment(&self, reading: Reading, timing: &Timing) -> Moment {
        self.guard
            .moment(reading.wall, reading.boot, self.high_water, timing)
    }

    /// The key that signs for a track, the default one for `None`.
    pub(super) fn signer(
        &self,
        algorithm: Option<Algorithm>,
        moment: Moment,
    ) -> Result<&SigningKey, SignError> {
        self.view
            .signer(algorithm, moment)
            .map_err(|why| match why {
                NoSigner::NoTrack(_) => {
                    let tracks = self.view.seats.iter().map(|seat| seat.algorithm.name());
                    let tracks: Vec<&str> = tracks.collect();
                    let hint = format!(
                        "the key set has {}: name one of these, or leave it out",
                        tracks.join(", ")
                    );
                    unknown_algorithm(&why, hint)
                }
                why => why.into(),
            })
    }

    /// What a signature by this key is verified with: the *published* public
    /// key and no other. None if the set does not show it.
    pub(super) fn verifier(&self, kid: &str) -> Option<&Verifier> {
        self.verifiers.get(kid)
    }
}

impl PublishedSet {
    /// The JWKS of a view.
    pub(super) fn of(view: &Arc<View>) -> Self {
        let keys = view
            .published
            .iter()
            .filter_map(|key| Jwk::new(key.kid.clone(), key.algorithm, key.public.clone()).ok())
            .collect();
        Self::from_bytes(JwkSet { keys }.to_json(), Some(Arc::clone(view)))
    }

    /// The last good copy, less what was revoked since.
    pub(super) fn last_good(bytes: &[u8], revoked: &BTreeSet<String>) -> Option<Self> {
        let mut set: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let keys = set.get_mut("keys")?.as_array_mut()?;
        keys.retain(|key| {
            let kid = key.get("kid").and_then(|kid| kid.as_str());
            !kid.is_some_and(|kid| revoked.contains(kid))
        });
        if keys.is_empty() {
            // Many verifiers take an empty set for a broken one.
            return None;
        }
        let bytes = serde_json::to_vec(&set).ok()?;
        Some(Self::from_bytes(bytes, None))
    }

    /// The ids of its keys.
    pub(super) fn kids(&self) -> Vec<String> {
        let set: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let keys = set.get("keys").and_then(|keys| keys.as_array());
        let kids = keys.into_iter().flatten();
        kids.filter_map(|key| Some(key.get("kid")?.as_str()?.to_owned()))
            .collect()
    }

    fn from_bytes(body: Vec<u8>, view: Option<Arc<View>>) -> Self {
        Self {
            etag: entity_tag(&body),
            body: body.into(),
            view,
        }
    }
}

/// The caller asks for a track that there is not: trying again does not help.
fn unknown_algorithm(why: &NoSigner, hint: String) -> SignError {
    let (reason, rule) = (Reason::UnknownAlgorithm, "track");
    SignError::Refused(Refusal::new(reason, rule, why.to_string(), hint))
}

impl From<NoSigner> for SignError {
    fn from(why: NoSigner) -> Self {
        let reason = match &why {
            NoSigner::NoTrack(_) => {
                let hint = "name the algorithm of a track of this key set, or leave it out";
                return unknown_algorithm(&why, hint.to_owned());
            }
            NoSigner::NoneActive { .. } => "NO_ACTIVE_KEY",
            NoSigner::Overdue { .. } => "ROTATION_OVERDUE",
            NoSigner::LeaseEnded(_) => "STORE_UNAVAILABLE",
        };
        Self::Unavailable {
            reason,
            why: why.to_string(),
            retry_after: None,
        }
    }
}
