//! The messages between the daemon and its device children.
//!
//! Everything here is plain data: no PKCS#11 type crosses the socket, so
//! another kind of device needs another child and no other daemon. A frame
//! carries a batch: `Vec<Request>` one way, `Vec<Reply>` the other, in any
//! order; a reply is matched to its request by [`Request::id`].

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::jose::{Algorithm, KeyType, PublicKey};

/// The identity of a key pair in its device: `CKA_ID` of both halves.
///
/// Random, and written down by the caller before the key exists: what carries
/// an id that stands in our own journal is ours to destroy. The thumbprint
/// cannot serve, since it is not known before the key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub [u8; 16]);

impl ObjectId {
    /// The label that people see in the token's own tools: `sk1:` and the
    /// first 8 bytes in hex. Short enough for a YubiHSM (40 bytes). It helps
    /// people; nothing looks a key up by it.
    #[must_use]
    pub fn label(&self) -> String {
        format!("sk1:{}", &self.to_string()[..16])
    }
}

/// 32 lower-case hex digits.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

/// A PIN on its way to the token. Zeroised when dropped; never shown.
#[derive(Clone)]
pub struct Pin(Zeroizing<Vec<u8>>);

impl Pin {
    /// Takes the bytes over; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::new)
    }
}

/// The first frame of each connection, to the child: who speaks. The messages
/// are those of one release, and a process that another service started may be
/// of another.
pub(crate) const HELLO: &str = concat!("sealkeeper ", env!("CARGO_PKG_VERSION"));

/// One thing to do, and the number under which the answer comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Unique among the requests of one child.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// What a child can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Call {
    /// The first request, once: load the module, find the token, log in.
    Open(Box<Open>),
    /// Make a key pair, or return the one that has this id.
    Generate {
        /// Its id, from the caller's journal.
        object: ObjectId,
        /// The kind of key.
        key_type: KeyType,
        /// The one algorithm that it will be used with.
        algorithm: Algorithm,
    },
    /// Look a key pair up and read its attributes.
    Find {
        /// Its id.
        object: ObjectId,
    },
    /// Look at every key of the token, whoever made it.
    List(Pairs),
    /// Look at a key pair that another tool made, or take it over.
    Adopt(Box<Adopt>),
    /// Sign. Workers take these in order, several at a time.
    Sign(Sign),
    /// Destroy both halves, or what is there of them.
    Destroy {
        /// The pair's id.
        object: ObjectId,
    },
    /// Is the token there, the same, and logged in?
    Health,
    /// Does the token list what it takes to make such a key and sign with it?
    Supports {
        /// The kind of key.
        key_type: KeyType,
        /// The algorithm.
        algorithm: Algorithm,
    },
}

impl Call {
    /// About how many bytes it takes in a frame.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Sign(sign) => sign.input.len() + 64,
            _ => 64,
        }
    }
}

/// How another tool named a private key. At least one of the two is given, and
/// each that is given must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// `CKA_ID`, of any length.
    pub id: Option<Vec<u8>>,
    /// `CKA_LABEL`.
    pub label: Option<String>,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.as_deref().map(|id| format!("id {}", hex(id)));
        let label = self.label.as_ref().map(|label| format!("label {label:?}"));
        let parts: Vec<String> = id.into_iter().chain(label).collect();
        f.write_str(&parts.join(" and "))
    }
}

/// As tools show a `CKA_ID`.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A `CKA_ID` as tools show it, with colons or without.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = (text.chars().filter(|c| *c != ':'))
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

/// A key pair that another tool made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adopt {
    /// Which.
    pub from: Handle,
    /// What it is to be used with.
    pub algorithm: Algorithm,
    /// The id that both halves are to have, and the public half that was seen
    /// there before; none to look only.
    pub into: Option<(ObjectId, PublicKey)>,
}

/// What a child needs to open its device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// The PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// Which token.
    pub token: TokenSelector,
    /// The serial that the token had when it was first opened. A token with
    /// another serial is another token, whatever its label: it must never
    /// answer "no such key" for this one.
    pub expected_serial: Option<String>,
    /// The user PIN.
    pub pin: Pin,
    /// The file that lets a wrong PIN be tried once; see
    /// [`crate::hsm::pin_marker`].
    pub pin_marker: PathBuf,
    /// The device's name in the configuration, for error messages.
    pub device: String,
    /// How many sessions sign at the same time.
    pub workers: u16,
    /// Whether a key pair must say `CKA_LOCAL = true`. NetHSM and NSS say
    /// false for every key.
    pub require_local: bool,
}

/// Which token of a module. Each member that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSelector {
    /// The token's label, without the padding.
    pub label: Option<String>,
    /// The token's serial number, without the padding.
    pub serial: Option<String>,
}

impl fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.label, &self.serial) {
            (Some(label), Some(serial)) => write!(f, "label {label:?} and serial {serial:?}"),
            (Some(label), None) => write!(f, "label {label:?}"),
            (None, Some(serial)) => write!(f, "serial {serial:?}"),
            (None, None) => f.write_str("any label"),
        }
    }
}

/// One signature to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sign {
    /// The key pair.
    pub object: ObjectId,
    /// Which algorithm; must fit the key.
    pub algorithm: Algorithm,
    /// The JWS signing input, not hashed.
    pub input: Vec<u8>,
    /// After this many milliseconds in the child nobody waits any more, and
    /// the device need not be troubled.
    pub budget_ms: u32,
}

