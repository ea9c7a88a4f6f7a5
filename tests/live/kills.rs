//! `kill -9` before and after each effect, and at random: no key is lost, none
//! is there twice, no revoked key comes back, the JWKS is the same or further
//! on.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use sealkeeper::agent::failpoint::{Effect, Side};
use sealkeeper::api::v1::{
    AfterRevocation, ListKeysRequest, Order, Phase, RevocationReason, RevokeKeyRequest,
};
use sealkeeper::clock::{Clock, SystemClock};
use sealkeeper::jose::{ServedSet, TokenFault, verify_token};
use sealkeeper::time::Span;

use super::lab::{CALM, Daemon, Lab, PATIENCE, QUICK, kids, sign, wait_until};

/// What the world outside saw before the daemon died.
#[derive(Default)]
struct Witness {
    tokens: Vec<String>,
    /// How far each key had come.
    phases: BTreeMap<String, Phase>,
    /// What verifiers were shown.
    published: BTreeSet<String>,
}

impl Witness {
    /// Signs, looks at the keys and fetches the set until the daemon dies;
    /// `until` may end it earlier.
    async fn watch(&mut self, daemon: &mut Daemon, mut until: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let (mut signer, mut admin) = match daemon.clients().await {
            Some(clients) => clients,
            None => return, // It died before it served.
        };
        while !daemon.has_ended() && !until(self) {
            assert!(began.elapsed() < PATIENCE, "the daemon lives on");
            pace.tick().await;
            if let Ok(signed) = sign(&mut signer, "ES256", r#"{"sub":"load"}"#).await {
                self.tokens.push(signed.token);
            }
            if let Ok(listing) = admin.list_keys(ListKeysRequest::default()).await {
                for key in &listing.into_inner().key_sets[0].keys {
                    if !key.kid.is_empty() {
                        self.phases.insert(key.kid.clone(), key.phase());
                    }
                }
            }
            if let Some(jwks) = daemon.jwks().await {
                self.published.extend(kids(&jwks));
            }
        }
    }

    /// Holds what is there now against what was seen before.
    async fn check(&self, lab: &Lab, daemon: &Daemon) {
        self.check_tokens(daemon).await;
        healthy(lab).await;
        let after = phases(lab);
        let set: BTreeSet<String> = kids(&daemon.jwks().await.expect("a set"))
            .into_iter()
            .collect();
        let later = phases(lab);
        for (kid, before) in &self.phases {
            let now = after.get(kid).unwrap_or_else(|| panic!("{kid} was lost"));
            assert!(
                *now >= rank(phase_name(*before)),
                "{kid} went back from {before:?} to {now}"
            );
        }
        for kid in &self.published {
            // Only if nothing moved between the two looks.
            if after.get(kid) == later.get(kid) {
                let shown = after
                    .get(kid)
                    .is_some_and(|rank| (PUBLISHED..=RETIRING).contains(rank));
                assert_eq!(shown, set.contains(kid), "{kid}: {after:?} {set:?}");
            }
        }
    }

    /// Each token that is still alive verifies against the set of now.
    async fn check_tokens(&self, daemon: &Daemon) {
        let jwks = daemon.jwks().await.expect("a set");
        let set = ServedSet::read(&jwks).expect("a JWKS").set;
        for token in &self.tokens {
            let now = SystemClock::new().read().wall;
            match verify_token(token, &set, now, Span::default()) {
                Ok(_) | Err(TokenFault::Expired { .. }) => {}
                // Keys leave the set after the last of their tokens has ended.
                Err(TokenFault::UnknownKid { .. }) if expires(token) <= now.as_secs() => {}
                Err(e) => panic!("a token that was released does not verify: {e}"),
            }
        }
    }
}

/// The `exp` of a token, read without a look at the signature.
fn expires(token: &str) -> i64 {
    let payload = token.split('.').nth(1).expect("a payload");
    let payload = sealkeeper::jose::base64url::decode(payload).expect("base64url");
    let claims: serde_json::Value = serde_json::from_slice(&payload).expect("claims");
    claims["exp"].as_i64().expect("an exp")
}

const PUBLISHED: u8 = 1;
const RETIRING: u8 = 3;

