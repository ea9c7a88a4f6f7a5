//! The signing edge.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealkeeper::agent::SignError;
use sealkeeper::api::client;
use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::api::v1::{GetJwksRequest, SignJwsRequest, SignJwtRequest};
use sealkeeper::jose::Algorithm;
use sealkeeper::policy::{Caller, Reason, Refusal};
use sealkeeper::time::Span;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::fake::Signer;
use super::log::Log;
use super::*;

pub(super) async fn connect(server: &Server) -> SignerClient<Channel> {
    SignerClient::new(client::connect(server.path()).await.unwrap())
}

pub(super) fn jwt() -> SignJwtRequest {
    SignJwtRequest {
        key_set: "main".into(),
        claims: br#"{"sub":"alice"}"#.to_vec(),
        alg: None,
        typ: None,
    }
}

pub(super) fn jws() -> SignJwsRequest {
    SignJwsRequest {
        key_set: "main".into(),
        signing_input: b"aGVhZGVy.cGF5bG9hZA".to_vec(),
    }
}

#[tokio::test]
async fn a_request_reaches_the_agent_with_the_peers_credentials() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let request = SignJwtRequest {
        alg: Some("PS384".into()),
        typ: Some("at+jwt".into()),
        ..jwt()
    };
    let reply = client.sign_jwt(request).await.unwrap().into_inner();
    assert_eq!(reply.token, "aGVhZGVy.cGF5bG9hZA.-__-");
    assert_eq!(reply.kid, "key-1");
    assert_eq!(reply.alg, "ES256");
    assert_eq!(reply.expires.unwrap().seconds, 1_800_000_600);

    let reply = client.sign_jws(jws()).await.unwrap().into_inner();
    assert_eq!(reply.signature, [0xfb, 0xff, 0xfe]);
    assert_eq!(reply.kid, "key-1");

    let seen = signer.seen();
    let groups = rustix::process::getgroups().unwrap();
    let own = Caller::Unix {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        pid: Some(std::process::id().try_into().unwrap()),
    };
    assert_eq!(seen[0].caller, own);
    assert_eq!(seen[0].key_set, "main");
    assert_eq!(seen[0].algorithm, Some(Algorithm::Ps384));
    assert_eq!(seen[0].typ.as_deref(), Some("at+jwt"));
    assert_eq!(seen[0].bytes, jwt().claims);
    assert_eq!(seen[1].caller, own);
    assert_eq!(seen[1].bytes, jws().signing_input);
}

#[tokio::test]
async fn the_jwks_comes_over_grpc_too() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    for key_set in ["main", ""] {
        let request = GetJwksRequest {
            key_set: key_set.into(),
        };
        let reply = client.get_jwks(request).await.unwrap().into_inner();
        assert_eq!(reply.jwks, b"{\"keys\":[]}");
        assert_eq!(reply.etag, "\"v1\"");
        // Rounded down: a cache must not keep it longer.
        assert_eq!(reply.max_age.unwrap().seconds, 300);
    }
    let request = GetJwksRequest {
        key_set: "other".into(),
    };
    let status = client.get_jwks(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let told = Told::of(&status);
    assert_eq!(told.reason, "UNKNOWN_KEY_SET");
    assert_eq!(told.field(), Some("key_set"));
}

fn refused(reason: Reason) -> SignError {
    SignError::Refused(Refusal::new(
        reason,
        "key_set.main.rule.api",
        "expected this, got that",
        "do the other",
    ))
}

#[tokio::test]
async fn each_refusal_has_its_code_and_details() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let input = Some("signing_input");
    for (reason, code, name, jwt_field, jws_field) in [
        (
            Reason::UnknownKeySet,
            Code::NotFound,
            "UNKNOWN_KEY_SET",
            Some("key_set"),
            Some("key_set"),
        ),
        (
            Reason::UnknownAlgorithm,
            Code::InvalidArgument,
            "UNKNOWN_ALGORITHM",
            Some("alg"),
            input,
        ),
        (
            Reason::NotAllowed,
            Code::PermissionDenied,
            "NOT_ALLOWED",
            None,
            None,
        ),
        (
            Reason::MalformedClaims,
            Code::InvalidArgument,
            "MALFORMED_CLAIMS",
            Some("claims"),
            input,
        ),
        (
            Reason::DuplicateMember,
            Code::InvalidArgument,
            "DUPLICATE_MEMBER",
            Some("claims"),
            input,
        ),
        (
            Reason::TooLarge,
            Code::InvalidArgument,
            "TOO_LARGE",
            Some("claims"),
            input,
        ),
        (
            Reason::ClaimNotAllowed,
            Code::InvalidArgument,
            "CLAIM_NOT_ALLOWED",
            Some("claims"),
            input,
        ),
        (
            Reason::ExpTooFar,
            Code::InvalidArgument,
            "EXP_TOO_FAR",
            Some("claims"),
            input,
        ),
        (
            Reason::Expired,
            Code::InvalidArgument,
            "EXPIRED",
            Some("claims"),
            input,
        ),
        (
            Reason::MalformedSigningInput,
            Code::InvalidArgument,
            "MALFORMED_SIGNING_INPUT",
            Some("claims"),
            input,
        ),
        (
            Reason::HeaderNotAllowed,
            Code::InvalidArgument,
            "HEADER_NOT_ALLOWED",
            Some("typ"),
            input,
        ),
        (
            Reason::KidNotActive,
            Code::FailedPrecondition,
            "KID_NOT_ACTIVE",
            Some("claims"),
            input,
        ),
    ] {
        *signer.outcome.lock().unwrap() = Err(refused(reason));
        let jwt = client.sign_jwt(jwt()).await.unwrap_err();
        let jws = client.sign_jws(jws()).await.unwrap_err();
        for (status, field) in [(jwt, jwt_field), (jws, jws_field)] {
            assert_eq!(status.code(), code, "{name}");
            assert_eq!(status.message(), "expected this, got that");
            let told = Told::of(&status);
            assert_eq!(told.reason, name);
            assert_eq!(told.metadata("rule"), Some("key_set.main.rule.api"));
            assert_eq!(told.metadata("fault"), Some("caller"));
            assert_eq!(told.metadata("hint"), Some("do the other"));
            assert_eq!(told.field(), field, "{name}");
            assert_eq!(told.retry_after(), None);
            assert_eq!(told.metadata("current_kid"), None);
        }
    }
}

