//! The administration edge.
//!
//! Long because: every call of the service, and every field that it refuses,
//! stands in one place.

use std::sync::{Arc, Mutex};

use sealkeeper::agent::Administration;
use sealkeeper::agent::admin::{
    AdminError, AfterRevocation, Change, Changed, DeviceOrder, Ended, EndedKey, ForgottenKey,
    HoldStatus, KeyPhase, KeySetStatus, KeyStatus, Order, PlacementStatus, PrivateHalf,
    RevocationReason, RevocationStatus, SightingStatus, Upcoming,
};
use sealkeeper::agent::forced::{Early, Rotation};
use sealkeeper::agent::impact::{Foreseen, Fresh, Impact, Thought, Tokens};
use sealkeeper::api::client;
use sealkeeper::api::v1;
use sealkeeper::api::v1::key_admin_client::KeyAdminClient;
use sealkeeper::jose::Algorithm;
use sealkeeper::keyring::{Discrepancy, WayBack, Wrong};
use sealkeeper::policy::Caller;
use sealkeeper::time::Time;
use tonic::Code;
use tonic::transport::Channel;

use super::fake::Unchanging;
use super::*;

/// In the agent's place: does nothing, and remembers what it was asked.
#[derive(Default)]
struct Keeper {
    orders: Mutex<Vec<(Caller, Order)>>,
    failure: Mutex<Option<AdminError>>,
}

impl Administration for Keeper {
    async fn key_sets(
        &self,
        _: &Caller,
        key_set: Option<&str>,
    ) -> Result<Vec<KeySetStatus>, AdminError> {
        if let Some(error @ AdminError::Unavailable { .. }) = &*self.failure.lock().unwrap() {
            return Err(error.clone());
        }
        match key_set {
            None | Some("main") => Ok(vec![status()]),
            Some(name) => Err(AdminError::UnknownKeySet { name: name.into() }),
        }
    }

    async fn change(&self, caller: &Caller, order: Order) -> Result<Changed, AdminError> {
        if let Some(error) = self.failure.lock().unwrap().clone() {
            return Err(error);
        }
        self.orders.lock().unwrap().push((caller.clone(), order));
        Ok(Changed {
            key_set: status(),
            done: vec!["key-1 is blocked".into()],
            pending: vec!["key-1 is being destroyed".into()],
            trusted_until: Some(at(9)),
            durable: true,
            alone: Some("unix:7".into()),
            impact: Some(impact("key-1")),
        })
    }

    async fn revoke_device(
        &self,
        caller: &Caller,
        order: DeviceOrder,
    ) -> Result<Vec<Ended>, AdminError> {
        let ended = |kid: &str, outcome| Ended {
            key_set: "main".into(),
            kid: kid.into(),
            outcome,
        };
        assert_eq!(order.device, "hsm");
        assert_eq!(order.then, AfterRevocation::Activate);
        assert_eq!(order.reason, RevocationReason::Compromised);
        assert!(matches!(caller, Caller::Unix { .. }));
        assert_eq!(order.note, "n");
        let key = EndedKey {
            done: vec!["key-1 is blocked".into()],
            pending: vec!["key-1 is being destroyed".into()],
            trusted_until: Some(at(9)),
            durable: true,
            impact: Some(impact("key-1")),
        };
        let unknown = AdminError::UnknownKeySet { name: "x".into() };
        Ok(vec![ended("key-1", Ok(key)), ended("", Err(unknown))])
    }

    async fn foresee(
        &self,
        _: &Caller,
        set: &str,
        thought: Thought,
    ) -> Result<Foreseen, AdminError> {
        if set != "main" {
            return Err(AdminError::UnknownKeySet { name: set.into() });
        }
        let notes = vec!["it is the last key".into()];
        let impact = impact(&thought.kid);
        Ok(Foreseen { impact, notes })
    }

