//! The callers: authorization servers on the agent's machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sealkeeper::api::v1::SignJwsRequest;
use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::jose::{Algorithm, Header, base64url, signing_input};
use sealkeeper::time::Time;
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::super::lab::sign;
use super::{SHORTER_LIFETIME, Scene, now};

/// Of one caller: together they ask for 320 tokens a second.
const PACE: Duration = Duration::from_millis(200);
/// One caller of so many assembles its tokens itself.
const FIXING: usize = 4;

/// What callers did.
#[derive(Default)]
pub(super) struct Work {
    pub(super) issued: Vec<Issued>,
    /// The answers to signing inputs, whose `kid` was fixed by the caller.
    pub(super) named: Vec<Named>,
}

pub(super) struct Issued {
    pub(super) token: String,
    pub(super) received: Time,
    pub(super) expires: Time,
}

/// A signing input that named a key, and both instants by the agent's clock.
pub(super) struct Named {
    pub(super) kid: String,
    pub(super) sent: Time,
    pub(super) answered: Time,
    pub(super) served: bool,
}

impl Work {
    pub(super) fn add(&mut self, other: Self) {
        self.issued.extend(other.issued);
        self.named.extend(other.named);
    }
}

struct Signed {
    token: String,
    kid: String,
    expires: Time,
}

/// Signs at its pace for as long as the scene lasts. An agent that is away is
/// asked again at the next beat; any other refusal is a fault, but for the
/// `kid` of a caller that stays with one key until it is told not to.
pub(super) async fn call(n: usize, signer: SignerClient<Channel>, scene: Arc<Scene>) -> Work {
    let mut caller = Caller {
        n,
        signer,
        scene,
        fixed: None,
        work: Work::default(),
    };
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while caller.scene.calling.load(Ordering::Relaxed) {
        pace.tick().await;
        let answer = match caller.fixed.clone() {
            Some(kid) => caller.sign_jws(&kid).await,
            None => caller.sign_jwt().await,
        };
        caller.take(answer);
    }
    caller.work
}

struct Caller {
    n: usize,
    signer: SignerClient<Channel>,
    scene: Arc<Scene>,
    /// The `kid` that it names in signing inputs.
    fixed: Option<String>,
    work: Work,
}

impl Caller {
    async fn sign_jwt(&mut self) -> Result<Signed, Status> {
        let claims = format!(
            r#"{{"sub":"caller-{}","n":{}}}"#,
            self.n,
            self.work.issued.len()
        );
        let answer = sign(&mut self.signer, "ES256", &claims).await?;
        Ok(Signed {
            token: answer.token,
            kid: answer.kid,
            expires: Time::from_secs(answer.expires.unwrap().seconds),
        })
    }

    async fn sign_jws(&mut self, kid: &str) -> Result<Signed, Status> {
        // Nobody sets the clock between the date and the answer.
        let clock = self.scene.clock.read().await;
        let sent = clock.by_agent(now());
        let header = Header {
            algorithm: Algorithm::Es256,
            kid: kid.to_owned(),
            typ: Some("JWT".to_owned()),
        };
        let claims = format!(
            r#"{{"iss":"https://lab.example","sub":"caller-{}","n":{},"iat":{},"exp":{}}}"#,
            self.n,
            self.work.issued.len(),
            sent.as_secs(),
            (sent + SHORTER_LIFETIME).as_secs(),
        );
        let input = signing_input(&header, claims.as_bytes());
        let mut request = tonic::Request::new(SignJwsRequest {
            key_set: "main".to_owned(),
            signing_input: input.clone(),
        });
        request.set_timeout(Duration::from_secs(10));
        let answer = self.signer.sign_jws(request).await;
        let refused = answer
            .as_ref()
            .is_err_and(|status| reason(status) == "KID_NOT_ACTIVE");
        if answer.is_ok() || refused {
            self.work.named.push(Named {
                kid: kid.to_owned(),
                sent,
                answered: clock.by_agent(now()),
                served: !refused,
            });
        }
        let answer = answer?.into_inner();
        let input = String::from_utf8(input).unwrap();
        Ok(Signed {
            token: format!("{input}.{}", base64url::encode(&answer.signature)),
            kid: answer.kid,
            expires: Time::from_secs(answer.expires.unwrap().seconds),
        })
    }

    fn take(&mut self, answer: Result<Signed, Status>) {
        let status = match answer {
            Ok(signed) => {
                let received = now();
                self.scene.count(&signed.kid, received);
                if self.n.is_multiple_of(FIXING) && self.scene.dating.load(Ordering::Relaxed) {
                    self.fixed = Some(signed.kid);
                }
                self.work.issued.push(Issued {
                    token: signed.token,
                    received,
                    expires: signed.expires,
                });
                return;
            }
            Err(status) => status,
        };
        let reason = reason(&status);
        if reason == "KID_NOT_ACTIVE" {
            self.fixed = None;
        } else {
            let away = matches!(
                status.code(),
                // Unknown and Cancelled: the connection broke during the call.
                // ResourceExhausted: the device is slower than usual, because
                // other work holds the processors.
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Unknown
                    | Code::Cancelled
            );
            assert!(away, "caller {}: {status:?}", self.n);
        }
        let mut refused = self.scene.refused.lock().unwrap();
        *refused.entry(reason).or_default() += 1;
    }
}

/// The agent's reason, or what the connection says of itself.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().map(|info| info.reason.clone());
    info.unwrap_or_else(|| format!("{:?}", status.code()))
}
