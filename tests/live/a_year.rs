//! A year of 90-day rotations, and one clock for all: the agent and npm `jose`,
//! at its default settings, have the machine's clock shifted by what stands in
//! one file. In the second quarter a key is compromised, so that one is
//! published, waits and signs within the hour, with nothing known ahead.
//!
//! At each step somebody signs, and the verifiers see that token, the oldest
//! that lives, and one between. A step is a day where nothing is to happen, and
//! a minute around a change of the key that signs; there the verifiers begin
//! one after the other, so that at each instant some set is about as old as it
//! may be. None refuses a token. Without the wait of rule 1 some do.
//!
//! The agent is told of `jose`'s ten minutes, and of a short P, since it looks
//! at its origin several times within P, by no clock but the machine's. All
//! else is as it comes.
//!
//! scripts/test installs `jose` and names its folder in `SEALKEEPER_JOSE`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Instant, SystemTime};

use sealkeeper::api::v1::key_admin_client::KeyAdminClient;
use sealkeeper::api::v1::signer_client::SignerClient;
use sealkeeper::api::v1::{Key, KeySet, ListKeysRequest, Phase};
use sealkeeper::time::{Span, Time};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::kills::revoke;
use super::lab::{Daemon, Lab, sign, wait_until};

const VERIFIERS: u8 = 5;

/// `cacheMaxAge` of `jose` where nothing is said of it.
const CACHE: Span = Span::from_mins(10);
const PROPAGATION: Span = Span::from_millis(200);
const DAY: Span = Span::from_days(1);
const MINUTE: Span = Span::from_mins(1);
/// From so long before a change to so long after it, steps are short; then
/// longer, until every token of before is dead.
const AROUND: Span = Span::from_mins(13);
const AFTER: Span = Span::from_mins(75);