/// How far a phase is on the way.
fn rank(phase: &str) -> u8 {
    match phase {
        "generating" => 0,
        "published" => PUBLISHED,
        "active" => 2,
        "retiring" => RETIRING,
        "retired" => 4,
        "revoked" => 5,
        other => panic!("the phase {other}"),
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => panic!("a key without a phase"),
        Phase::Generating => "generating",
        Phase::Published => "published",
        Phase::Active => "active",
        Phase::Retiring => "retiring",
        Phase::Retired => "retired",
        Phase::Revoked => "revoked",
    }
}

/// How far each key is now.
fn phases(lab: &Lab) -> BTreeMap<String, u8> {
    let keys = lab.keys();
    let phase = |key: &serde_json::Value| rank(key["phase"].as_str().expect("a phase"));
    keys.iter()
        .map(|key| (key["kid"].as_str().expect("a kid").to_owned(), phase(key)))
        .collect()
}

/// Waits for one key that signs and one that stands by, and for a token that
/// holds the keys of the record, each once, and nothing else.
pub(super) async fn healthy(lab: &Lab) {
    let began = Instant::now();
    wait_until(async || {
        let keys = lab.keys();
        let count = |phase: &str| keys.iter().filter(|key| key["phase"] == phase).count();
        let settled = count("active") == 1
            && count("published") >= 1
            && count("generating") == 0
            && keys
                .iter()
                .all(|key| key["placements"][0]["state"] != "destroying");
        assert!(
            settled || began.elapsed() < PATIENCE * 3 / 4,
            "not healthy: {keys:#?}\n{}",
            lab.log()
        );
        if !settled {
            return false;
        }
        let objects = lab.objects_in_token();
        assert!(
            began.elapsed() < PATIENCE * 3 / 4,
            "the token holds something else: {objects:?}\n{keys:#?}\n{}",
            lab.log()
        );
        let wanted: BTreeMap<String, usize> = keys
            .iter()
            .filter(|key| key["placements"][0]["state"] != "destroyed")
            .map(|key| {
                let id = key["placements"][0]["handle_id"].as_str().expect("an id");
                (id.to_owned(), 1)
            })
            .collect();
        objects == wanted
    })
    .await;
}

/// Kills a daemon at one place, starts another one, and looks around.
async fn dies(side: Side, effect: Effect, nth: u32) {
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.init();
    let place = place(side, effect, nth);
    let mut witness = Witness::default();
    let mut daemon = lab.spawn(&[("SEALKEEPER_FAILPOINT", &place)]);
    let mut revoked = None;
    if effect == Effect::WriteTombstone {
        witness
            .watch(&mut daemon, |witness| witness.tokens.len() >= 5)
            .await;
        let kid = active(&witness);
        revoke(&mut daemon, &kid).await;
        revoked = Some(kid);
    }
    witness.watch(&mut daemon, |_| false).await;
    let ended = daemon.end().await;
    assert_eq!(
        ended.signal(),
        Some(9),
        "{place} was not reached: {}",
        lab.log()
    );

    let mut daemon = lab.serve().await;
    if let Some(kid) = revoked.filter(|_| side == Side::After) {
        // Those who hold its tokens were told not to trust them.
        witness.tokens.clear();
        stays_revoked(&lab, &mut daemon, &kid).await;
    }
    witness.check(&lab, &daemon).await;
}

fn place(side: Side, effect: Effect, nth: u32) -> String {
    let side = match side {
        Side::Before => "before",
        Side::After => "after",
    };
    format!("{side}:{}:{nth}", effect.name())
}

fn active(witness: &Witness) -> String {
    let key = witness
        .phases
        .iter()
        .find(|(_, phase)| **phase == Phase::Active);
    key.expect("an active key").0.clone()
}

/// Asks for a revocation; the daemon may die over it.
pub(super) async fn revoke(daemon: &mut Daemon, kid: &str) {
    let mut request = RevokeKeyRequest {
        order: Some(Order {
            request_id: format!("revoke {kid}"),
            key_set: "main".to_owned(),
            expected_version: String::new(),
        }),
        kid: kid.to_owned(),
        ..Default::default()
    };
    request.set_reason(RevocationReason::Compromised);
    request.set_then(AfterRevocation::Wait);
    let (_, mut admin) = daemon.clients().await.expect("a daemon that serves");
    let _ = admin.revoke_key(request).await;
}

