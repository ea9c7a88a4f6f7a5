//! How fast the agent signs, beside a bare sign loop on the same token: one
//! table from one run on one machine. It judges nothing: a rate is only worth
//! something beside the other one.
//!
//! `scripts/bench` runs it with the release profile.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

#[expect(dead_code, reason = "the tests need more of the laboratory")]
#[path = "../live/lab.rs"]
mod lab;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use tokio::task::JoinSet;

use lab::{Daemon, Lab, sign};

/// How long each rate is measured, after a tenth of it to warm up.
const TIME: Duration = Duration::from_secs(5);
/// What no rate needs more of.
const MOST: u64 = 500_000;
const IN_FLIGHT: usize = 64;
const CHANNELS: usize = 8;
/// As many as the agent's device has when the configuration says nothing.
const WORKERS: usize = 2;
const CLAIMS: &str = r#"{"sub":"a-subject","aud":"https://api.example","scope":"read write"}"#;
/// About as long as the signing input of such a token.
const INPUT: [u8; 320] = [b'a'; 320];

fn main() {
    // The module reads its configuration from the environment, which only a
    // process of its own can be given.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("bare") {
        let (module, alg) = (args.next().unwrap(), args.next().unwrap());
        println!("{}", bare(&module, &alg));
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    let lab = Lab::new(lab::CALM, &["ES256", "RS256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let cores = thread::available_parallelism().map_or(0, usize::from);
    println!(
        "SoftHSM2 on {cores} processors; {} s each; bare: C_Sign in {WORKERS} threads; \
         agent: SignJwt over its Unix socket, {IN_FLIGHT} in flight, {WORKERS} workers",
        TIME.as_secs()
    );
    println!(
        "{:<12} {:>10} {:>10} {:>7}",
        "", "bare/s", "agent/s", "ratio"
    );
    for (alg, name) in [("ES256", "ES256"), ("RS256", "RS256 (2048)")] {
        let bare = bare_in_a_process(&lab, alg);
        let agent = agent(&mut daemon, alg).await;
        println!(
            "{name:<12} {bare:>10.0} {agent:>10.0} {:>7.2}",
            agent / bare
        );
    }
}

/// Signatures a second through the agent.
async fn agent(daemon: &mut Daemon, alg: &'static str) -> f64 {
    let meter = Arc::new(Meter::start());
    let mut callers = JoinSet::new();
    let mut signers = Vec::new();
    for _ in 0..CHANNELS {
        let (signer, _) = daemon.clients().await.expect("it serves");
        signers.push(signer);
    }
    for n in 0..IN_FLIGHT {
        let (mut signer, meter) = (signers[n % CHANNELS].clone(), meter.clone());
        callers.spawn(async move {
            while meter.goes_on() {
                sign(&mut signer, alg, CLAIMS).await.unwrap();
                meter.count();
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    meter.rate()
}

fn bare_in_a_process(lab: &Lab, alg: &str) -> f64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("bare")
        .arg(lab::softhsm_module())
        .arg(alg)
        .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}

/// Signatures a second straight from the token.
fn bare(module: &str, alg: &str) -> f64 {
    let pkcs11 = Pkcs11::new(module).unwrap();
    pkcs11
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let slots = pkcs11.get_slots_with_token().unwrap();
    let ours = |info: cryptoki::slot::TokenInfo| info.label() == "lab";
    let slot = slots
        .into_iter()
        .find(|slot| pkcs11.get_token_info(*slot).is_ok_and(ours))
        .unwrap();
    // One login holds for every session of a process.
    let first = pkcs11.open_ro_session(slot).unwrap();
    let pin = RawAuthPin::new(Box::new(lab::PIN.as_bytes().to_vec()));
    first.login_with_raw(UserType::User, &pin).unwrap();

    let sessions: Vec<Session> = (0..WORKERS)
        .map(|_| pkcs11.open_ro_session(slot).unwrap())
        .collect();
    let meter = Meter::start();
    thread::scope(|scope| {
        for session in sessions {
            let meter = &meter;
            scope.spawn(move || sign_on(&session, alg, meter));
        }
    });
    meter.rate()
}

fn sign_on(session: &Session, alg: &str, meter: &Meter) {
    let (kind, mechanism, data) = match alg {
        // Few tokens hash for ECDSA; the agent does, too.
        "ES256" => (KeyType::EC, Mechanism::Ecdsa, &INPUT[..32]),
        "RS256" => (KeyType::RSA, Mechanism::Sha256RsaPkcs, &INPUT[..]),
        other => panic!("expected ES256 or RS256, got {other}"),
    };
    let wanted = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(kind),
    ];
    let key = session.find_objects(&wanted).unwrap()[0];
    while meter.goes_on() {
        session.sign(&mechanism, key, data).unwrap();
        meter.count();
    }
}

/// Counts for as long as a rate takes; what comes while all warms up is not
/// counted.
struct Meter {
    from: Instant,
    counted: AtomicU64,
}

impl Meter {
    fn start() -> Self {
        Self {
            from: Instant::now() + TIME / 10,
            counted: AtomicU64::new(0),
        }
    }

    fn goes_on(&self) -> bool {
        self.from.elapsed() < TIME && self.counted.load(Ordering::Relaxed) < MOST
    }

    fn count(&self) {
        if Instant::now() >= self.from {
            self.counted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rate(&self) -> f64 {
        self.counted.load(Ordering::Relaxed) as f64 / self.from.elapsed().as_secs_f64()
    }
}
