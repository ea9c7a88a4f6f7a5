//! Volume, watches, health and `grpcurl`, with the whole program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::api::v1::{
    SignBatchRequest, SignItem, SignJwtRequest, SignOutcome, SignStreamRequest, WatchJwksRequest,
    sign_item, sign_outcome,
};
use serde_json::Value;
use tonic::transport::Channel;

use super::{counters, slow_lab};
use crate::live::lab::{CALM, Lab, PATIENCE, kids};
use crate::volume::slow::Counters;

fn item(sub: u64) -> SignItem {
    SignItem {
        request: Some(sign_item::Request::Jwt(SignJwtRequest {
            key_set: "main".into(),
            claims: format!("{{\"sub\":\"{sub}\"}}").into_bytes(),
            alg: None,
            typ: None,
        })),
    }
}

/// More at a time than the device's queue takes: all of it is signed, once.
/// Where other work holds the processors up for longer than an item may take,
/// what found no room is sent again.
#[tokio::test]
async fn a_batch_and_a_stream_are_signed_whole_by_a_slow_device() {
    let (lab, mut daemon) = slow_lab(Duration::from_millis(2), &[]).await;
    let (signer, _) = daemon.clients().await.unwrap();
    let before = Counters::read(&counters(&lab)).signatures;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..4 {
        let signer = signer.clone();
        calls.spawn(async move { batch(signer, (0..100).map(|i| n * 1000 + i).collect()).await });
    }
    for n in 4..6 {
        let mut signer = signer.clone();
        calls.spawn(async move {
            let items = (0..200).map(move |id| SignStreamRequest {
                id,
                item: Some(item(n * 1000 + id)),
                timeout: None,
            });
            let replies = signer.sign_stream(tokio_stream::iter(items)).await;
            let mut replies = replies.unwrap().into_inner();
            let (mut signed, mut again) = (0, Vec::new());
            while let Some(reply) = replies.message().await.unwrap() {
                if is_signed(reply.outcome.unwrap()) {
                    signed += 1;
                } else {
                    again.push(n * 1000 + reply.id);
                }
            }
            signed + batch(signer, again).await
        });
    }
    let signed: u64 = calls.join_all().await.into_iter().sum();
    assert_eq!(signed, 800);
    let made = Counters::read(&counters(&lab)).signatures - before;
    // A standby that is made meanwhile proves itself with one.
    assert!((800..=801).contains(&made), "{made}");
}

/// Signs these in batches until nothing is left, and counts them.
async fn batch(mut signer: SignerClient<Channel>, mut subs: Vec<u64>) -> u64 {
    let began = Instant::now();
    let mut signed = 0;
    while !subs.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} are not signed", subs.len());
        let items = subs.iter().map(|sub| item(*sub)).collect();
        let mut request = tonic::Request::new(SignBatchRequest { items });
        request.set_timeout(Duration::from_secs(30));
        let outcomes = signer.sign_batch(request).await.unwrap().into_inner();
        let mut outcomes = outcomes.outcomes.into_iter();
        let all = subs.len();
        subs.retain(|_| !is_signed(outcomes.next().unwrap()));
        signed += u64::try_from(all - subs.len()).unwrap();
    }
    signed
}

