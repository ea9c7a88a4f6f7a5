//! Rotation after rotation with somebody else's verifiers: npm `jose` and
//! PyJWT, in processes of their own, which keep a set for exactly as long as
//! the configuration allows, and do not fetch again at an unknown `kid`.
//!
//! The world is as bad as the configuration says that it may be, in each
//! rotation: verifiers ask edges that are behind the origin by almost P; the
//! origin is behind the agent, and regresses once it has shown the next key,
//! so that rule 1 decides and not the period; the clock steps forward by almost
//! S while the wait is under way, with or without a restart of the machine; the
//! agent is killed at an instant that nobody chose; and now and then the clock
//! leaps by an hour and is put right. No token is refused, from its issue until
//! its end by a clock that is behind.
//!
//! Then each wait is taken out, one at a time, in the same world:
//!
//! | wait | how it is taken out |
//! |---|---|
//! | rule 1, P, C and S | the agent is told that there is none |
//! | rule 3, L | the origin leaves a key out when an agent without L would |
//!
//! ```text
//! SEALKEEPER_SEED=<seed> cargo test --features failpoints fifty_rotations -- --nocapture
//! ```
//!
//! Five rotations, or fifty with `SEALKEEPER_LONG=1`. scripts/test installs
//! `jose` and names its folder in `SEALKEEPER_JOSE`; without it PyJWT is alone.

mod audience;
mod edge;
mod verifiers;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::time::{Span, Time};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::lab::{Daemon, Lab, PATIENCE, sign, wait_for};
use crate::simulation::random::Random;
use audience::{Found, Issued, watch};
use edge::Edge;
use verifiers::Verifiers;
use world::World;

const PROPAGATION: Span = Span::from_millis(1_500);
const CACHE: Span = Span::from_secs(3);
const SKEW: Span = Span::from_millis(1_500);
const LIFETIME: Span = Span::from_secs(3);
const ROLLBACK: Span = Span::from_millis(300);
const ADOPTION: Span = Span::from_millis(200);
const DEADLINE: Span = Span::from_secs(1);
/// How long after its end by the agent's clock a token is shown last: almost S,
/// less what a busy machine takes to get there.
const LATEST: Span = Span::from_millis(1_200);
/// From an activation to the end of the regression after it: the period is
/// over before the wait that begins there.
const REGRESSION: Span = Span::from_millis(2_500);
const LEAP_MS: i64 = 3_600_000;