const WAITS: &str = "verifier_cache = \"10m\"\npropagation = \"200ms\"";
const NO_WAITS: &str = "verifier_cache = \"1s\"\nmax_age = \"1s\"\npropagation = \"200ms\"\n\
                        skew = \"50ms\"\nadoption = \"200ms\"\nsigning_deadline = \"1s\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verifier_at_its_defaults_ever_fails() {
    let Some(mut world) = World::new(WAITS).await else {
        return;
    };
    let began = Instant::now();
    let end = world.now() + Span::from_days(366);
    let spring = world.now() + Span::from_days(120);
    while world.now() < end {
        if world.ended.is_none() && world.now() >= spring {
            world.compromise().await;
        }
        world.step().await;
    }
    println!(
        "a_year: {} signing keys, {} tokens, {} verdicts, {} fetches, {} refusals of a revoked key in {} s",
        world.signers.len(),
        world.signed,
        world.verdicts,
        world.fetches,
        world.distrusted,
        began.elapsed().as_secs(),
    );
    assert_eq!(world.faults, [""; 0]);
    // The first, four rotations of which one is early, and the standby that
    // stood in for the key that was revoked.
    assert_eq!(world.signers.len(), 6, "{:?}", world.signers);
    assert!(world.verdicts > 4_000 && world.distrusted >= usize::from(VERIFIERS));
    assert!(world.fetches > 365 * u64::from(VERIFIERS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_wait_some_fail() {
    let Some(mut world) = World::new(NO_WAITS).await else {
        return;
    };
    world.compromise().await;
    let before = world.signers.len();
    wait_until(async || {
        world.show_another().await;
        // The standby, and the key that was made after the revocation.
        world.signers.len() == before + 2
    })
    .await;
    println!("a_year, without the wait: {:?}", world.faults);
    assert!(!world.faults.is_empty());
    let unknown = |why: &String| why.starts_with("ERR_JWKS_NO_MATCHING_KEY");
    assert!(world.faults.iter().all(unknown), "{:?}", world.faults);
}

struct World {
    lab: Lab,
    daemon: Daemon,
    signer: SignerClient<Channel>,
    admin: KeyAdminClient<Channel>,
    jose: Jose,
    /// How far the clock is ahead of the machine's.
    ahead: Span,
    /// Tokens that live, and when each ends.
    tokens: Vec<(String, Time)>,
    /// Each key that signed, in that order.
    signers: Vec<String>,
    /// Short steps in a row.
    short: u8,
    /// A token of the key that was revoked, from when on nobody takes it, and
    /// its end.
    ended: Option<(String, Time, Time)>,
    signed: usize,
    verdicts: usize,
    distrusted: usize,
    fetches: u64,
    faults: Vec<String>,
}

impl World {
    /// None without `jose`.
    async fn new(schedule: &str) -> Option<Self> {
        let Some(folder) = std::env::var_os("SEALKEEPER_JOSE") else {
            eprintln!("skipped: SEALKEEPER_JOSE names no folder with npm jose");
            return None;
        };
        let lab = Lab::new(schedule, &["ES256"]);
        let clock = lab.path("clock");
        fs::write(&clock, "0 0").unwrap();
        lab.init();
        let clock = clock.to_str().unwrap();
        let mut daemon = lab
            .serve_with(&[("SEALKEEPER_TEST_CLOCK_OFFSET", clock)])
            .await;
        let (signer, admin) = daemon.clients().await.unwrap();
        let jose = Jose::start(Path::new(&folder), clock, &daemon.origin());
        let mut world = Self {
            lab,
            daemon,
            signer,
            admin,
            jose,
            ahead: Span::ZERO,
            tokens: Vec::new(),
            signers: Vec::new(),
            short: 0,
            ended: None,
            signed: 0,
            verdicts: 0,
            distrusted: 0,
            fetches: 0,
            faults: Vec::new(),
        };
        // What the start leaves: a standby that every verifier can hold.
        wait_until(async || world.key_set().await.keys.iter().any(is_standby)).await;
        world.pass(DAY).await;
        world.show_another().await;
        Some(world)
    }

    fn now(&self) -> Time {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Time::from_millis(i64::try_from(since.as_millis()).unwrap()) + self.ahead
    }

    /// Time passes, for the agent and the verifiers; the agent has come round
    /// since.
    async fn pass(&mut self, by: Span) {
        self.ahead = self.ahead + by;
        let ahead = self.ahead.as_millis();
        // In one piece: somebody reads it at each instant.
        fs::write(self.lab.path("clock.new"), format!("{ahead} {ahead}")).unwrap();
        fs::rename(self.lab.path("clock.new"), self.lab.path("clock")).unwrap();
        self.key_set().await;
        self.key_set().await;
    }

    /// Asks the writer, which takes the steps that are due before and after it
    /// answers.
    async fn key_set(&mut self) -> KeySet {
        let listed = self.admin.list_keys(ListKeysRequest::default()).await;
        listed.unwrap().into_inner().key_sets.remove(0)
    }

    async fn step(&mut self) {
        // Not while a device makes the next key.
        let mut set = KeySet::default();
        let mut next = None;
        wait_until(async || {
            set = self.key_set().await;
            let changes = set.next.iter();
            let changes = changes.filter(|event| ["activate", "retire"].contains(&&*event.kind));
            next = changes.filter_map(|event| time(event.at.as_ref())).min();
            next.is_some()
        })
        .await;
        let (now, next) = (self.now(), next.unwrap());
        let last = set.keys.iter().filter(|key| key.phase() == Phase::Active);
        let last = last.filter_map(|key| time(key.active_since.as_ref())).max();
        let last = last.unwrap_or(now);
        if now + AROUND >= next || now <= last + AROUND {
            self.short += 1;
            self.pass(MINUTE).await;
        } else if now <= last + AFTER {
            self.pass(MINUTE.times(5)).await;
        } else {
            self.short = 0;
            let left = next.since(now + AROUND);
            self.pass(left.min(DAY)).await;
        }
        self.show_another().await;
        self.show_revoked().await;
    }

    /// Signs, and shows the token, the oldest that lives, and one between.
    async fn show_another(&mut self) {
        let mut answer = None;
        let signer = &mut self.signer;
        wait_until(async || {
            answer = sign(signer, "ES256", r#"{"sub":"alice"}"#).await.ok();
            answer.is_some()
        })
        .await;
        let signed = answer.unwrap();
        self.signed += 1;
        if self.signers.last() != Some(&signed.kid) {
            self.signers.push(signed.kid.clone());
        }
        let ends = Time::from_secs(signed.expires.unwrap().seconds);
        self.tokens.push((signed.token, ends));
        // The last second is left for the way there.
        let soon = self.now() + Span::from_secs(1);
        self.tokens.retain(|(_, ends)| *ends > soon);
        let last = self.tokens.len() - 1;
        let shown = [last, last / 2, 0].map(|n| self.tokens[n].0.as_str());
        let said = self.jose.show(&shown, self.open(), &mut self.fetches);
        self.verdicts += said.len();
        self.faults
            .extend(said.into_iter().filter(|why| why != "ok"));
    }

    /// Once the time that the operator was told is over, nobody takes a token
    /// of the revoked key.
    async fn show_revoked(&mut self) {
        let now = self.now();
        let Some((token, bounded, _)) = (self.ended.as_ref())
            .filter(|(_, bounded, ends)| *bounded <= now && now + MINUTE < *ends)
        else {
            return;
        };
        let said = self.jose.show(&[token], VERIFIERS, &mut self.fetches);
        let unknown = |why: &&String| why.starts_with("ERR_JWKS_NO_MATCHING_KEY");
        let distrusted = said.iter().filter(unknown).count();
        assert_eq!(distrusted, said.len(), "after {bounded}: {said:?}");
        self.distrusted += distrusted;
    }

    /// How many verifiers look: where steps are short, one more with each two.
    fn open(&self) -> u8 {
        match self.short {
            0 => VERIFIERS,
            short => VERIFIERS.min(1 + short / 2),
        }
    }

    /// Every verifier has just fetched the set, and the key that signs is
    /// revoked.
    async fn compromise(&mut self) {
        self.short = 0;
        self.pass(Span::from_hours(2)).await;
        self.show_another().await;
        let (token, ends) = self.tokens.pop().unwrap();
        self.tokens.clear();
        let kid = self.signers.last().unwrap().clone();
        revoke(&mut self.daemon, &kid).await;
        let bounded = self.now() + PROPAGATION + CACHE;
        self.ended = Some((token, bounded, ends));
    }
}

fn is_standby(key: &Key) -> bool {
    key.phase() == Phase::Published
}

fn time(at: Option<&prost_types::Timestamp>) -> Option<Time> {
    at.map(|at| Time::from_secs(at.seconds))
}

/// The verifiers, in a process of their own.
struct Jose {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Jose {
    fn start(folder: &Path, clock: &str, origin: &str) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/a_year");
        let program = fs::read_to_string(here.join("jose.mjs")).unwrap();
        let asked = json!({
            "verifiers": VERIFIERS,
            "url": format!("{origin}/main/jwks.json"),
            "clock": clock,
            "issuer": "https://lab.example",
        });
        // A program that is no file finds its packages where it runs.
        let mut child = Command::new("node")
            .args(["--input-type=module", "--eval", &program])
            .current_dir(folder)
            .env("VERIFIERS", asked.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("node is installed by scripts/test: {e}"));
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    /// What the first of them say of tokens.
    fn show(&mut self, tokens: &[&str], open: u8, fetches: &mut u64) -> Vec<String> {
        let question = json!({"tokens": tokens, "open": open});
        writeln!(self.stdin, "{question}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        *fetches = answer["fetches"].as_u64().unwrap();
        let said = answer["said"].as_array().unwrap().iter();
        let said = said.flat_map(|of_one| of_one.as_array().unwrap());
        said.map(|said| said.as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Jose {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