/// The answer to one [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Fault>,
}

/// What a call that went well returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The device is open and logged in.
    Opened(TokenIdentity),
    /// The key pair exists, was read back and made a signature that verified.
    Generated(Generated),
    /// The key pair, or the certainty that this token does not hold it.
    Found(Option<Generated>),
    /// The key pair that another tool made; as [`Answer::Generated`] proven.
    Adoptable(Listed),
    /// Every private key that the token shows.
    Listed(Vec<Listed>),
    /// The signature in JOSE form (RFC 7518 section 3).
    Signed(Vec<u8>),
    /// Nothing with this id is on the token any more.
    Destroyed,
    /// The token is there, the same, and logged in.
    Healthy,
    /// It does; otherwise the call is refused, and the fault names what it
    /// lacks.
    Supported,
}

/// The token that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each name is that of CK_TOKEN_INFO")]
pub struct TokenIdentity {
    pub label: String,
    pub serial: String,
    pub manufacturer: String,
    pub model: String,
}

/// A key pair on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// The public half.
    pub public: PublicKey,
    /// What the token says about the private half.
    pub evidence: Evidence,
}

/// How many private keys of a token are told of. One with more is not ours
/// alone, and the answer must fit a frame.
pub const MOST_LISTED: usize = 2000;

/// Whose pairs a listing reads, which takes a dozen calls for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pairs {
    /// Of keys that an agent made: by their label.
    Ours,
    /// Of all.
    All,
}

/// A private key of a token, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// `CKA_ID`; ours has 16 bytes.
    pub id: Vec<u8>,
    /// `CKA_LABEL`, as far as it is text.
    pub label: String,
    /// The pair, or why it is not one that could be published, or was not
    /// looked at.
    pub pair: Result<Generated, String>,
}

/// What the token says about a private key, read back after generation
/// (PKCS#11 v3.1 section 4.9). `None`: the token does not have the attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `CKA_SENSITIVE`: cannot be read in the clear.
    pub sensitive: Option<bool>,
    /// `CKA_EXTRACTABLE`: can be taken out, even wrapped.
    pub extractable: Option<bool>,
    /// `CKA_ALWAYS_SENSITIVE`.
    pub always_sensitive: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`.
    pub never_extractable: Option<bool>,
    /// `CKA_LOCAL`: generated on this token.
    pub local: Option<bool>,
    /// `CKA_KEY_GEN_MECHANISM`, as `CKM_…`.
    pub key_gen_mechanism: Option<String>,
    /// `CKA_ALLOWED_MECHANISMS`, as `CKM_…`; empty where the token holds the
    /// key to none.
    pub allowed_mechanisms: Vec<String>,
    /// What the token would not take, and what was done instead.
    pub notes: Vec<String>,
}

/// Why a call did not go well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct Fault {
    /// Whose fault it is.
    pub kind: FaultKind,
    /// What makes it go away.
    pub cure: Cure,
    /// For people. Never a PIN, never a signing input.
    pub why: String,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, cure: Cure, why: impl Into<String>) -> Self {
        Self {
            kind,
            cure,
            why: why.into(),
        }
    }
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The right token, logged in, does not hold this key.
    NoSuchKey,
    /// The key is there and must not be used as it is.
    BadKey,
    /// The request can never succeed on this device.
    Refused,
    /// The PIN must not be tried: an operator has to look.
    PinBlocked,
    /// The device cannot be used now.
    Unavailable,
    /// Nobody waits for it any more.
    Expired,
    /// A defect: ours, or the module's.
    Defect,
}

/// What cures a fault. The child itself applies the first two, and asks for a
/// new child where it needs one of the next three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cure {
    /// Do it once more in a new session.
    NewSession,
    /// Find the key again.
    FindAgain,
    /// Log in again. Login belongs to a process, and the child forgets the
    /// PIN when it is in: a new child logs in.
    LogInAgain,
    /// Open the device again, with patience: the token may be gone.
    Reopen,
    /// The module itself is beyond use: a new child.
    Restart,
    /// Try again within a budget.
    TryAgain,
    /// Nothing that a program can do.
    Never,
}

impl Cure {
    /// Whether only another child can apply this cure.
    #[must_use]
    pub const fn needs_new_child(self) -> bool {
        matches!(self, Self::LogInAgain | Self::Reopen | Self::Restart)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn label_is_short_and_hex() {
        let id = ObjectId(*b"\x00\x01\xfe\xff4567\x89abcdef0");
        assert_eq!(id.to_string(), "0001feff343536378961626364656630");
        assert_eq!(id.label(), "sk1:0001feff34353637");
        assert!(id.label().len() <= 40);
    }

    #[test]
    fn pin_is_never_shown() {
        let open = Open {
            module: "m.so".into(),
            token: TokenSelector::default(),
            expected_serial: None,
            pin: Pin::new(b"hunter2".to_vec()),
            pin_marker: "marker".into(),
            device: "d".into(),
            workers: 1,
            require_local: true,
        };
        let shown = format!("{:?}", Call::Open(Box::new(open)));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("104, 117"), "{shown}");
        assert!(shown.contains("redacted"));
    }

    #[test]
    fn pin_survives_the_wire() {
        let bytes = postcard::to_stdvec(&Pin::new(b"1234".to_vec())).unwrap();
        let pin: Pin = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(pin.expose(), b"1234");
    }
}
