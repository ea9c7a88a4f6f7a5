//! Somebody else's verifiers, as processes: npm `jose` and PyJWT, several of
//! each, whose caches are filled one after the other, so that at each instant
//! some set is about as old as it may be; and for each question one that has
//! just started, and has the newest.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use sealkeeper::time::{Span, Time};
use serde_json::{Value, json};

use super::edge::Edge;
use super::{CACHE, SKEW, World};

/// Of each kind, at edges that are behind by as much as may be.
const LATE: u8 = 5;
/// How long a verifier waits for an answer. A set that took longer would be
/// older than it thinks: it has none then, and says so.
const PATIENCE_MS: i64 = 300;

pub(super) struct Verifiers {
    kinds: Vec<Kind>,
    began: Instant,
    asked: u64,
    /// What each question was about that not all have answered.
    open: BTreeMap<u64, (Show, usize)>,
}

/// One process.
struct Kind {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<Value>,
}

/// A token that is shown, and at which moment of its life.
#[derive(Clone)]
pub(super) struct Show {
    pub(super) token: usize,
    pub(super) moment: &'static str,
}

/// What one verifier said.
pub(super) struct Verdict {
    pub(super) show: Show,
    pub(super) by: &'static str,
    /// When it was done.
    pub(super) at: Time,
    pub(super) said: String,
}

impl Verifiers {
    pub(super) fn start(edge: &Edge, world: &World) -> Self {
        // They cut the time to whole seconds: of an agent that is ahead by S
        // they may be behind by a second more.
        let leeway = SKEW.max(world.step) + Span::from_secs(1);
        let asked = json!({
            "urls": vec![edge.behind(world.lag); usize::from(LATE)],
            "newcomer": edge.behind(Span::ZERO),
            "cache_ms": CACHE.as_millis(),
            "leeway_s": f64::from(u32::try_from(leeway.as_millis()).unwrap()) / 1000.0,
            "patience_ms": PATIENCE_MS,
            "issuer": "https://lab.example",
        });
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/fifty_rotations");
        let mut pyjwt = Command::new("/usr/bin/python3");
        pyjwt.arg(here.join("pyjwt.py"));
        let mut kinds = vec![Kind::start("PyJWT", pyjwt, &asked)];
        // Installed by scripts/test, outside of the clone.
        if let Some(folder) = std::env::var_os("SEALKEEPER_JOSE") {
            let program = std::fs::read_to_string(here.join("jose.mjs")).unwrap();
            let mut jose = Command::new("node");
            // A program that is no file finds its packages where it runs.
            jose.args(["--input-type=module", "--eval", &program]);
            jose.current_dir(folder);
            kinds.push(Kind::start("jose", jose, &asked));
        } else {
            eprintln!("skipped: SEALKEEPER_JOSE names no folder with npm jose");
        }
        Self {
            kinds,
            began: Instant::now(),
            asked: 0,
            open: BTreeMap::new(),
        }
    }

    pub(super) fn kinds(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.name).collect()
    }

    /// Shows a token to all.
    pub(super) fn show(&mut self, show: Show, token: &str) {
        // The caches are filled in turn.
        let share = CACHE.to_duration() / u32::from(LATE);
        let turns = self.began.elapsed().as_millis() / share.as_millis();
        let open = usize::try_from(turns).unwrap().min(usize::from(LATE));
        self.asked += 1;
        let question = json!({"id": self.asked, "token": token, "open": open});
        for kind in &mut self.kinds {
            let sent = writeln!(kind.stdin, "{question}");
            sent.unwrap_or_else(|e| panic!("{} is gone: {e}", kind.name));
        }
        self.open.insert(self.asked, (show, self.kinds.len()));
    }

    /// Whether every question was answered.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// What was said since the last time.
    pub(super) fn verdicts(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for kind in &mut self.kinds {
            while let Ok(answer) = kind.answers.try_recv() {
                let id = answer["id"].as_u64().unwrap();
                let (show, answers) = self.open.get_mut(&id).unwrap();
                for said in answer["said"].as_array().unwrap() {
                    verdicts.push(Verdict {
                        show: show.clone(),
                        by: kind.name,
                        at: Time::from_millis(answer["at"].as_i64().unwrap()),
                        said: said.as_str().unwrap().to_owned(),
                    });
                }
                *answers -= 1;
                if *answers == 0 {
                    self.open.remove(&id);
                }
            }
            let ended = kind.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {ended:?}", kind.name);
        }
        verdicts
    }
}

impl Kind {
    fn start(name: &'static str, mut command: Command, asked: &Value) -> Self {
        let mut child = command
            .env("VERIFIERS", asked.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} is installed by scripts/test: {e}"));
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let answer = serde_json::from_str(&line).unwrap();
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        Self {
            name,
            child,
            stdin,
            answers,
        }
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
