//! The main promise, with the whole program: callers sign without a pause
//! through rotations, kills and an absent token, and no verifier that keeps
//! to the configuration ever refuses a token.
//!
//! What the agent served is recorded while it lives; the verifiers are played
//! afterwards, on a clock of their own. Each token meets *every* set that a
//! verifier may hold at a moment, from the stalest to the freshest, and nobody
//! fetches again at an unknown `kid`.
//!
//! ```text
//! SEALKEEPER_SEED=<seed> cargo test --features failpoints rotation_under_load -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::jose::{JwkSet, ServedSet, verify_token};
use sealkeeper::time::{Span, Time};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Code;
use tonic::transport::Channel;

use super::lab::{Daemon, Lab, sign, wait_for};
use crate::simulation::random::Random;

/// Seconds, within all the rules, and such that each wait counts: the period
/// leaves little room beside the pre-publication, and a token outlives the
/// handover and a cache together.
const SCHEDULE: &str = r#"
rotate_every = "8s"
verifier_cache = "6s"
propagation = "300ms"
skew = "300ms"
max_token_lifetime = "10s"
default_lifetime = "10s"
rollback_window = "1s"
adoption = "300ms"
signing_deadline = "1500ms"
max_age = "1s"
"#;
const PERIOD: Span = Span::from_secs(8);
const CACHE: Span = Span::from_secs(6);
const LIFETIME: Span = Span::from_secs(10);
const SECOND: Span = Span::from_secs(1);