    async fn foresee_rotation(
        &self,
        _: &Caller,
        set: &str,
        algorithm: Option<Algorithm>,
    ) -> Result<Rotation, AdminError> {
        if set != "main" {
            return Err(AdminError::UnknownKeySet { name: set.into() });
        }
        let until = at(34);
        let back = match algorithm {
            Some(Algorithm::Es384) => WayBack::TooLate,
            Some(Algorithm::Ps256) => WayBack::Unseen {
                origins: vec!["o".into()],
                until,
            },
            _ => WayBack::Open {
                from: at(33),
                until,
            },
        };
        Ok(Rotation {
            algorithm: algorithm.unwrap_or(Algorithm::Es256),
            signs: Some("key-1".into()),
            instead_of: Some("key-0".into()),
            decided: Some(at(36)),
            tokens: impact("key-1").tokens,
            next: Some("key-2".into()),
            safe_at: Some(at(30)),
            waits_for: Some("the origin o to answer".into()),
            forced: Some(Early {
                at: at(31),
                refused_until: Some(at(32)),
                lacking: vec!["o".into()],
                back: Some(back),
            }),
            notes: vec!["--force waits for a second person".into()],
        })
    }
}

/// Everything that can be set is.
fn impact(kid: &str) -> Impact {
    let tokens = Tokens {
        alive: 12,
        latest_exp: Some(at(20)),
        from_log: true,
        callers: vec![("unix:7".into(), 9, Some(at(21)))],
        others: 3,
        gaps: vec!["1 lines are damaged".into()],
        ..Tokens::default()
    };
    Impact {
        kid: kid.into(),
        tokens,
        signs: Some("key-2".into()),
        next: Some((Some("key-3".into()), at(22))),
        jwks: vec!["key-2".into()],
        placeholder: true,
        fresh_enters: true,
        trusted_until: at(23),
        fresh: Fresh::Expected(at(24)),
        waits_for: vec!["the origin web to answer".into()],
    }
}

/// The same, as it arrives.
fn impact_arrived(kid: &str) -> Option<v1::RevocationImpact> {
    Some(v1::RevocationImpact {
        kid: kid.into(),
        tokens: 12,
        latest_exp: date(20),
        latest_exp_from_log: true,
        callers: vec![v1::CallerTokens {
            caller: "unix:7".into(),
            tokens: 9,
            latest_exp: date(21),
        }],
        tokens_of_others: 3,
        log_gaps: vec!["1 lines are damaged".into()],
        signs: "key-2".into(),
        next_kid: "key-3".into(),
        next_at: date(22),
        jwks: vec!["key-2".into()],
        placeholder: true,
        fresh_enters: true,
        trusted_until: date(23),
        fresh_expected: date(24),
        waits_for: vec!["the origin web to answer".into()],
        fresh_active: false,
        unbounded_verifiers: vec!["go-oidc".into(), "OpenBao".into()],
    })
}

/// A different date for each `n`.
fn at(n: i64) -> Time {
    Time::from_millis(1_800_000_000_000 + n * 1001)
}

fn date(n: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_800_000_000 + n,
        nanos: i32::try_from(n).unwrap() * 1_000_000,
    })
}

