//! The main promise, with the whole program: callers sign without a pause
//! through rotations, kills, an absent token and a clock that is not quite
//! right, and no verifier that keeps to the configuration ever refuses a
//! token.
//!
//! What the agent served is recorded while it lives; the verifiers are played
//! afterwards, on clocks of their own. Each token meets *every* set that a
//! verifier may hold at a moment, from the stalest to the freshest, and nobody
//! fetches again at an unknown `kid`.
//!
//! Each wait of the rules decides at some point of the scene, so that the test
//! fails without it:
//!
//! | wait | what makes it decide |
//! |---|---|
//! | rule 1, P and C | after [`away_across_an_activation`] the next key is late, and its first tokens meet caches that were filled from an edge that lags |
//! | rule 1, S | meanwhile the agent's clock steps forward by almost S |
//! | rule 2, R and Q | callers who fixed a `kid` in a signing input still name it after the switch |
//! | rule 3, `exp_ceiling` | [`wrong_clock`]: tokens outlive the L that they were signed under |
//! | rule 3, S of that arm | those tokens reach the ceiling, and some verifier's clock is behind by almost S |
//! | rule 3, B | [`late_rollback`]: the key is still in the set when B is almost over |
//!
//! L and S of rule 3's second arm decide nothing that can be seen from here. No
//! signature leaves whose `exp` lies above the ceiling, so the first arm alone
//! outlives every token. And a rollback is possible until `last_sign +
//! max(B, S)`: if B is the longer, `last_sign + B` covers it; if S is, the
//! first arm does, since a switch raises the ceiling past `last_sign`.
//!
//! ```text
//! SEALKEEPER_SEED=<seed> cargo test --features failpoints rotation_under_load -- --nocapture
//! ```

mod callers;
mod operator;
mod verifiers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use sealkeeper::time::{Span, Time};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use super::lab::{Daemon, Lab, wait_for, wait_until};
use callers::{Work, call};
use operator::{Operator, listen};
use verifiers::{Found, judge, judge_handovers, watch};

const CACHE: Span = Span::from_secs(4);
const PROPAGATION: Span = Span::from_millis(1_500);
const SKEW: Span = Span::from_secs(2);
const ADOPTION: Span = Span::from_millis(500);
const SHARED: &str = r#"
verifier_cache = "4s"
propagation = "1500ms"
skew = "2s"
adoption = "500ms"
signing_deadline = "1s"
max_age = "1s"
"#;

/// Long enough for a clock that is ahead to be put right before it brings an
/// activation forward; with a rollback window so short that the tokens of that
/// time outlive it.
const FIRST: &str = r#"
rotate_every = "17s"
max_token_lifetime = "4s"
default_lifetime = "4s"
rollback_window = "300ms"
"#;
const FIRST_PERIOD: Span = Span::from_secs(17);

/// What the second kill comes back with: shorter lives, while tokens of the
/// longer one are about, and a rollback window that outlasts them.
const SECOND: &str = r#"
rotate_every = "10s"
max_token_lifetime = "3s"
default_lifetime = "3s"
rollback_window = "8s"
"#;
const SECOND_PERIOD: Span = Span::from_secs(10);
const SHORTER_LIFETIME: Span = Span::from_secs(3);

const CALLERS: usize = 64;
const CHANNELS: usize = 8;
const ROTATIONS: usize = 5;
const PER_PHASE: usize = 1_000;
/// How long an outage around an activation begins before it is due.
const BEFORE: Span = Span::from_millis(600);
/// How far ahead the wrong clock is.
const WRONG_MS: i64 = 6_000;
/// Almost S.
const STEP_MS: i64 = 1_800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load() {
    let seed = std::env::var("SEALKEEPER_SEED").map_or(20_260_101, |s| s.parse().unwrap());
    println!("rotation_under_load: seed {seed}");
    let mut stage = Stage::new().await;
    let scene = stage.scene.clone();

    let watcher = tokio::spawn(watch(scene.clone()));
    let listener = tokio::spawn(listen(stage.operator.clone(), scene.clone()));
    // Verifiers hold a set before they see a token.
    wait_for(|| scene.answers.load(Ordering::Relaxed) > 0).await;
    let mut callers = JoinSet::new();
    let mut signers = Vec::new();
    for _ in 0..CHANNELS {
        let (signer, _) = stage.daemon.clients().await.expect("it serves");
        signers.push(signer);
    }
    for n in 0..CALLERS {
        callers.spawn(call(n, signers[n % CHANNELS].clone(), scene.clone()));
    }

    wrong_clock(&mut stage).await;
    away_across_an_activation(&mut stage).await;
    step_within_skew(&mut stage).await;
    absent_token(&stage).await;
    let rolled_back = late_rollback(&mut stage).await;

    wait_for(|| scene.signed(ROTATIONS) >= PER_PHASE).await;
    scene.calling.store(false, Ordering::Relaxed);
    let mut work = Work::default();
    while let Some(one) = callers.join_next().await {
        work.add(one.unwrap());
    }
    // The set is watched until no verifier takes the last token any more.
    let last = work.issued.iter().map(|token| token.expires).max().unwrap();
    wait_for(|| now() >= last + SKEW).await;
    scene.watching.store(false, Ordering::Relaxed);
    let history = watcher.await.unwrap();
    let retired = listener.await.unwrap();
    stage.daemon.kill();

    let mut found = judge(&work.issued, &history, &*scene.clock.read().await, seed);
    let handed_over = judge_handovers(&work, &retired, &mut found);
    if let Err(why) = rolled_back {
        found.fault("at a rollback within its window", why);
    }
    conclude(&stage.scene, &found, work.issued.len(), handed_over, seed);
}