const CALLERS: usize = 64;
const CHANNELS: usize = 8;
/// Of one caller: together they ask for 256 tokens a second.
const PACE: Duration = Duration::from_millis(250);
const ROTATIONS: usize = 5;
const PER_PHASE: usize = 1_000;
/// How long an outage around an activation begins before it is due, and how
/// long it lasts from then on. The standby is late by as much, so that rule 1
/// decides and not the period.
const BEFORE: Span = Span::from_millis(400);
const AFTER: Span = Span::from_millis(2_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load() {
    let seed = std::env::var("SEALKEEPER_SEED").map_or(20_260_101, |s| s.parse().unwrap());
    println!("rotation_under_load: seed {seed}");
    let lab = Lab::new(SCHEDULE, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let scene = Arc::new(Scene::new(daemon.origin()));

    let watcher = tokio::spawn(watch(scene.clone()));
    let mut callers = JoinSet::new();
    let mut signers = Vec::new();
    for _ in 0..CHANNELS {
        let (signer, _) = daemon.clients().await.expect("it serves");
        signers.push(signer);
    }
    for n in 0..CALLERS {
        callers.spawn(call(n, signers[n % CHANNELS].clone(), scene.clone()));
    }

    // In the middle of a phase: the agent is killed and comes back at once.
    scene.phase(1).await;
    let middle = now() + Span::from_secs(3);
    wait_for(|| now() >= middle).await;
    restart(&lab, &mut daemon, &scene, now()).await;
    // Across an activation: the token is gone, and no standby can be made.
    let due = scene.phase(2).await + PERIOD;
    wait_for(|| now() + BEFORE >= due).await;
    let (tokens, aside) = (lab.path("tokens"), lab.path("aside"));
    std::fs::rename(&tokens, &aside).unwrap();
    wait_for(|| now() >= due + AFTER).await;
    std::fs::rename(&aside, &tokens).unwrap();
    // Across another one, a whole phase later, so that its instant is known
    // well: the agent is killed, and stays away for a while.
    let due = scene.phase(4).await + PERIOD;
    wait_for(|| now() + BEFORE >= due).await;
    restart(&lab, &mut daemon, &scene, due + AFTER).await;

    scene.phase(ROTATIONS).await;
    wait_for(|| scene.signed(ROTATIONS) >= PER_PHASE).await;
    scene.calling.store(false, Ordering::Relaxed);
    let mut issued = Vec::new();
    while let Some(tokens) = callers.join_next().await {
        issued.extend(tokens.unwrap());
    }
    // The set is watched until the last token is all but dead.
    let end = now() + LIFETIME;
    wait_for(|| now() >= end).await;
    scene.watching.store(false, Ordering::Relaxed);
    let history = watcher.await.unwrap();
    daemon.kill();

    let phases = scene.phases.lock().unwrap().clone();
    let refused = scene.refused.lock().unwrap().clone();
    let found = judge(&issued, &history, seed);
    println!(
        "rotation_under_load: {} tokens in {} phases {:?}, 2 kills, 1 absent token, refusals {refused:?}; \
         {} sets in {} answers; {} verifications, {} of them by jsonwebtoken, faults {:?}",
        issued.len(),
        phases.len(),
        phases.iter().map(|phase| phase.signed).collect::<Vec<_>>(),
        history.sets.len(),
        history.answers.len(),
        found.verified,
        found.theirs,
        found.faults,
    );
    assert!(found.faults.is_empty(), "seed {seed}: {:?}", found.faults);
    assert!(phases.len() > ROTATIONS, "{phases:?}");
    // The genesis key was active before anybody called.
    for phase in &phases[1..=ROTATIONS] {
        assert!(phase.signed >= PER_PHASE, "{phases:?}");
    }
    assert!(found.verified >= 3 * issued.len());
    assert!(found.theirs > 0);
}

/// Kills the daemon, and starts it again at `back`.
async fn restart(lab: &Lab, daemon: &mut Daemon, scene: &Scene, back: Time) {
    daemon.kill();
    wait_for(|| now() >= back).await;
    *daemon = lab.serve().await;
    *scene.origin.lock().unwrap() = daemon.origin();
}

fn now() -> Time {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// What callers, watcher and mishaps share.
struct Scene {
    origin: Mutex<String>,
    phases: Mutex<Vec<Phase>>,
    refused: Mutex<BTreeMap<String, usize>>,
    calling: AtomicBool,
    watching: AtomicBool,
}

/// The time of one active key, as callers saw it.
#[derive(Clone, Debug)]
struct Phase {
    kid: String,
    since: Time,
    signed: usize,
}

impl Scene {
    fn new(origin: String) -> Self {
        Self {
            origin: Mutex::new(origin),
            phases: Mutex::default(),
            refused: Mutex::default(),
            calling: AtomicBool::new(true),
            watching: AtomicBool::new(true),
        }
    }

    fn count(&self, kid: &str, at: Time) {
        let mut phases = self.phases.lock().unwrap();
        if let Some(phase) = phases.iter_mut().find(|phase| phase.kid == kid) {
            phase.signed += 1;
        } else {
            phases.push(Phase {
                kid: kid.to_owned(),
                since: at,
                signed: 1,
            });
        }
    }

    fn signed(&self, phase: usize) -> usize {
        let phases = self.phases.lock().unwrap();
        phases.get(phase).map_or(0, |phase| phase.signed)
    }

    /// Waits for the first token of a phase, and says when it came.
    async fn phase(&self, n: usize) -> Time {
        wait_for(|| self.signed(n) > 0).await;
        self.phases.lock().unwrap()[n].since
    }
}

struct Issued {
    token: String,
    received: Time,
    expires: Time,
}

/// Signs at its pace for as long as the scene lasts. An agent that is away is
/// asked again at the next beat; any other refusal is a fault.
async fn call(n: usize, mut signer: SignerClient<Channel>, scene: Arc<Scene>) -> Vec<Issued> {
    let mut issued = Vec::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while scene.calling.load(Ordering::Relaxed) {
        pace.tick().await;
        let claims = format!(r#"{{"sub":"caller-{n}","n":{}}}"#, issued.len());
        match sign(&mut signer, "ES256", &claims).await {
            Ok(answer) => {
                let received = now();
                scene.count(&answer.kid, received);
                issued.push(Issued {
                    token: answer.token,
                    received,
                    expires: Time::from_secs(answer.expires.unwrap().seconds),
                });
            }
            Err(status) => {
                let away = matches!(
                    status.code(),
                    // Unknown and Cancelled: the connection broke during the call.
                    Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
                );
                assert!(away, "caller {n}: {status:?}");
                let code = format!("{:?}", status.code());
                *scene.refused.lock().unwrap().entry(code).or_default() += 1;
            }
        }
    }
    issued
}

/// What the origin served, and when.
#[derive(Default)]
struct History {
    sets: Vec<Served>,
    /// In the order of time.
    answers: Vec<Answer>,
}

struct Served {
    text: Vec<u8>,
    set: JwkSet,
    theirs: jsonwebtoken::jwk::JwkSet,
}

struct Answer {
    /// When it was asked for: a verifier's copy is at least that young.
    asked: Time,
    /// When it was there: a verifier may use it from here on.
    whole: Time,
    set: usize,
}

impl History {
    /// The sets that a verifier may hold at `at`, the stalest first: those of
    /// answers that began no longer than a cache's life before.
    fn held(&self, at: Time) -> Vec<usize> {
        let first = self.answers.partition_point(|a| a.asked < at - CACHE);
        let young = self.answers[first..].iter().take_while(|a| a.whole <= at);
        let mut sets: Vec<usize> = young.map(|a| a.set).collect();
        sets.dedup();
        sets
    }
}

/// Fetches the JWKS again and again. No answer is no fault: verifiers go on
/// with what they have.
async fn watch(scene: Arc<Scene>) -> History {
    let mut history = History::default();
    let mut pace = interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while scene.watching.load(Ordering::Relaxed) {
        pace.tick().await;
        let origin = scene.origin.lock().unwrap().clone();
        let asked = now();
        let answer = timeout(Duration::from_secs(2), fetch(&origin)).await;
        let Ok(Ok(text)) = answer else { continue };
        let whole = now();
        // One that broke off is no JSON.
        let Ok(served) = ServedSet::read(&text) else {
            continue;
        };
        assert!(served.others.is_empty(), "{:?}", served.others);
        let known = history.sets.iter().position(|set| set.text == text);
        let set = known.unwrap_or_else(|| {
            history.sets.push(Served {
                theirs: serde_json::from_slice(&text).unwrap(),
                set: served.set,
                text,
            });
            history.sets.len() - 1
        });
        history.answers.push(Answer { asked, whole, set });
    }
    history
}

/// The body of the JWKS.
async fn fetch(origin: &str) -> std::io::Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = origin.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request =
        format!("GET /main/jwks.json HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let body = head.map_or(answer.len(), |head| head + 4);
    Ok(answer.split_off(body))
}

#[derive(Default)]
struct Found {
    verified: usize,
    theirs: usize,
    /// By the moment: how many, and one of them.
    faults: BTreeMap<&'static str, (usize, String)>,
}

/// Plays the verifiers: at issue, at some time, a second before the end.
fn judge(issued: &[Issued], history: &History, seed: u64) -> Found {
    let mut random = Random::new(seed);
    let mut found = Found::default();
    for (n, token) in issued.iter().enumerate() {
        let (first, last) = (token.received, token.expires - SECOND);
        assert!(first < last, "it came too late to be of use");
        let between = random.between(first.as_millis(), last.as_millis());
        let moments = [
            ("at issue", first),
            ("at some time", Time::from_millis(between)),
            ("a second before its end", last),
        ];
        for (moment, at) in moments {
            let held = history.held(at);
            assert!(!held.is_empty(), "nothing was served before {at}");
            for set in held {
                let set = &history.sets[set];
                found.verified += 1;
                let mut verdict = verify_token(&token.token, &set.set, at, Span::ZERO)
                    .map(drop)
                    .map_err(|fault| fault.to_string());
                if n.is_multiple_of(50) {
                    found.theirs += 1;
                    verdict = verdict.and_then(|()| theirs(&token.token, &set.theirs));
                }
                if let Err(why) = verdict {
                    found.faults.entry(moment).or_insert((0, why)).0 += 1;
                }
            }
        }
    }
    found
}

/// Somebody else's verifier. Its clock is the machine's, so that dates are
/// left to ours.
fn theirs(token: &str, set: &jsonwebtoken::jwk::JwkSet) -> Result<(), String> {
    let header = jsonwebtoken::decode_header(token).map_err(|e| e.to_string())?;
    let kid = header.kid.ok_or("no kid")?;
    let jwk = set.find(&kid).ok_or("jsonwebtoken: unknown kid")?;
    let key = jsonwebtoken::DecodingKey::from_jwk(jwk).map_err(|e| e.to_string())?;
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.validate_exp = false;
    jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation)
        .map(drop)
        .map_err(|e| e.to_string())
}