/// Everything that can be set is, each date another.
fn status() -> KeySetStatus {
    KeySetStatus {
        name: "main".into(),
        version: "v7".into(),
        issuer: "https://issuer.example".into(),
        keys: vec![KeyStatus {
            kid: "key-1".into(),
            algorithm: Algorithm::Rs256,
            phase: KeyPhase::Revoked,
            private_half: PrivateHalf::Destroyed,
            placements: vec![PlacementStatus {
                device: "hsm1".into(),
                handle_id: vec![1, 2],
                state: "destroyed".into(),
                token: Some("0123".into()),
            }],
            created: Some(at(13)),
            activated: Some(at(14)),
            published: Some(at(1)),
            sightings: vec![SightingStatus {
                origin: "https://cdn.example/jwks.json".into(),
                since: Some(at(15)),
                wrong: Some(Discrepancy {
                    kid: "key-1".into(),
                    what: Wrong::Impostor,
                    page: true,
                    detail: "another public key".into(),
                    addresses: vec!["192.0.2.1".into()],
                }),
                waived_until: Some(at(16)),
            }],
            observed: Some(at(2)),
            activates: Some(at(3)),
            active_since: Some(at(4)),
            retiring_since: Some(at(5)),
            private_destroyed: Some(at(6)),
            private_given_up: Some(at(17)),
            removed: Some(at(7)),
            exp_ceiling: Some(at(8)),
            refused_until: Some(at(35)),
            hold: Some(HoldStatus {
                since: at(10),
                by: "unix:1".into(),
                note: "forensics".into(),
            }),
            revocation: Some(RevocationStatus {
                at: at(11),
                by: "unix:2".into(),
                reason: RevocationReason::Compromised,
                note: "leak".into(),
                in_memory_alone: true,
            }),
        }],
        next: vec![Upcoming {
            at: at(12),
            kind: "activate".into(),
            kid: Some("key-2".into()),
            algorithm: Algorithm::Es256,
            waits_for: Some("observation".into()),
        }],
        forgotten: vec![ForgottenKey {
            kid: "key-0".into(),
            revocation: RevocationStatus {
                at: at(18),
                by: "unix:3".into(),
                reason: RevocationReason::Superseded,
                note: String::new(),
                in_memory_alone: false,
            },
        }],
        clock_doubt: Some("expected 3, got 4".into()),
        not_in_force: Some("it is old".into()),
        requests: vec![],
    }
}

/// The same, as it must arrive.
fn arrived() -> v1::KeySet {
    v1::KeySet {
        name: "main".into(),
        version: "v7".into(),
        issuer: "https://issuer.example".into(),
        keys: vec![v1::Key {
            kid: "key-1".into(),
            alg: "RS256".into(),
            phase: v1::Phase::Revoked.into(),
            private_half: v1::PrivateHalf::Destroyed.into(),
            placements: vec![v1::Placement {
                device: "hsm1".into(),
                handle_id: vec![1, 2],
                state: "destroyed".into(),
                token_serial: "0123".into(),
            }],
            created: date(13),
            activated: date(14),
            published: date(1),
            sightings: vec![v1::Sighting {
                origin: "https://cdn.example/jwks.json".into(),
                since: date(15),
                instead: "another public key".into(),
                waived_until: date(16),
                addresses: vec!["192.0.2.1".into()],
            }],
            observed: date(2),
            activates: date(3),
            active_since: date(4),
            retiring_since: date(5),
            private_destroyed: date(6),
            private_given_up: date(17),
            removed: date(7),
            exp_ceiling: date(8),
            refused_until: date(35),
            hold: Some(v1::Hold {
                since: date(10),
                by: "unix:1".into(),
                note: "forensics".into(),
            }),
            revocation: Some(v1::Revocation {
                at: date(11),
                by: "unix:2".into(),
                reason: v1::RevocationReason::Compromised.into(),
                note: "leak".into(),
                in_memory_alone: true,
            }),
        }],
        next: vec![v1::Event {
            at: date(12),
            kind: "activate".into(),
            kid: "key-2".into(),
            alg: "ES256".into(),
            waits_for: "observation".into(),
        }],
        clock_in_doubt: true,
        forgotten: vec![v1::ForgottenKey {
            kid: "key-0".into(),
            revocation: Some(v1::Revocation {
                at: date(18),
                by: "unix:3".into(),
                reason: v1::RevocationReason::Superseded.into(),
                note: String::new(),
                in_memory_alone: false,
            }),
        }],
        clock_doubt: "expected 3, got 4".into(),
        not_in_force: "it is old".into(),
    }
}

fn serve(keeper: &Arc<Keeper>) -> Server {
    let keeper = Arc::clone(keeper);
    Server::start(move |listener, stopped| async move {
        let stopped = async { drop(stopped.await) };
        let limits = Limits::default();
        let configuration = Arc::new(Unchanging);
        grpc_edge::serve_admin(listener, keeper, callers(), configuration, limits, stopped).await;
    })
}

async fn connect(server: &Server) -> KeyAdminClient<Channel> {
    KeyAdminClient::new(client::connect(server.path()).await.unwrap())
}