/// Two refusals carry what a program needs to mend the request by itself.
#[tokio::test]
async fn the_current_key_and_the_delay_are_told_to_programs() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let answer = |refusal| *signer.outcome.lock().unwrap() = Err(SignError::Refused(refusal));
    let plain = |reason| Refusal::new(reason, "key_set.main.rule.api.rate", "no", "wait");
    answer(Refusal {
        current_kid: Some("new".into()),
        ..plain(Reason::KidNotActive)
    });
    let told = Told::of(&client.sign_jws(jws()).await.unwrap_err());
    assert_eq!(told.metadata("current_kid"), Some("new"));

    answer(Refusal {
        retry_after: Some(Span::from_millis(1234)),
        ..plain(Reason::RateLimited)
    });
    let status = client.sign_jwt(jwt()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let told = Told::of(&status);
    assert_eq!(told.reason, "RATE_LIMITED");
    assert_eq!(told.metadata("fault"), Some("caller"));
    assert_eq!(told.retry_after(), Some(Duration::from_millis(1234)));
    assert_eq!(told.field(), None);
}

#[tokio::test]
async fn each_fault_of_the_service_has_its_code_and_details() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let ms = Duration::from_millis;
    for (error, code, reason, retry) in [
        (
            SignError::Unavailable {
                reason: "DEVICE_ABSENT",
                why: "device hsm1 does not answer".into(),
                retry_after: Some(ms(1500)),
            },
            Code::Unavailable,
            "DEVICE_ABSENT",
            Some(ms(1500)),
        ),
        (
            SignError::Unavailable {
                reason: "STORE_FAILED",
                why: "the record could not be written".into(),
                retry_after: None,
            },
            Code::Unavailable,
            "STORE_FAILED",
            None,
        ),
        (
            SignError::Unavailable {
                reason: "PIN_BLOCKED",
                why: "the token refused the PIN".into(),
                retry_after: None,
            },
            Code::Unavailable,
            "PIN_BLOCKED",
            None,
        ),
        (
            SignError::Unavailable {
                reason: "DEVICE_UNUSABLE",
                why: "its module is not there".into(),
                retry_after: None,
            },
            Code::Unavailable,
            "DEVICE_UNUSABLE",
            None,
        ),
        (
            SignError::Overloaded {
                device: "hsm1".into(),
                queued: 64,
                retry_after: ms(20),
            },
            Code::ResourceExhausted,
            "OVERLOADED",
            Some(ms(20)),
        ),
        (
            SignError::Deadline { waited: ms(5000) },
            Code::DeadlineExceeded,
            "DEADLINE",
            None,
        ),
        (
            SignError::Internal {
                reason: "WRONG_SIGNATURE",
                why: "the signature does not verify".into(),
            },
            Code::Internal,
            "WRONG_SIGNATURE",
            None,
        ),
    ] {
        *signer.outcome.lock().unwrap() = Err(error.clone());
        let status = client.sign_jwt(jwt()).await.unwrap_err();
        assert_eq!(status.code(), code, "{reason}");
        assert_eq!(status.message(), error.to_string());
        let told = Told::of(&status);
        assert_eq!(told.reason, reason);
        assert_eq!(told.metadata("fault"), Some("service"));
        let lasting = matches!(reason, "PIN_BLOCKED" | "DEVICE_UNUSABLE");
        let lasting = lasting.then_some("true");
        assert_eq!(told.metadata("lasting"), lasting, "{reason}");
        assert!(told.metadata("hint").is_some(), "{reason}");
        assert_eq!(told.metadata("rule"), None);
        assert_eq!(told.retry_after(), retry, "{reason}");
        assert_eq!(told.field(), None);
    }
}

