//! What the document of past keys says, and how one is read back.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::jose::{CompactJws, Jwk, Verifier};
use crate::keyring::{History, Past, Told};
use crate::time::Time;

/// The `typ` of the document.
pub(super) const TYP: &str = "jwk-set+jwt";
/// The most keys that it names. Revoked ones come first, then the newest.
const MOST_KEYS: usize = 256;
/// The most bytes that they may take.
const MOST_BYTES: usize = 128 << 10;

/// A document that was signed.
#[derive(Clone)]
pub(super) struct Document {
    /// The compact JWS.
    pub(super) token: Arc<[u8]>,
    /// Who signed it.
    pub(super) kid: String,
    /// When.
    pub(super) at: Time,
    /// What it says, but for that.
    pub(super) claims: Map<String, Value>,
}

impl Document {
    /// How many keys it names, and how many it says that it does not.
    pub(super) fn counts(&self) -> (usize, usize) {
        let keys = self.claims.get("keys").and_then(Value::as_array);
        let left_out = self.claims.get("left_out").and_then(Value::as_u64);
        let left_out = left_out.and_then(|count| usize::try_from(count).ok());
        (keys.map_or(0, Vec::len), left_out.unwrap_or(0))
    }
}

/// The claims of a history, but for `iat`; and how many keys found no room.
pub(super) fn claims(issuer: &str, history: &History) -> (Map<String, Value>, usize) {
    let mut wanted: Vec<&Past> = history.keys.iter().collect();
    // Of a revoked key somebody must hear; of an old one its tokens are dead.
    wanted.sort_by_key(|past| (past.revoked.is_none(), std::cmp::Reverse(past.ended)));
    let mut bytes = 0;
    let mut shown: Vec<(&Past, Value)> = Vec::new();
    for past in &wanted {
        let Some(jwk) = jwk(past) else { continue };
        bytes += jwk.to_string().len() + 1;
        if shown.len() == MOST_KEYS || bytes > MOST_BYTES {
            break;
        }
        shown.push((past, jwk));
    }
    let left_out = wanted.len() - shown.len();
    // The newest last, and so the same order whatever is added.
    shown.sort_by_key(|(past, _)| (past.ended, &past.kid));
    let keys: Vec<Value> = shown.into_iter().map(|(_, jwk)| jwk).collect();
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), issuer.into());
    claims.insert("keys".to_owned(), keys.into());
    let missing = left_out + history.unknown.len();
    if missing > 0 {
        claims.insert("left_out".to_owned(), missing.into());
    }
    (claims, left_out)
}

/// A key as the document has it.
fn jwk(past: &Past) -> Option<Value> {
    let jwk = Jwk::new(past.kid.clone(), past.algorithm, past.public.clone()).ok()?;
    let mut jwk = serde_json::to_value(jwk).ok()?;
    let members = jwk.as_object_mut()?;
    let ended = past.ended.as_secs();
    if let Some(made) = past.made {
        members.insert("iat".to_owned(), made.as_secs().into());
    }
    members.insert("exp".to_owned(), ended.into());
    if let Some(reason) = past.revoked {
        let revoked = json!({ "revoked_at": ended, "reason": reason.name() });
        members.insert("revoked".to_owned(), revoked);
    }
    Some(jwk)
}

/// Reads a document that was kept, if a key of the log signed it.
pub(super) fn read_back(token: &[u8], log: &[Told]) -> Result<Document, String> {
    let parsed = CompactJws::parse(token, 4 * MOST_BYTES).map_err(|e| e.to_string())?;
    let kid = parsed.header.kid.clone().unwrap_or_default();
    let signer = log.iter().filter_map(|told| told.public.as_ref());
    let signer = signer.rev().find(|(known, ..)| *known == kid);
    let (_, algorithm, public) =
        signer.ok_or_else(|| format!("the log knows no key {kid:?}, which signed it"))?;
    if parsed.header.typ.as_deref() != Some(TYP) || parsed.header.algorithm != *algorithm {
        return Err(format!(
            "expected a header with typ {TYP} and alg {algorithm}"
        ));
    }
    let verifier = Verifier::new(*algorithm, public).map_err(|e| e.to_string())?;
    let verified = verifier.verify(parsed.signing_input, &parsed.signature);
    verified.map_err(|e| e.to_string())?;
    let claims = serde_json::from_slice(&parsed.payload).map_err(|e| e.to_string())?;
    let Value::Object(mut claims) = claims else {
        return Err("expected a JSON object of claims".to_owned());
    };
    let at = claims.remove("iat").and_then(|iat| iat.as_i64());
    Ok(Document {
        token: token.into(),
        kid,
        at: Time::from_secs(at.ok_or("expected an iat")?),
        claims,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::jose::{Algorithm, PublicKey};
    use crate::keyring::Reason;

    const POINT: [u8; 32] = *b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";

    fn past(n: usize, ended: i64, revoked: Option<Reason>) -> Past {
        Past {
            kid: format!("k{n:03}"),
            algorithm: Algorithm::Ed25519,
            public: PublicKey::ed25519(&POINT).unwrap(),
            made: (n > 0).then(|| Time::from_millis(1_500)),
            ended: Time::from_millis(ended * 1000 + 999),
            revoked,
        }
    }

    fn kids(claims: &Map<String, Value>) -> Vec<&str> {
        let keys = claims["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_key_has_its_end_and_why() {
        let keys = vec![
            past(0, 10, None),
            past(1, 20, Some(Reason::Compromised)),
            past(2, 30, Some(Reason::Unspecified)),
        ];
        let history = History {
            keys,
            ..History::default()
        };
        let (claims, left_out) = claims("https://a.example", &history);
        assert_eq!(left_out, 0);
        let x = crate::jose::base64url::encode(&POINT);
        let key = |kid: &str| json!({ "kty": "OKP", "use": "sig", "alg": "Ed25519", "kid": kid, "crv": "Ed25519", "x": x });
        let with = |kid: &str, more: Value| {
            let mut key = key(kid);
            let members = key.as_object_mut().unwrap();
            members.extend(more.as_object().unwrap().clone());
            key
        };
        let revoked = |at: i64, reason: &str| json!({ "iat": 1, "exp": at, "revoked": { "revoked_at": at, "reason": reason } });
        let expected = json!({
            "iss": "https://a.example",
            "keys": [
                with("k000", json!({ "exp": 10 })),
                with("k001", revoked(20, "compromised")),
                with("k002", revoked(30, "unspecified")),
            ],
        });
        assert_eq!(Value::Object(claims), expected);
    }

    #[test]
    fn a_long_history_keeps_what_was_revoked_and_says_what_it_lacks() {
        let mut keys = vec![past(0, 1, Some(Reason::Superseded))];
        keys.extend((1..=MOST_KEYS).map(|n| past(n, 10 + n as i64, None)));
        let unknown = ["lost".to_owned()].into();
        let (claims, left_out) = claims("https://a.example", &History { keys, unknown });
        let named = kids(&claims);
        assert_eq!((named.len(), left_out), (MOST_KEYS, 1));
        assert_eq!(claims["left_out"], 2);
        assert_eq!((named[0], named[1]), ("k000", "k002"));
        assert!(claims["keys"].to_string().len() <= MOST_BYTES);
    }
}
