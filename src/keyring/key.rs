//! A key's life.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::adopt::Adoption;
use crate::jose::{Algorithm, KeyType, PublicKey};
use crate::time::{Span, Time};

/// A key's random id: the same in the record, in each device (`CKA_ID`) and in
/// the log. It exists before the key does, so that a crash leaves nothing in a
/// device that the record does not name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

/// Not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a key id of 32 hexadecimal digits, got {0:?}")]
pub struct InvalidKeyId(String);

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;
    fn try_from(text: String) -> Result<Self, InvalidKeyId> {
        let mut id = [0; 16];
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InvalidKeyId(text));
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            let digit = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u8;
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Ok(Self(id))
    }
}

/// Where a key stands on its way. The private half has a life of its own:
/// [`Half`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Waits for a device to make it. Has no `kid` yet.
    Generating,
    /// In the set; waits to be seen everywhere, then to be needed.
    Published {
        /// When it entered the set.
        since: Time,
    },
    /// Signs.
    Active {
        /// The instant of its activation.
        since: Time,
    },
    /// Signs no more but for the handover; in the set for the tokens that it
    /// signed.
    Retiring {
        /// The instant at which its successor became active.
        since: Time,
        /// After this no signature by it leaves (rule 2).
        last_sign: Time,
    },
    /// Out of the set; no token that it signed is alive.
    Retired {
        /// When it left the set.
        since: Time,
    },
    /// Out of the set for ever, whatever tokens it signed.
    Revoked {
        /// When it left the set.
        since: Time,
        /// Why.
        reason: Reason,
    },
    /// In the set only when nothing else is. Its private half was destroyed
    /// as soon as it existed.
    Placeholder,
}

impl Phase {
    /// The phase in one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Generating => "generating",
            Self::Published { .. } => "published",
            Self::Active { .. } => "active",
            Self::Retiring { .. } => "retiring",
            Self::Retired { .. } => "retired",
            Self::Revoked { .. } => "revoked",
            Self::Placeholder => "placeholder",
        }
    }
}

/// Why a key was revoked: the reasons of the historical-keys endpoint (OpenID
/// Federation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each name is the registered reason")]
pub enum Reason {
    Unspecified,
    Compromised,
    Superseded,
}

impl Reason {
    /// This one, or `other` where this one says nothing.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        match self {
            Self::Unspecified => other,
            Self::Compromised | Self::Superseded => self,
        }
    }

    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Compromised => "compromised",
            Self::Superseded => "superseded",
        }
    }
}

/// Who asked for something, and what they noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Mandate {
    /// Who, as the administration edge knows them: `uid:1000`. Empty where
    /// nobody knows any more.
    pub by: String,
    /// Their remark; may be empty. The edge bounds its length.
    pub note: String,
}

/// That automation does not touch a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hold {
    /// Since when, without a break.
    pub since: Time,
    /// Who asked for it last.
    #[serde(flatten)]
    pub mandate: Mandate,
}

/// The private half of a key in one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    /// Usable.
    Present,
    /// Its destruction is on record and may happen at any instant.
    Destroying,
    /// The device confirmed that it is gone.
    Destroyed,
    /// The right token lacks it, and nobody here asked for that.
    Lost,
}

impl Half {
    /// Whether a destruction has not begun, and has something to do or to
    /// find out.
    pub(super) const fn may_be_destroyed(self) -> bool {
        match self {
            Self::Present | Self::Lost => true,
            Self::Destroying | Self::Destroyed => false,
        }
    }
}