/// Whether it was signed; else there was no room for it.
fn is_signed(outcome: SignOutcome) -> bool {
    match outcome.outcome {
        Some(sign_outcome::Outcome::Jwt(_)) => true,
        Some(sign_outcome::Outcome::Error(error))
            if error.code == i32::from(tonic::Code::ResourceExhausted) =>
        {
            false
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watcher_sees_a_revoked_key_leave() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let (mut signer, _) = daemon.clients().await.unwrap();
    let watch = signer.watch_jwks(WatchJwksRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap().jwks.unwrap();
    let active = lab
        .keys()
        .into_iter()
        .find(|key| key["phase"] == "active")
        .unwrap();
    let kid = active["kid"].as_str().unwrap().to_owned();
    assert!(kids(&first.jwks).contains(&kid));
    lab.ok(&[
        "keys",
        "revoke",
        &kid,
        "--reason",
        "compromised",
        "--then",
        "activate",
    ]);
    let leaves = async {
        loop {
            let next = watch.message().await.unwrap().unwrap().jwks.unwrap();
            if !kids(&next.jwks).contains(&kid) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, leaves).await.unwrap();
}

/// `grpcurl`, where `scripts/test` could install it: it names the program in
/// `SEALKEEPER_GRPCURL`.
struct Grpcurl {
    program: PathBuf,
    socket: PathBuf,
}

impl Grpcurl {
    fn find(socket: &Path) -> Option<Self> {
        let Some(program) = std::env::var_os("SEALKEEPER_GRPCURL") else {
            eprintln!("skipped: SEALKEEPER_GRPCURL names no grpcurl");
            return None;
        };
        Some(Self {
            program: program.into(),
            socket: socket.to_owned(),
        })
    }

    /// Whether it ended well, and what it wrote.
    async fn run(&self, data: Option<Value>, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(&self.program);
        command.args(["-plaintext", "-unix", "-max-time", "30"]);
        if let Some(data) = data {
            command.args(["-d", &data.to_string()]);
        }
        command.arg(&self.socket).args(args);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

fn base64(text: &str) -> String {
    use base64ct::Encoding as _;
    base64ct::Base64::encode_string(text.as_bytes())
}

#[tokio::test]
async fn grpcurl_works_without_files() {
    let lab = Lab::new(CALM, &["ES256"]);
    let Some(grpcurl) = Grpcurl::find(&lab.path("sign.sock")) else {
        return;
    };
    lab.init();
    let _daemon = lab.serve().await;
    let (ok, text) = grpcurl.run(None, &["list"]).await;
    assert!(ok && text.contains("sealkeeper.v1.Signer"), "{text}");
    let (ok, text) = grpcurl
        .run(None, &["describe", "sealkeeper.v1.Signer"])
        .await;
    assert!(ok && text.contains("rpc SignBatch"), "{text}");

    let claims = base64(r#"{"sub":"alice"}"#);
    let jwt = serde_json::json!({"key_set": "main", "claims": claims});
    let (ok, text) = grpcurl
        .run(Some(jwt.clone()), &["sealkeeper.v1.Signer/SignJwt"])
        .await;
    assert!(ok && text.contains("\"token\": \"ey"), "{text}");
    let stream = serde_json::json!({"id": 7, "item": {"jwt": jwt}});
    let (ok, text) = grpcurl
        .run(Some(stream), &["sealkeeper.v1.Signer/SignStream"])
        .await;
    assert!(ok && text.contains("\"id\": \"7\""), "{text}");

    // An error's details are shown in words: their types are known.
    let bad = serde_json::json!({"key_set": "main", "claims": base64("{")});
    let (ok, text) = grpcurl
        .run(Some(bad), &["sealkeeper.v1.Signer/SignJwt"])
        .await;
    assert!(!ok && text.contains("MALFORMED_CLAIMS"), "{text}");
    assert!(text.contains("\"fault\""), "{text}");

    for (service, serving) in [("", true), ("sealkeeper.v1.Signer/main", true)] {
        let data = serde_json::json!({"service": service});
        let (ok, text) = grpcurl
            .run(Some(data), &["grpc.health.v1.Health/Check"])
            .await;
        assert_eq!(ok && text.contains("\"SERVING\""), serving, "{text}");
    }
    // With the token gone the agent is there, and the key set cannot sign.
    fs::rename(lab.path("tokens"), lab.path("unplugged")).unwrap();
    let check = async |service: &str| {
        let data = serde_json::json!({"service": service});
        grpcurl
            .run(Some(data), &["grpc.health.v1.Health/Check"])
            .await
            .1
    };
    crate::live::lab::wait_until(async || {
        check("sealkeeper.v1.Signer/main")
            .await
            .contains("NOT_SERVING")
    })
    .await;
    assert!(check("").await.contains("\"SERVING\""));
}
