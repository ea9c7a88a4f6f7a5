//! The token without the agent: threads that sign, each on a session of its
//! own, and verify where asked to. In a process of its own, whose environment
//! the module reads.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use sealkeeper::jose::{Jwk, Verifier};
use serde::{Deserialize, Serialize};

use super::live::lab::{self, Lab};
use super::load::{Figure, Window};
use super::machine::cpu;

/// The first argument of such a process.
pub(crate) const MODE: &str = "bare";

/// About as long as the signing input of such a token.
const INPUT: [u8; 320] = [b'a'; 320];

/// A key, as the token and as verifiers know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) alg: String,
    /// `CKA_ID`, in hex.
    pub(crate) id: String,
    pub(crate) jwk: serde_json::Value,
}

/// What such a process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bare {
    pub(crate) module: PathBuf,
    /// Beside where the token is.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) key: Key,
    pub(crate) threads: usize,
    pub(crate) verify: bool,
    pub(crate) span: Duration,
}

impl Bare {
    /// Signs with a key of SoftHSM and does nothing else.
    pub(crate) fn signing(key: &Key, threads: usize, span: Duration) -> Self {
        Self {
            module: lab::softhsm_module(),
            env: Vec::new(),
            key: key.clone(),
            threads,
            verify: false,
            span,
        }
    }

    pub(crate) fn verifying(self) -> Self {
        Self {
            verify: true,
            ..self
        }
    }

    /// To its end. Nobody else has anything to do meanwhile.
    pub(crate) fn run(&self, lab: &Lab) -> Figure {
        self.start(lab).figure()
    }

    /// The same in several processes at a time, all their signatures together.
    pub(crate) fn run_in(&self, processes: usize, lab: &Lab) -> f64 {
        let all: Vec<Process> = (0..processes).map(|_| self.start(lab)).collect();
        let all: Vec<Process> = all.into_iter().map(Process::begin).collect();
        all.into_iter().map(|one| one.figure().per_second).sum()
    }

    /// Until it is logged in: SoftHSM shows no token to one of several
    /// processes that look for it at the same time.
    fn start(&self, lab: &Lab) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(MODE)
            .arg(serde_json::to_string(self).unwrap())
            .env("SOFTHSM2_CONF", lab.path("softhsm2.conf"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), READY, "the bare loop failed");
        Process { child, output }
    }
}

/// What a process says once it may begin; it begins when its input ends.
const READY: &str = "ready";

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn begin(mut self) -> Self {
        drop(self.child.stdin.take());
        self
    }

    fn figure(self) -> Figure {
        let Self { mut child, output } = self.begin();
        let figure = serde_json::from_reader(output).unwrap();
        assert!(child.wait().unwrap().success(), "the bare loop failed");
        figure
    }
}

/// What such a process does.
pub(crate) fn run(args: &[String]) {
    let bare: Bare = serde_json::from_str(&args[0]).unwrap();
    let pkcs11 = Pkcs11::new(&bare.module).unwrap();
    let locking = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    pkcs11.initialize(locking).unwrap();
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

    let sessions: Vec<Session> = (0..bare.threads)
        .map(|_| pkcs11.open_ro_session(slot).unwrap())
        .collect();
    println!("{READY}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let window = Window::of(bare.span);
    let mut took = Vec::new();
    let this = [std::process::id()];
    let mut used = Duration::ZERO;
    thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .into_iter()
            .map(|session| scope.spawn(|| sign(session, &bare, window)))
            .collect();
        until(window.from);
        let before = cpu(&this);
        until(window.until);
        used = cpu(&this) - before;
        for thread in threads {
            took.extend(thread.join().unwrap());
        }
    });
    let n = took.len() as f64;
    let mut figure = Figure::new(took, 1, bare.span);
    figure.cpu_us = vec![used.as_secs_f64() * 1e6 / n];
    println!("{}", serde_json::to_string(&figure).unwrap());
}

fn until(instant: Instant) {
    while let Some(left) = instant.checked_duration_since(Instant::now())
        && !left.is_zero()
    {
        thread::sleep(left);
    }
}

/// How long each signature took that ended in time.
fn sign(session: Session, bare: &Bare, window: Window) -> Vec<Duration> {
    let jwk = Jwk::from_json(&serde_json::to_vec(&bare.key.jwk).unwrap()).unwrap();
    let verifier = Verifier::new(jwk.algorithm, &jwk.key).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &INPUT);
    let (mechanism, data) = match bare.key.alg.as_str() {
        // Few tokens hash for ECDSA; the agent does, too.
        "ES256" => (Mechanism::Ecdsa, digest.as_ref()),
        "RS256" => (Mechanism::Sha256RsaPkcs, &INPUT[..]),
        "Ed25519" => {
            let pure = EddsaParams::new(EddsaSignatureScheme::Pure);
            (Mechanism::Eddsa(pure), &INPUT[..])
        }
        other => panic!("expected ES256, RS256 or Ed25519, got {other}"),
    };
    let id = |n: usize| u8::from_str_radix(&bare.key.id[2 * n..2 * n + 2], 16).unwrap();
    let wanted = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Id((0..bare.key.id.len() / 2).map(id).collect()),
    ];
    let key = session.find_objects(&wanted).unwrap()[0];
    let mut took = Vec::new();
    while window.is_open() {
        let asked = Instant::now();
        let signature = session.sign(&mechanism, key, data).unwrap();
        if bare.verify {
            verifier.verify(&INPUT, &signature).unwrap();
        }
        let answered = Instant::now();
        if window.counts(answered) {
            took.push(answered - asked);
        }
    }
    took
}