/// One key pair of a key set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its id, here and in each device.
    pub id: KeyId,
    /// The one algorithm that it is used with.
    pub algorithm: Algorithm,
    /// What kind of key it is.
    pub key_type: KeyType,
    /// The signer group that signs with it.
    pub group: String,
    /// When it was decided to make it. A key made after a compromise is one
    /// with a later date here.
    pub created: Time,
    /// Its `kid`; none while it is generating.
    pub kid: Option<String>,
    /// Its public half; none while it is generating.
    pub public: Option<PublicKey>,
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// When it first entered the set.
    pub published: Option<Time>,
    /// When it was first active; the first records did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated: Option<Time>,
    /// The devices that hold, or held, its private half. None for a key that
    /// was imported for verification only.
    pub placements: BTreeMap<String, Half>,
    /// For each device, the serial of the token that holds the private half:
    /// a device is a place, and another token may come to stand in it. None
    /// where the token was not asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, String>,
    /// For each device, when the private half was given up: it lacked the half
    /// as the record was made again. It is told as destroyed, and nobody saw
    /// that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given_up: BTreeMap<String, Time>,
    /// For each origin, the start of the latest unbroken run of sightings.
    pub sightings: BTreeMap<String, Time>,
    /// Nothing is signed whose `exp` lies above this. Only ever raised.
    pub exp_ceiling: Option<Time>,
    /// The longest token lifetime that was in force while it signed.
    pub longest_lifetime: Span,
    /// The first epoch whose view does not sign with it any more.
    pub left_epoch: u64,
    /// Automation does not touch it, where there is one.
    #[serde(default, alias = "held", deserialize_with = "hold_or_flag")]
    pub hold: Option<Hold>,
    /// It became active before every verifier could hold it, because an
    /// operator said so.
    pub forced: bool,
    /// What it was before, where another tool made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Box<Adoption>>,
    /// After which no signature by it was to leave, where it was revoked while
    /// it retired and its private half waits for a second person: no
    /// revocation gives the half a longer life than it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_to_sign_until: Option<Time>,
}

impl Key {
    /// Whether verifiers find it in the set.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        matches!(
            self.phase,
            Phase::Published { .. } | Phase::Active { .. } | Phase::Retiring { .. }
        )
    }

    /// Whether a device is to make it. A key whose track was taken off before
    /// it existed is not: its destruction is on record.
    #[must_use]
    pub fn is_coming(&self) -> bool {
        matches!(self.phase, Phase::Generating) && self.has_private_half()
    }

    /// Whether it signs, will sign, or is to be made for its track: it leaves
    /// with the track. Once only: what was given up before it existed is on its
    /// way out.
    pub(super) fn is_for_its_track(&self) -> bool {
        match self.phase {
            Phase::Generating => self.is_coming(),
            Phase::Published { .. } | Phase::Active { .. } => true,
            _ => false,
        }
    }

    /// When it was first active, as far as the record knows.
    #[must_use]
    pub const fn activated(&self) -> Option<Time> {
        match (self.activated, &self.phase) {
            (None, Phase::Active { since }) => Some(*since),
            (activated, _) => activated,
        }
    }

    /// Whether automation must not touch it.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// The same, or a device that is to destroy it has not said that it has.
    #[must_use]
    pub(super) fn may_have_private_half(&self) -> bool {
        let mut halves = self.placements.values();
        halves.any(|half| *half != Half::Destroyed)
    }

    /// A device that is to destroy the private half, and has not said that it
    /// has.
    #[must_use]
    pub fn destroying(&self) -> Option<&String> {
        let mut halves = self.placements.iter();
        let destroying = halves.find(|(_, half)| **half == Half::Destroying);
        destroying.map(|(device, _)| device)
    }

    /// Whether some device can still sign with it, for all that is on record.
    #[must_use]
    pub fn has_private_half(&self) -> bool {
        self.placements.values().any(|half| *half == Half::Present)
    }
}

/// The first records said only whether a key is held (`"held": true`): since
/// when, and at whose wish, is not known of those.
fn hold_or_flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Hold>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Flag(bool),
        Hold(Option<Hold>),
    }
    Ok(match Form::deserialize(from)? {
        Form::Flag(false) => None,
        Form::Flag(true) => Some(Hold {
            since: Time::default(),
            mandate: Mandate::default(),
        }),
        Form::Hold(hold) => hold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_reads_back() {
        let id = KeyId([
            0, 1, 0x7f, 0x80, 0xff, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        ]);
        assert_eq!(KeyId::try_from(id.to_string()), Ok(id));
        for wrong in ["", "00", &"0".repeat(33), &"g".repeat(32), &"+1".repeat(16)] {
            assert!(KeyId::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