fn conclude(scene: &Scene, found: &Found, issued: usize, handed_over: usize, seed: u64) {
    let phases = scene.phases.lock().unwrap().clone();
    let refused = scene.refused.lock().unwrap().clone();
    println!(
        "rotation_under_load: {issued} tokens in {} phases {:?}, {handed_over} of them in handovers, \
         2 kills, 1 absent token, refusals {refused:?}; {} meetings with a set, {} verifications, \
         {} of them by jsonwebtoken, faults {:?}",
        phases.len(),
        phases.iter().map(|phase| phase.signed).collect::<Vec<_>>(),
        found.meetings,
        found.verified,
        found.theirs,
        found.faults,
    );
    assert!(found.faults.is_empty(), "seed {seed}: {:?}", found.faults);
    assert!(phases.len() > ROTATIONS, "{phases:?}");
    for phase in &phases[..=ROTATIONS] {
        assert!(phase.signed >= PER_PHASE, "{phases:?}");
    }
    assert!(found.meetings >= 3 * issued);
    assert!(found.theirs > 0);
    assert!(handed_over > 0);
}

/// In the time of the first key: the machine goes down, and comes back with a
/// clock that is far ahead. When the clock is put right, the agent is in doubt:
/// it signs up to the ceiling and no further. Then an operator vouches for the
/// clock and rotates, so that the key is retired while tokens are about that
/// were signed by the clock that was ahead.
async fn wrong_clock(stage: &mut Stage) {
    let scene = stage.scene.clone();
    let middle = scene.phase(0).await + Span::from_secs(5);
    wait_for(|| now() >= middle).await;
    stage.daemon.kill();
    stage.boots += 1;
    stage.set_clock(WRONG_MS).await;
    stage.serve().await;
    let signed = scene.signed_in_all();
    wait_for(|| scene.signed_in_all() >= signed + CALLERS).await;
    stage.set_clock(0).await;
    wait_for(|| scene.refusals("CEILING_REACHED") > 0).await;
    stage.operator.confirm_clock(now()).await.unwrap();
    stage.operator.rotate().await.unwrap();
    scene.dating.store(true, Ordering::Relaxed);
}

/// The agent is killed just before an activation, stays away past it, and
/// comes back with another configuration. The standby that comes next is late
/// by as much, so that rule 1 decides and not the period.
async fn away_across_an_activation(stage: &mut Stage) {
    let due = stage.scene.phase(1).await + FIRST_PERIOD;
    wait_for(|| now() + BEFORE >= due).await;
    stage.daemon.kill();
    stage.lab.configure(&format!("{SHARED}{SECOND}"), TRACK);
    let back = due + Span::from_millis(3_500);
    wait_for(|| now() >= back).await;
    stage.serve().await;
}

/// Once the next key was observed, the agent's clock steps forward, by no more
/// than it believes.
async fn step_within_skew(stage: &mut Stage) {
    stage.scene.phase(2).await;
    let mut operator = stage.operator.clone();
    wait_until(async || operator.standby_is_observed().await).await;
    stage.set_clock(STEP_MS).await;
}

/// Across an activation: the token is gone, and no standby can be made.
async fn absent_token(stage: &Stage) {
    let due = stage.scene.phase(3).await + SECOND_PERIOD;
    let back = due + Span::from_millis(2_500);
    wait_for(|| now() + BEFORE >= due).await;
    let (tokens, aside) = (stage.lab.path("tokens"), stage.lab.path("aside"));
    std::fs::rename(&tokens, &aside).unwrap();
    wait_for(|| now() >= back).await;
    std::fs::rename(&aside, &tokens).unwrap();
}

