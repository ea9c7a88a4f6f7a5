//! What a receiver is told.

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;

use crate::audit::KeyEvent;
use crate::time::Time;

/// A body and its id, the same at each try.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

/// Nothing of who ordered it, of what they noted, or of who called.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    at: String,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_set: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'a str>,
    /// Of a revocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Message {
    /// Of a key event. Its id is made of what it says: a log that is written
    /// anew, or that another agent on the store writes, gives the same one.
    pub(super) fn of(event: &KeyEvent, issuer: Option<&str>) -> Self {
        let KeyEvent {
            key_set,
            number,
            event: name,
            key,
            at,
            ..
        } = event;
        let said = format!("{key_set}\0{number}\0{name}\0{key}\0{}", at.as_millis());
        let id = hex("evt_", &digest(&SHA256, said.as_bytes()).as_ref()[..16]);
        let jwk = event.jwk.as_ref();
        let note = event.note.as_deref();
        let of_revocation = ["revoked", "revocation-noted"].contains(&name.as_str());
        let body = Body {
            id: &id,
            at: at.to_string(),
            event: name,
            key_set: Some(key_set),
            issuer,
            kid: event.kid.as_deref(),
            alg: jwk.and_then(|jwk| jwk.get("alg")?.as_str()),
            reason: note
                .filter(|_| of_revocation)
                .and_then(|note| note.strip_prefix("reason ")),
        };
        Self::new(&id, &body)
    }

    /// Of nothing that happened.
    pub(super) fn test(now: Time) -> Self {
        let id = hex("test_", &random());
        let body = Body {
            id: &id,
            at: now.to_string(),
            event: "test",
            key_set: None,
            issuer: None,
            kid: None,
            alg: None,
            reason: None,
        };
        Self::new(&id, &body)
    }

    fn new(id: &str, body: &Body<'_>) -> Self {
        Self {
            id: id.to_owned(),
            body: serde_json::to_vec(body).expect("names and values are text"),
        }
    }
}

fn hex(prefix: &str, bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    prefix.to_owned() + &digits.collect::<String>()
}

/// 16 random bytes; where the kernel gives none, an id that is not unique harms
/// nobody: it is of a test, or decides how long a wait is.
pub(super) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    bytes
}