const CALLERS: usize = 3;
const PACE: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verifier_ever_fails() {
    let rotations = if long() { 50 } else { 5 };
    let (found, kinds) = play(World::promised(), rotations).await;
    assert!(found.faults.is_empty(), "{:#?}", found.faults);
    let all: usize = found.verdicts.values().sum();
    for kind in kinds {
        assert!(found.verdicts[kind] > 500 * rotations, "{found:?}");
    }
    // What says nothing is the exception.
    assert!((found.late + found.without_set) * 50 < all, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_verifier_cache_some_fail() {
    let mut world = World::less("without C");
    world.cache = Span::ZERO;
    fails(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_lifetime_some_fail() {
    let mut world = World::less("without L");
    world.without_lifetime = true;
    fails(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_propagation_some_fail() {
    let mut world = World::less("without P");
    // So little that one step of the clock would pass for a gap in which nobody
    // looked: then the wait begins anew. In small ones it goes unnoticed.
    world.propagation = Span::from_millis(400);
    world.parts = 12;
    if long() {
        fails(world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_skew_some_fail() {
    let mut world = World::less("without S");
    // The least that an agent takes. It would notice a step of its clock; not
    // so where the machine starts anew.
    world.skew = Span::from_millis(50);
    world.restarts = true;
    // Step and restart together are no gap in which nobody looked; and what an
    // agent that looks so seldom sees late makes up for less than the step.
    world.propagation = Span::from_secs(12);
    world.lag = Span::from_millis(11_925);
    world.step = Span::from_millis(3_900);
    if long() {
        fails(world).await;
    }
}

fn long() -> bool {
    std::env::var_os("SEALKEEPER_LONG").is_some()
}

/// One rotation, and every kind of verifier refuses good tokens.
async fn fails(world: World) {
    let name = world.name;
    let (found, kinds) = play(world, 1).await;
    for kind in kinds {
        assert!(found.faults_of(kind) > 0, "{name}: {kind}: {found:#?}");
    }
    let not_there = |why: &str| why.starts_with("unknown kid") || why.contains("NO_MATCHING_KEY");
    for (_, why) in found.faults.values() {
        assert!(not_there(why), "{name}: {why}");
    }
}

/// Plays so many rotations, and returns what verifiers said, and which kinds
/// of them there were.
async fn play(world: World, rotations: usize) -> (Found, Vec<&'static str>) {
    let began = Instant::now();
    let mut stage = Stage::new(world.clone()).await;
    let scene = stage.scene.clone();
    let verifiers = Verifiers::start(&stage.edge, &world);
    let kinds = verifiers.kinds();
    let (sender, tokens) = unbounded_channel();
    let audience = tokio::spawn(watch(scene.clone(), verifiers, world.clone(), tokens));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (signer, _) = stage.daemon.clients().await.unwrap();
        callers.spawn(call(signer, scene.clone(), sender.clone()));
    }
    for n in 1..=rotations {
        stage.rotate(n).await;
    }
    // The former key is over for everybody.
    let over = now() + LIFETIME + SKEW + SKEW;
    stage.until(|_| now() >= over).await;
    scene.calling.store(false, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    audience.await.unwrap();
    let found = scene.found.lock().unwrap().clone();
    let log = std::fs::read_to_string(stage.lab.path("state/audit/keys.log")).unwrap();
    let anew = log.matches("\"unobserved\"").count();
    println!(
        "fifty_rotations: {}, seed {}: {rotations} rotations, {} kills, {} steps, {} leaps in {} s; \
         {anew} runs of sightings begun anew; refused callers {:?}; {found:#?}",
        world.name,
        world.seed,
        stage.kills,
        stage.steps,
        stage.leaps,
        began.elapsed().as_secs(),
        scene.refused.lock().unwrap(),
    );
    (found, kinds)
}

/// Signs at its pace for as long as the scene lasts.
async fn call(
    mut signer: SignerClient<Channel>,
    scene: Arc<Scene>,
    tokens: UnboundedSender<Issued>,
) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while scene.calling.load(Ordering::Relaxed) {
        pace.tick().await;
        let status = match sign(&mut signer, "ES256", r#"{"sub":"alice"}"#).await {
            Ok(signed) => {
                let _ = tokens.send(Issued {
                    token: signed.token,
                    kid: signed.kid,
                    received: now(),
                    expires: Time::from_secs(signed.expires.unwrap().seconds),
                });
                continue;
            }
            Err(status) => status,
        };
        // An agent that is away or overtaxed, or a connection that broke.
        let away = matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Unknown
                | Code::Cancelled
        );
        assert!(away, "{status:?}");
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let reason = reason.unwrap_or_else(|| format!("{:?}", status.code()));
        *scene.refused.lock().unwrap().entry(reason).or_default() += 1;
    }
}

/// What all share.
struct Scene {
    /// Each key that signed, and the first instant at which somebody had a
    /// token of it.
    keys: Mutex<Vec<(String, Time)>>,
    clock: Mutex<AgentClock>,
    found: Mutex<Found>,
    /// By the reason.
    refused: Mutex<BTreeMap<String, usize>>,
    calling: AtomicBool,
}

impl Scene {
    fn signed(&self, kid: &str, at: Time) {
        let mut keys = self.keys.lock().unwrap();
        if keys.iter().all(|(known, _)| known != kid) {
            keys.push((kid.to_owned(), at));
        }
    }

    fn keys(&self) -> Vec<(String, Time)> {
        self.keys.lock().unwrap().clone()
    }
}

/// The clock of the agent's machine, as far as the agent believes it.
#[derive(Default)]
struct AgentClock {
    /// When it was set, and how far ahead of everybody else's.
    set: Vec<(Time, Span)>,
}

impl AgentClock {
    /// The latest that it has shown until `at`: for the agent, time does not
    /// run backwards.
    fn furthest(&self, at: Time) -> Time {
        let ends = self.set.iter().skip(1).map(|(since, _)| *since);
        let ends = ends.chain([Time::FAR_FUTURE]);
        let spells = self.set.iter().zip(ends);
        let shown = spells
            .filter(|((since, _), _)| *since <= at)
            .map(|((_, ahead), end)| end.min(at) + *ahead);
        shown.max().unwrap_or(at).max(at)
    }
}

/// Where it is played, and who plays tricks.
struct Stage {
    world: World,
    lab: Lab,
    edge: Edge,
    daemon: Daemon,
    scene: Arc<Scene>,
    random: Random,
    /// How often its machine has started.
    boots: u32,
    ahead: Span,
    /// When the daemon is killed next, or comes back.
    next: Option<Next>,
    kills: usize,
    steps: usize,
    leaps: usize,
}

#[derive(Clone, Copy)]
enum Next {
    Dies(Time),
    Returns(Time),
}

impl Stage {
    async fn new(world: World) -> Self {
        let lab = Lab::new(&world.schedule(), &["ES256"]);
        let mut random = Random::new(world.seed ^ 1);
        let edge = Edge::start(random.span(Span::ZERO, Span::from_millis(500))).await;
        let observe = format!("device = \"softhsm\"\nobserve = [{:?}]", edge.observed());
        lab.amend("device = \"softhsm\"", &observe);
        lab.init();
        let daemon = serve(&lab, 1).await;
        edge.follow(daemon.origin());
        let origin = edge.clone();
        wait_for(|| !origin.kids().is_empty()).await;
        let scene = Arc::new(Scene {
            keys: Mutex::default(),
            clock: Mutex::default(),
            found: Mutex::default(),
            refused: Mutex::default(),
            calling: AtomicBool::new(true),
        });
        Self {
            world,
            lab,
            edge,
            daemon,
            scene,
            random,
            boots: 1,
            ahead: Span::ZERO,
            next: None,
            kills: 0,
            steps: 0,
            leaps: 0,
        }
    }

    /// One rotation, with all that comes in its way.
    async fn rotate(&mut self, n: usize) {
        self.until(|stage| stage.scene.keys().len() == n).await;
        let (_, since) = self.scene.keys()[n - 1].clone();
        if self.world.kills {
            let at = since + self.random.span(Span::ZERO, Span::from_secs(7));
            // One that is down comes back first.
            self.next.get_or_insert(Next::Dies(at));
        }
        self.until(|stage| stage.standby().is_some()).await;
        let standby = self.standby().unwrap();
        self.agent_looks().await;
        self.step(Span::ZERO).await;
        if self.world.leaps && n % 5 == 2 {
            self.leap().await;
        }
        // The edge may have seen the first standby from its start on.
        assert!(self.edge.regress(&standby) || n == 1, "it was always there");
        self.agent_looks().await;
        let wait = REGRESSION + self.random.span(Span::ZERO, Span::from_millis(500));
        self.until(|_| now() >= since + wait).await;
        self.edge.catch_up();
        self.agent_looks().await;
        let parts = self.world.parts;
        for part in 1..=parts {
            self.step(self.world.step.times(part).divided_by(parts))
                .await;
            if part < parts {
                self.agent_looks().await;
            }
        }
        self.until(|stage| stage.scene.keys().len() > n).await;
        let (kid, _) = self.scene.keys()[n].clone();
        assert_eq!(kid, standby);
    }

    /// The key that has signed nothing yet and is shown.
    fn standby(&self) -> Option<String> {
        let keys = self.scene.keys();
        let kids = self.edge.kids().into_iter();
        let mut new = kids.filter(|kid| keys.iter().all(|(known, _)| known != kid));
        new.next()
    }

    /// Waits until the agent has looked at what the origin shows now, and has
    /// come again: it is done with the first.
    async fn agent_looks(&mut self) {
        let looks = self.edge.looks();
        self.until(|stage| stage.edge.looks() >= looks + 2).await;
    }

    /// Sets the clock of the agent's machine ahead of everybody else's, within
    /// what the agent believes. The machine may start anew with it.
    async fn step(&mut self, ahead: Span) {
        if ahead == self.ahead {
            return;
        }
        let by_chance = self.world.kills && self.random.chance(300);
        let restarts = self.world.restarts || by_chance;
        if restarts {
            self.daemon.kill();
            self.boots += 1;
        }
        self.set_clock(ahead.as_millis());
        self.scene.clock.lock().unwrap().set.push((now(), ahead));
        self.ahead = ahead;
        self.steps += 1;
        if restarts {
            self.serve().await;
        }
    }

    /// The clock leaps. The agent doubts it, and signs until nothing more can
    /// be sure; then the clock is put right, and somebody vouches for it.
    async fn leap(&mut self) {
        if let Some(Next::Returns(_)) = self.next {
            self.serve().await;
        }
        let refused = |scene: &Scene| {
            let refused = scene.refused.lock().unwrap();
            refused.get("CEILING_REACHED").copied().unwrap_or_default()
        };
        let before = refused(&self.scene);
        self.set_clock(LEAP_MS);
        wait_for(|| refused(&self.scene) > before).await;
        self.set_clock(0);
        self.lab.ok(&["clock", "confirm"]);
        self.leaps += 1;
    }

    fn set_clock(&self, ahead_ms: i64) {
        std::fs::write(self.lab.path("clock"), ahead_ms.to_string()).unwrap();
    }

    async fn serve(&mut self) {
        self.daemon = serve(&self.lab, self.boots).await;
        self.edge.follow(self.daemon.origin());
        self.next = None;
    }

    /// Waits for something, while what is due happens.
    #[track_caller]
    fn until(&mut self, come: impl FnMut(&Self) -> bool) -> impl Future<Output = ()> {
        let waiting = std::panic::Location::caller();
        self.tend(come, waiting)
    }

    async fn tend(
        &mut self,
        mut come: impl FnMut(&Self) -> bool,
        waiting: &'static std::panic::Location<'static>,
    ) {
        let began = Instant::now();
        let mut ticks = ticks();
        while !come(self) {
            let waited = began.elapsed();
            assert!(waited < PATIENCE, "gave up after {waited:?}: {waiting}");
            ticks.tick().await;
            match self.next {
                Some(Next::Dies(at)) if now() >= at => {
                    self.daemon.kill();
                    self.kills += 1;
                    let down = self.random.span(Span::ZERO, Span::from_millis(1_500));
                    self.next = Some(Next::Returns(now() + down));
                }
                Some(Next::Returns(at)) if now() >= at => self.serve().await,
                _ => {}
            }
            if self.world.without_lifetime {
                self.hide();
            }
        }
    }

    /// Keys are left out by the time that rule 3 gives without L.
    fn hide(&self) {
        let agent = self.scene.clock.lock().unwrap().furthest(now());
        let keys = self.scene.keys();
        let clock = self.scene.clock.lock().unwrap();
        for pair in keys.windows(2) {
            let switch = clock.furthest(pair[1].1);
            if agent >= switch + ADOPTION + DEADLINE + ROLLBACK + SKEW {
                self.edge.hide(&pair[0].0);
            }
        }
    }
}

async fn serve(lab: &Lab, boots: u32) -> Daemon {
    let clock = lab.path("clock");
    lab.serve_with(&[
        ("SEALKEEPER_TEST_CLOCK_OFFSET", clock.to_str().unwrap()),
        ("SEALKEEPER_TEST_BOOT_ID", &boots.to_string()),
    ])
    .await
}

fn ticks() -> Interval {
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn now() -> Time {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap())
}