#[tokio::test]
async fn an_algorithm_that_does_not_exist_does_not_reach_the_agent() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    for alg in ["none", "HS256", "es256", "", "ES256 "] {
        let request = SignJwtRequest {
            alg: Some(alg.into()),
            ..jwt()
        };
        let status = client.sign_jwt(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{alg:?}");
        assert_eq!(Told::of(&status).reason, "UNKNOWN_ALGORITHM");
        assert_eq!(Told::of(&status).field(), Some("alg"));
    }
    assert_eq!(signer.seen().len(), 0);
}

#[tokio::test]
async fn a_message_that_is_too_large_does_not_reach_the_agent() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        message: 4096,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let sized = |n| SignJwtRequest {
        claims: vec![b' '; n],
        ..jwt()
    };
    client.sign_jwt(sized(4000)).await.unwrap();
    for n in [4096, 100_000, 5_000_000] {
        let status = client.sign_jwt(sized(n)).await.unwrap_err();
        super::volume::too_large(&status, "4096");
    }
    assert_eq!(signer.seen().len(), 1);
    // The connection is as good as before.
    client.sign_jwt(jwt()).await.unwrap();
}

#[tokio::test]
async fn the_callers_timeout_becomes_the_deadline() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    for timeout in [None, Some("2S"), Some("1H"), Some("nonsense")] {
        let mut request = Request::new(jwt());
        if let Some(timeout) = timeout {
            let timeout = timeout.parse().unwrap();
            request.metadata_mut().insert("grpc-timeout", timeout);
        }
        client.sign_jwt(request).await.unwrap();
    }
    let left: Vec<_> = signer.seen().iter().map(|seen| seen.left).collect();
    let s = Duration::from_secs;
    for (left, (more, most)) in
        left.into_iter()
            .zip([(s(4), s(5)), (s(1), s(2)), (s(4), s(5)), (s(4), s(5))])
    {
        assert!(left > more && left <= most, "{left:?}");
    }
}

#[tokio::test]
async fn past_the_deadline_the_work_is_dropped_and_the_caller_told() {
    let signer = Arc::new(Signer::shut());
    let limits = Limits {
        deadline: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let status = within(client.sign_jwt(jwt())).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(Told::of(&status).reason, "DEADLINE");
    until(|| signer.dropped.load(Ordering::SeqCst) == 1).await;
}

/// A request that has no time left is not begun.
#[tokio::test]
async fn an_expired_request_is_not_signed() {
    let signer = Arc::new(Signer::default());
    let limits = Limits {
        deadline: Duration::ZERO,
        ..Limits::default()
    };
    let server = Server::signer(&signer, limits);
    let mut client = connect(&server).await;
    let status = client.sign_jwt(jwt()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let status = client.sign_jws(jws()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(signer.seen().len(), 0);
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_not_worked_for() {
    let signer = Arc::new(Signer::shut());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let request = tokio::spawn(async move { client.sign_jwt(jwt()).await });
    until(|| signer.seen().len() == 1).await;
    request.abort();
    until(|| signer.dropped.load(Ordering::SeqCst) == 1).await;
}

/// Whatever becomes of a request, at the wordiest level and with every
/// library's own lines, its claims and its token stay out of the log.
#[tokio::test]
async fn neither_claims_nor_tokens_reach_the_log() {
    let (log, _guard) = Log::listen_to_all();
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let mut client = connect(&server).await;
    let planted = SignJwtRequest {
        claims: br#"{"sub":"planted-claim-91c7"}"#.to_vec(),
        ..jwt()
    };
    let planted_input = SignJwsRequest {
        signing_input: b"planted-input-91c7.planted-input-91c7".to_vec(),
        ..jws()
    };
    signer
        .outcome
        .lock()
        .unwrap()
        .as_mut()
        .unwrap()
        .signing_input = b"planted-token-91c7.x".to_vec();
    client.sign_jwt(planted.clone()).await.unwrap();
    client.sign_jws(planted_input.clone()).await.unwrap();
    *signer.outcome.lock().unwrap() = Err(refused(Reason::ClaimNotAllowed));
    client.sign_jwt(planted).await.unwrap_err();
    client.sign_jws(planted_input).await.unwrap_err();

    let text = log.text();
    let uid = rustix::process::getuid().as_raw();
    let line = format!(
        "request refused event=\"request_refused\" reason=\"CLAIM_NOT_ALLOWED\" \
         caller=unix:{uid} rule=\"key_set.main.rule.api\""
    );
    assert!(text.contains(&line), "{text}");
    assert!(text.contains("h2"), "the libraries log too");
    for planted in ["planted", "cGxhbnRlZ"] {
        assert!(!text.contains(planted), "{planted} is in the log");
    }
}