/// A revoked key is in no set, and signs nothing.
pub(super) async fn stays_revoked(lab: &Lab, daemon: &mut Daemon, kid: &str) {
    let (mut signer, _) = daemon.clients().await.expect("a daemon that serves");
    wait_until(async || {
        let shown = kids(&daemon.jwks().await.expect("a set"));
        assert!(!shown.is_empty(), "the set is empty");
        assert!(!shown.iter().any(|k| k == kid), "a revoked key is shown");
        match sign(&mut signer, "ES256", "{}").await {
            Ok(signed) => {
                assert_ne!(signed.kid, kid, "a revoked key signs");
                true
            }
            Err(_) => false,
        }
    })
    .await;
    assert_eq!(phases(lab).get(kid), Some(&rank("revoked")));
}

macro_rules! each_effect {
    ($($name:ident: $effect:ident, $nth:literal;)*) => {
        $(mod $name {
            use super::*;

            #[tokio::test]
            async fn the_daemon_dies_before() {
                dies(Side::Before, Effect::$effect, $nth).await;
            }

            #[tokio::test]
            async fn the_daemon_dies_after() {
                dies(Side::After, Effect::$effect, $nth).await;
            }
        })*

        /// A new effect gets its tests.
        #[test]
        fn no_effect_is_left_out() {
            assert_eq!([$(Effect::$effect),*], Effect::ALL);
        }
    };
}

each_effect! {
    store_record: StoreRecord, 3;
    append_key_events: AppendKeyEvents, 3;
    generate: Generate, 1;
    destroy: Destroy, 1;
    write_last_good: WriteLastGood, 3;
    write_placeholder: WritePlaceholder, 1;
    write_tombstone: WriteTombstone, 1;
    swap_view: SwapView, 4;
    append_signing: AppendSigning, 5;
}

/// Kills `init` at each time that it comes by a place, and begins again.
async fn init_dies(effect: Effect) {
    for side in [Side::Before, Side::After] {
        let mut reached = 0;
        for nth in 1.. {
            let lab = Lab::new(CALM, &["ES256"]);
            let init = lab
                .command(&["init"])
                .env("SEALKEEPER_FAILPOINT", place(side, effect, nth))
                .output()
                .expect("the program under test");
            if init.status.success() {
                break;
            }
            assert_eq!(init.status.signal(), Some(9), "{init:?}");
            reached = nth;
            let again = lab.run(&["init"]);
            let said = String::from_utf8_lossy(&again.stderr);
            assert!(
                again.status.success() || said.contains("has begun already"),
                "init after a crash at {}: {said}",
                place(side, effect, nth)
            );
            let _daemon = lab.serve().await;
            healthy(&lab).await;
        }
        assert!(reached > 0, "{} was not reached", place(side, effect, 1));
    }
}

mod init_dies_at {
    use super::*;

    #[tokio::test]
    async fn store_record() {
        init_dies(Effect::StoreRecord).await;
    }

    #[tokio::test]
    async fn append_key_events() {
        init_dies(Effect::AppendKeyEvents).await;
    }

    #[tokio::test]
    async fn generate() {
        init_dies(Effect::Generate).await;
    }

    #[tokio::test]
    async fn destroy() {
        init_dies(Effect::Destroy).await;
    }

    #[tokio::test]
    async fn write_last_good() {
        init_dies(Effect::WriteLastGood).await;
    }
}

/// Six kills at instants that nobody chose, through several rotations.
#[tokio::test]
async fn the_daemon_dies_at_random_under_load() {
    let mut seed =
        u64::from(std::process::id()) ^ SystemClock::new().read().wall.as_secs().unsigned_abs();
    if let Ok(replay) = std::env::var("SEALKEEPER_SEED") {
        seed = replay.parse().expect("a seed");
    }
    println!("SEALKEEPER_SEED={seed}");
    let lab = Lab::new(QUICK, &["ES256"]);
    lab.init();
    let mut witness = Witness::default();
    for _ in 0..6 {
        let mut daemon = lab.serve().await;
        witness.check_tokens(&daemon).await;
        let life = Duration::from_millis(splitmix(&mut seed) % 3000);
        let born = Instant::now();
        witness.watch(&mut daemon, |_| born.elapsed() >= life).await;
        daemon.kill();
    }
    let daemon = lab.serve().await;
    witness.check(&lab, &daemon).await;
    assert!(!witness.tokens.is_empty(), "nothing was signed");
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