fn order() -> Option<v1::Order> {
    Some(v1::Order {
        request_id: "r-1".into(),
        key_set: "main".into(),
        expected_version: "v6".into(),
    })
}

fn hold() -> v1::HoldKeyRequest {
    v1::HoldKeyRequest {
        order: order(),
        kid: "key-1".into(),
        note: "n".into(),
    }
}

#[tokio::test]
async fn keys_are_listed_with_all_that_is_known() {
    let server = serve(&Arc::default());
    let mut client = connect(&server).await;
    for key_set in ["", "main"] {
        let request = v1::ListKeysRequest {
            key_set: key_set.into(),
        };
        let reply = client.list_keys(request).await.unwrap().into_inner();
        assert_eq!(reply.key_sets, [arrived()]);
    }
    let request = v1::ListKeysRequest {
        key_set: "other".into(),
    };
    let status = client.list_keys(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(Told::of(&status).reason, "UNKNOWN_KEY_SET");
}

#[tokio::test]
async fn a_revocation_is_foreseen_with_all_that_is_known() {
    let keeper = Arc::<Keeper>::default();
    let server = serve(&keeper);
    let mut client = connect(&server).await;
    let mut preview = async |key_set: &str, kid: &str| {
        let (key_set, kid) = (key_set.into(), kid.into());
        let request = v1::PreviewRevocationRequest {
            key_set,
            kid,
            ..Default::default()
        };
        let reply = client.preview_revocation(request).await;
        reply.map(tonic::Response::into_inner)
    };
    let foreseen = v1::PreviewRevocationResponse {
        impact: impact_arrived("key-1"),
        notes: vec!["it is the last key".into()],
    };
    assert_eq!(preview("main", "key-1").await.unwrap(), foreseen);
    assert!(keeper.orders.lock().unwrap().is_empty(), "nothing is done");
    let unknown = preview("other", "key-1").await.unwrap_err();
    assert_eq!(Told::of(&unknown).reason, "UNKNOWN_KEY_SET");
    let no_kid = preview("main", "").await.unwrap_err();
    assert_eq!(no_kid.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_rotation_is_foreseen_with_all_that_is_known() {
    let keeper = Arc::<Keeper>::default();
    let server = serve(&keeper);
    let mut client = connect(&server).await;
    let mut preview = async |key_set: &str, alg: &str| {
        let (key_set, alg) = (key_set.into(), alg.into());
        let request = v1::PreviewRotationRequest { key_set, alg };
        let reply = client.preview_rotation(request).await;
        reply.map(tonic::Response::into_inner)
    };
    let tokens = impact_arrived("key-1").unwrap();
    let foreseen = v1::PreviewRotationResponse {
        alg: "ES512".into(),
        signs: "key-1".into(),
        tokens: tokens.tokens,
        callers: tokens.callers,
        tokens_of_others: tokens.tokens_of_others,
        log_gaps: tokens.log_gaps,
        next_kid: "key-2".into(),
        safe_at: date(30),
        waits_for: "the origin o to answer".into(),
        forced: Some(v1::ForcedActivation {
            at: date(31),
            refused_until: date(32),
            lacking_origins: vec!["o".into()],
            back_from: date(33),
            back_until: date(34),
            back_waits_for: vec![],
            no_way_back: String::new(),
        }),
        notes: vec!["--force waits for a second person".into()],
        instead_of: "key-0".into(),
        decided_at: date(36),
    };
    assert_eq!(preview("main", "ES512").await.unwrap(), foreseen);
    let forced = preview("main", "PS256").await.unwrap().forced.unwrap();
    assert_eq!((forced.back_from, forced.back_until), (None, date(34)));
    assert_eq!(forced.back_waits_for, ["o"]);
    let forced = preview("main", "ES384").await.unwrap().forced.unwrap();
    assert_eq!((forced.back_from, forced.back_until), (None, None));
    assert!(forced.no_way_back.contains("private half goes before"));
    assert_eq!(preview("main", "").await.unwrap().alg, "ES256");
    assert!(keeper.orders.lock().unwrap().is_empty(), "nothing is done");
    let unknown = preview("other", "").await.unwrap_err();
    assert_eq!(Told::of(&unknown).reason, "UNKNOWN_KEY_SET");
    let none = preview("main", "none").await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_end_of_a_device_tells_of_each_key() {
    let server = serve(&Arc::default());
    let mut client = connect(&server).await;
    let whole = v1::RevokeDeviceRequest {
        device: "hsm".into(),
        reason: v1::RevocationReason::Compromised.into(),
        note: "n".into(),
        then: v1::AfterRevocation::Activate.into(),
    };
    let reply = client.revoke_device(whole.clone()).await.unwrap();
    let ended = v1::DeviceKey {
        key_set: "main".into(),
        kid: "key-1".into(),
        done: vec!["key-1 is blocked".into()],
        pending: vec!["key-1 is being destroyed".into()],
        trusted_until: date(9),
        durable: true,
        impact: impact_arrived("key-1"),
        error: String::new(),
    };
    let failed = v1::DeviceKey {
        key_set: "main".into(),
        error: "no key set \"x\" is configured".into(),
        ..Default::default()
    };
    assert_eq!(reply.into_inner().keys, [ended, failed]);
    let (no_device, mut no_choice) = (v1::RevokeDeviceRequest::default(), whole);
    no_choice.then = 0;
    for wrong in [no_device, no_choice] {
        let refused = client.revoke_device(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn each_change_arrives_as_it_was_ordered() {
    let keeper = Arc::<Keeper>::default();
    let server = serve(&keeper);
    let mut client = connect(&server).await;
    let kid = || "key-1".to_owned();
    let order_ = order;

    let reply = client
        .revoke_key(v1::RevokeKeyRequest {
            order: order_(),
            kid: kid(),
            reason: v1::RevocationReason::Superseded.into(),
            then: v1::AfterRevocation::Wait.into(),
            note: "n".into(),
        })
        .await
        .unwrap()
        .into_inner();
    let expected = v1::ChangeResponse {
        key_set: Some(arrived()),
        done: vec!["key-1 is blocked".into()],
        pending: vec!["key-1 is being destroyed".into()],
        trusted_until: date(9),
        durable: true,
        acted_alone: "unix:7".into(),
        impact: impact_arrived("key-1"),
    };
    assert_eq!(reply, expected);

    for alg in ["", "ES512"] {
        let alg: String = alg.into();
        let request = v1::RotateKeyRequest {
            order: order_(),
            force: !alg.is_empty(),
            alg,
            note: "n".into(),
        };
        client.rotate_key(request).await.unwrap();
    }
    let (order, kid_) = (order_(), kid());
    client
        .rollback_key(v1::RollbackKeyRequest { order, kid: kid_ })
        .await
        .unwrap();
    client
        .destroy_key(v1::DestroyKeyRequest {
            order: order_(),
            kid: kid(),
            end_rollback: true,
            note: "n".into(),
        })
        .await
        .unwrap();
    client.hold_key(hold()).await.unwrap();
    let (order, kid_) = (order_(), kid());
    client
        .release_key(v1::ReleaseKeyRequest { order, kid: kid_ })
        .await
        .unwrap();
    let (order, reading) = (order_(), date(3));
    client
        .confirm_clock(v1::ConfirmClockRequest {
            order,
            reading,
            note: "n".into(),
        })
        .await
        .unwrap();
    let any_version = Some(v1::Order {
        expected_version: String::new(),
        ..order_().unwrap()
    });
    let order = any_version;
    client
        .release_key(v1::ReleaseKeyRequest { order, kid: kid() })
        .await
        .unwrap();

    let orders = keeper.orders.lock().unwrap().clone();
    let changes: Vec<_> = orders
        .iter()
        .map(|(_, order)| order.change.clone())
        .collect();
    let note = || "n".to_owned();
    assert_eq!(
        changes,
        [
            Change::Revoke {
                kid: kid(),
                reason: RevocationReason::Superseded,
                then: Some(AfterRevocation::Wait),
                note: note()
            },
            Change::Rotate {
                algorithm: None,
                force: false,
                note: note()
            },
            Change::Rotate {
                algorithm: Some(Algorithm::Es512),
                force: true,
                note: note()
            },
            Change::Rollback { kid: kid() },
            Change::Destroy {
                kid: kid(),
                end_rollback: true,
                note: note()
            },
            Change::Hold {
                kid: kid(),
                note: note()
            },
            Change::Release { kid: kid() },
            Change::ConfirmClock {
                reading: at(3),
                note: note()
            },
            Change::Release { kid: kid() },
        ]
    );
    let uid = rustix::process::getuid().as_raw();
    for (at, (caller, order)) in orders.iter().enumerate() {
        assert!(matches!(caller, Caller::Unix { uid: found, .. } if *found == uid));
        assert_eq!(
            (order.request_id.as_str(), order.key_set.as_str()),
            ("r-1", "main")
        );
        let version = (at < 8).then_some("v6");
        assert_eq!(order.expected_version.as_deref(), version);
    }
}

#[tokio::test]
async fn an_order_that_is_not_whole_does_not_reach_the_agent() {
    let keeper = Arc::<Keeper>::default();
    let server = serve(&keeper);
    let mut client = connect(&server).await;
    client.hold_key(hold()).await.unwrap();
    let with = |change: fn(&mut v1::Order)| {
        let mut order = order().unwrap();
        change(&mut order);
        v1::HoldKeyRequest {
            order: Some(order),
            ..hold()
        }
    };
    let holds = [
        (
            v1::HoldKeyRequest {
                order: None,
                ..hold()
            },
            "order.request_id",
        ),
        (with(|o| o.request_id.clear()), "order.request_id"),
        (with(|o| o.request_id = "x".repeat(65)), "order.request_id"),
        (with(|o| o.key_set.clear()), "order.key_set"),
        (
            v1::HoldKeyRequest {
                kid: String::new(),
                ..hold()
            },
            "kid",
        ),
        (
            v1::HoldKeyRequest {
                kid: "x".repeat(1025),
                ..hold()
            },
            "kid",
        ),
        (
            v1::HoldKeyRequest {
                note: "x".repeat(1025),
                ..hold()
            },
            "note",
        ),
        (
            v1::HoldKeyRequest {
                note: "looks \x1b[8m harmless".into(),
                ..hold()
            },
            "note",
        ),
    ];
    let mut refused = Vec::new();
    for (request, field) in holds {
        refused.push((client.hold_key(request).await.unwrap_err(), field));
    }
    // Text that reads as something else than it says.
    for turned in [
        '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}',
    ] {
        let request = v1::HoldKeyRequest {
            note: format!("looks {turned} harmless"),
            ..hold()
        };
        refused.push((client.hold_key(request).await.unwrap_err(), "note"));
    }
    let request = v1::RevokeKeyRequest {
        order: order(),
        kid: "key-1".into(),
        reason: 7,
        then: 0,
        note: String::new(),
    };
    refused.push((
        client.revoke_key(request.clone()).await.unwrap_err(),
        "reason",
    ));
    let request = v1::RevokeKeyRequest {
        reason: 0,
        then: 7,
        ..request
    };
    refused.push((client.revoke_key(request).await.unwrap_err(), "then"));
    let request = v1::RotateKeyRequest {
        order: order(),
        alg: "none".into(),
        ..Default::default()
    };
    refused.push((client.rotate_key(request).await.unwrap_err(), "alg"));
    let no_date = Some(prost_types::Timestamp {
        seconds: 0,
        nanos: -1_000_000,
    });
    for reading in [None, no_date] {
        let order = order();
        let request = v1::ConfirmClockRequest {
            order,
            reading,
            ..Default::default()
        };
        refused.push((client.confirm_clock(request).await.unwrap_err(), "reading"));
    }
    for (status, field) in refused {
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
        let told = Told::of(&status);
        assert_eq!(told.reason, "INVALID_FIELD");
        assert_eq!(told.field(), Some(field));
        assert_eq!(told.metadata("fault"), Some("caller"));
        assert!(told.metadata("hint").is_some());
    }
    assert_eq!(keeper.orders.lock().unwrap().len(), 1);
}

/// Found by review: `keys list` on a broken store said "nothing was changed;
/// order again".
#[tokio::test]
async fn who_only_looks_is_not_told_to_order_again() {
    let keeper = Arc::<Keeper>::default();
    *keeper.failure.lock().unwrap() = Some(AdminError::Unavailable {
        reason: "STORE_UNAVAILABLE",
        why: "the store is damaged".into(),
        retry_after: None,
    });
    let server = serve(&keeper);
    let mut client = connect(&server).await;
    let hint = |status: &tonic::Status| Told::of(status).metadata("hint").unwrap().to_owned();
    let looked = client.list_keys(v1::ListKeysRequest::default()).await;
    let looked = hint(&looked.unwrap_err());
    assert!(looked.contains("`sealkeeper doctor`"), "{looked}");
    assert!(!looked.contains("order"), "{looked}");
    let ordered = hint(&client.hold_key(hold()).await.unwrap_err());
    assert!(ordered.contains("nothing was changed"), "{ordered}");
}

#[tokio::test]
async fn each_failure_has_its_code_and_details() {
    let keeper = Arc::<Keeper>::default();
    let server = serve(&keeper);
    let mut client = connect(&server).await;
    let day = Duration::from_secs(86_400);
    let cases = [
        (
            AdminError::UnknownKeySet { name: "x".into() },
            (
                Code::NotFound,
                "UNKNOWN_KEY_SET",
                "caller",
                Some("order.key_set"),
                None,
            ),
        ),
        (
            AdminError::UnknownKey {
                key_set: "main".into(),
                kid: "x".into(),
            },
            (Code::NotFound, "UNKNOWN_KEY", "caller", Some("kid"), None),
        ),
        (
            AdminError::UnknownTrack {
                key_set: "main".into(),
                algorithm: Algorithm::Ps256,
            },
            (
                Code::NotFound,
                "UNKNOWN_ALGORITHM",
                "caller",
                Some("alg"),
                None,
            ),
        ),
        (
            AdminError::Changed {
                expected: "v6".into(),
                found: "v7".into(),
            },
            (
                Code::Aborted,
                "VERSION_CHANGED",
                "caller",
                Some("order.expected_version"),
                None,
            ),
        ),
        (
            AdminError::Refused {
                reason: "TOO_EARLY",
                rule: "pre_publish".into(),
                why: "key-2 may become active on 2027-01-16".into(),
                hint: "wait, or revoke the active key".into(),
                remaining: Some(day),
            },
            (
                Code::FailedPrecondition,
                "TOO_EARLY",
                "caller",
                None,
                Some(day),
            ),
        ),
        (
            AdminError::Unavailable {
                reason: "STORE_FAILED",
                why: "the disk is full".into(),
                retry_after: Some(day),
            },
            (
                Code::Unavailable,
                "STORE_FAILED",
                "service",
                None,
                Some(day),
            ),
        ),
        (
            AdminError::Internal {
                reason: "BUG",
                why: "this cannot be".into(),
            },
            (Code::Internal, "BUG", "service", None, None),
        ),
    ];
    for (error, (code, reason, fault, field, retry)) in cases {
        *keeper.failure.lock().unwrap() = Some(error.clone());
        let status = client.hold_key(hold()).await.unwrap_err();
        assert_eq!(status.code(), code, "{reason}");
        assert_eq!(status.message(), error.to_string());
        let told = Told::of(&status);
        assert_eq!(told.reason, reason);
        assert_eq!(told.metadata("fault"), Some(fault), "{reason}");
        assert_eq!(told.field(), field, "{reason}");
        assert_eq!(told.retry_after(), retry, "{reason}");
        assert!(told.metadata("hint").is_some(), "{reason}");
        let rule = (reason == "TOO_EARLY").then_some("pre_publish");
        assert_eq!(told.metadata("rule"), rule, "{reason}");
    }
}