/// After the last rotation: an operator goes back to the key before, late in
/// its rollback window. Fails if the agent refuses what it said it would do.
async fn late_rollback(stage: &mut Stage) -> Result<(), String> {
    let scene = stage.scene.clone();
    scene.phase(ROTATIONS).await;
    let kid = scene.phases.lock().unwrap()[ROTATIONS - 1].kid.clone();
    let mut operator = stage.operator.clone();
    let mut until = None;
    wait_until(async || {
        until = operator.destroys(&kid).await;
        until.is_some()
    })
    .await;
    let until = until.expect("it is planned");
    let late = until - Span::from_secs(2);
    let clock = scene.clock.read().await;
    wait_for(|| clock.by_agent(now()) >= late).await;
    let signed = scene.signed(ROTATIONS - 1);
    match operator.rollback(&kid).await {
        Ok(()) => wait_for(|| scene.signed(ROTATIONS - 1) >= signed + CALLERS).await,
        // Only of what came in time is a refusal a fault.
        Err(why) if clock.by_agent(now()) < until => return Err(why.to_string()),
        Err(why) => println!("rotation_under_load: the rollback came too late: {why}"),
    }
    Ok(())
}

fn now() -> Time {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap())
}

const TRACK: &str = "[[key_set.main.track]]\nalg = \"ES256\"\n";

/// Where the scene is played.
struct Stage {
    lab: Lab,
    /// How often its machine has started.
    boots: u32,
    daemon: Daemon,
    operator: Operator,
    scene: Arc<Scene>,
}

impl Stage {
    async fn new() -> Self {
        let lab = Lab::new(&format!("{SHARED}{FIRST}"), &["ES256"]);
        lab.init();
        let mut daemon = Self::start(&lab, 1).await;
        let (_, admin) = daemon.clients().await.expect("it serves");
        let scene = Arc::new(Scene::new(daemon.origin()));
        Self {
            lab,
            boots: 1,
            daemon,
            operator: Operator::new(admin),
            scene,
        }
    }

    async fn start(lab: &Lab, boots: u32) -> Daemon {
        let clock = lab.path("clock");
        let clock = clock.to_str().expect("a temporary path is text");
        lab.serve_with(&[
            ("SEALKEEPER_TEST_CLOCK_OFFSET", clock),
            ("SEALKEEPER_TEST_BOOT_ID", &boots.to_string()),
        ])
        .await
    }

    /// Starts the daemon again.
    async fn serve(&mut self) {
        self.daemon = Self::start(&self.lab, self.boots).await;
        *self.scene.origin.lock().unwrap() = self.daemon.origin();
    }

    /// Sets the clock of the agent's machine apart from everybody else's.
    async fn set_clock(&mut self, apart_ms: i64) {
        let mut clock = self.scene.clock.write().await;
        clock.set.push((now(), apart_ms));
        std::fs::write(self.lab.path("clock"), apart_ms.to_string()).unwrap();
    }
}

/// What callers, watcher and mishaps share.
struct Scene {
    origin: Mutex<String>,
    phases: Mutex<Vec<Phase>>,
    /// By the reason.
    refused: Mutex<BTreeMap<String, usize>>,
    /// Read by whoever dates something by it, for as long as that is under way.
    clock: RwLock<AgentClock>,
    /// How often the set was fetched.
    answers: AtomicUsize,
    /// Whether callers may date a signing input: an agent whose clock is far
    /// off is right to refuse it.
    dating: AtomicBool,
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
            clock: RwLock::default(),
            answers: AtomicUsize::new(0),
            dating: AtomicBool::new(false),
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

    fn signed_in_all(&self) -> usize {
        let phases = self.phases.lock().unwrap();
        phases.iter().map(|phase| phase.signed).sum()
    }

    fn refusals(&self, reason: &str) -> usize {
        let refused = self.refused.lock().unwrap();
        refused.get(reason).copied().unwrap_or_default()
    }

    /// Waits for the first token of a phase, and says when it came.
    async fn phase(&self, n: usize) -> Time {
        wait_for(|| self.signed(n) > 0).await;
        self.phases.lock().unwrap()[n].since
    }
}

/// The clock of the agent's machine, which its callers go by; everybody else
/// goes by the test's own.
#[derive(Default)]
struct AgentClock {
    /// When it was set, in milliseconds ahead of the test's own.
    set: Vec<(Time, i64)>,
}

impl AgentClock {
    /// What it shows at an instant.
    fn by_agent(&self, at: Time) -> Time {
        let set = self.set.iter().rev().find(|(since, _)| *since <= at);
        ahead(at, set.map_or(0, |(_, apart)| *apart))
    }

    /// When it shows an instant for the first time, or a later one.
    fn shows(&self, instant: Time) -> Time {
        let starts = std::iter::once((Time::default(), 0)).chain(self.set.iter().copied());
        let ends = self.set.iter().map(|(since, _)| *since);
        let mut spells = starts.zip(ends.chain([Time::FAR_FUTURE]));
        let shown = spells.find_map(|((start, apart), end)| {
            let at = start.max(ahead(instant, -apart));
            (at < end).then_some(at)
        });
        shown.expect("the last spell has no end")
    }
}

fn ahead(at: Time, apart_ms: i64) -> Time {
    Time::from_millis(at.as_millis() + apart_ms)
}
