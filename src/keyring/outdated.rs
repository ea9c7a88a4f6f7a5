//! A record that is older than what its devices and origins show.
//!
//! A database that went back is older than the log beside it. Where the whole
//! folder went back, by a file backup or a snapshot of the machine, all of it
//! has one age, and only who stands outside can tell: the token, and the
//! public origins. Each alone proves little:
//!
//! - **An object of ours that nobody here knows** may be another agent's, whose
//!   store shares the token.
//! - **An origin** is *not trusted* to name keys. But where it shows the very
//!   public key whose private half the token holds under an id of ours, a later
//!   record than this one published it: [`Outdated::Shown`].
//! - **An active key that its own token lacks**, beside an object of ours that
//!   nobody here knows: so it looks after a rotation or a revocation that the
//!   folder has forgotten. So it looks as well where a key is lost on a token
//!   that is shared, which an operator may say: [`Outdated::Replaced`].
//!
//! Invariant: what a device did not say proves nothing. One that is away, that
//! holds another token or an empty one, or that told of a part of its keys,
//! lacks no key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::event::{Event, What};
use super::key::{Half, Key, KeyId, Mandate, Phase};
use super::rules::Action;
use super::set::{KeySet, Plan, Tick};
use crate::jose::{Offer, PublicKey, thumbprint};

/// What a device holds, as it said when it was asked for all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The serial of the token that answered, where it has one.
    pub token: Option<String>,
    /// Whether this is all that the token holds.
    pub whole: bool,
    /// Every id that could be ours, whatever stands behind it.
    pub ids: BTreeSet<KeyId>,
    /// The keys that carry the label which agents give, and may be used; less
    /// those that the log or another record of the store knows.
    pub strange: BTreeMap<KeyId, PublicKey>,
}

/// That the record is older than what others know, and how that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outdated {
    /// A device holds a key that the record does not know, and an origin of
    /// this key set shows it.
    Shown {
        /// The `kid` that agents give such a key.
        kid: String,
        /// The device.
        device: String,
        /// Its id there.
        id: KeyId,
        /// The origin.
        origin: String,
    },
    /// The right token lacks the active key, and holds one of ours that the
    /// record does not know.
    Replaced {
        /// The active key, for all that is on record.
        kid: String,
        /// The device.
        device: String,
        /// The object that is unknown.
        unknown: KeyId,
    },
}

impl fmt::Display for Outdated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown {
                kid,
                device,
                id,
                origin,
            } => write!(
                f,
                "the device {device} holds the key {kid} (object id {id}), which the record does not know, and {origin} shows it"
            ),
            Self::Replaced {
                kid,
                device,
                unknown,
            } => write!(
                f,
                "the record has {kid} as the active key, the token of {device} lacks it, and holds a key that an agent made and the record does not know (object id {unknown})"
            ),
        }
    }
}

impl Outdated {
    /// Whether it may as well be a key that was lost on a token which another
    /// agent's store shares: an operator may say so.
    #[must_use]
    pub const fn may_be_a_loss(&self) -> bool {
        matches!(self, Self::Replaced { .. })
    }
}

impl KeySet {
    /// Whether this record is older than what devices and origins say.
    /// `began` is the record as this process found it: time may have retired
    /// the key since that a device turns out to lack.
    #[must_use]
    pub fn outdated(
        &self,
        began: &Self,
        holdings: &BTreeMap<String, Holding>,
        origins: &BTreeMap<String, BTreeSet<Offer>>,
    ) -> Option<Outdated> {
        // An operator's word that a key is another agent's does not stand against
        // an origin of this very set.
        let unknown: Vec<_> = self.unknown_in(holdings).collect();
        let shown = unknown.iter().find_map(|(device, id, public)| {
            let shows = |offers: &BTreeSet<Offer>| {
                (offers.iter()).any(|offer| offer.key.as_ref() == Some(public))
            };
            let (origin, _) = origins.iter().find(|(_, offers)| shows(offers))?;
            Some(Outdated::Shown {
                kid: thumbprint(public),
                device: (*device).clone(),
                id: *id,
                origin: origin.clone(),
            })
        });
        shown.or_else(|| {
            let mut active = began
                .keys
                .values()
                .filter(|key| matches!(key.phase, Phase::Active { .. }) && !self.is_revoked(key));
            active.find_map(|key| {
                let device = lacked_by(key, holdings)?;
                let mut strange = self.strange_in(holdings);
                // Of its track, as far as a public key tells.
                let fits = |public: &PublicKey| key.algorithm.accepts(public.key_type());
                let (_, unknown, _) =
                    strange.find(|(on, _, public)| *on == device && fits(public))?;
                Some(Outdated::Replaced {
                    kid: key.kid.clone()?,
                    device: device.clone(),
                    unknown,
                })
            })
        })
    }

    /// The keys of ours in devices that this record does not know: each by its
    /// device and its id there.
    pub fn strange_in<'a>(
        &'a self,
        holdings: &'a BTreeMap<String, Holding>,
    ) -> impl Iterator<Item = (&'a String, KeyId, &'a PublicKey)> {
        let unknown = self.unknown_in(holdings);
        unknown.filter(|(_, id, _)| !self.left_alone.contains(id))
    }

    /// The same, with those of which somebody said that they are another's.
    fn unknown_in<'a>(
        &'a self,
        holdings: &'a BTreeMap<String, Holding>,
    ) -> impl Iterator<Item = (&'a String, KeyId, &'a PublicKey)> {
        let all = holdings.iter().flat_map(|(device, holding)| {
            let strange = holding.strange.iter();
            strange.map(move |(id, public)| (device, *id, public))
        });
        all.filter(|(_, id, public)| {
            let mut intents = self.intents.values();
            let asked_for = intents.any(|intent| intent.task.key() == *id);
            !asked_for && !self.keys.contains_key(id) && !self.has_public(public)
        })
    }

    /// Whether a public key is on record, under whatever id: one that was
    /// imported may stand in the token of another system.
    fn has_public(&self, public: &PublicKey) -> bool {
        let mut keys = self.keys.values();
        keys.any(|key| key.public.as_ref() == Some(public))
    }

    /// Takes an operator's word that these are another agent's, and that the
    /// record is right beside them.
    pub fn leave_to_others(
        &mut self,
        objects: &BTreeSet<KeyId>,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Vec<Event> {
        self.left_alone.extend(objects);
        let what = What::RecordVouched {
            objects: objects.clone(),
        };
        let event = Event::of_no_key(plan, tick.now, what);
        vec![event.ordered(Action::Recover, mandate)]
    }

    fn is_revoked(&self, key: &Key) -> bool {
        let kid = key.kid.as_ref();
        kid.is_some_and(|kid| self.revoked.contains_key(kid))
    }
}

/// A device whose token should hold this key, where each such device surely
/// lacks it.
fn lacked_by<'a>(key: &'a Key, holdings: &BTreeMap<String, Holding>) -> Option<&'a String> {
    let lacks = |device: &String| {
        holdings.get(device).is_some_and(|holding| {
            let token = key.tokens.get(device);
            let right = token.is_some() && token == holding.token.as_ref();
            right && holding.whole && !holding.ids.contains(&key.id)
        })
    };
    let there = key.placements.iter();
    let mut there = there.filter(|(_, half)| **half == Half::Present);
    let (first, _) = there.clone().next()?;
    there.all(|(device, _)| lacks(device)).then_some(first)
}
