//! The audience: whoever gets a token shows it to every verifier, at once,
//! later, and as late as it may be taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealkeeper::time::Time;
use tokio::sync::mpsc::UnboundedReceiver;

use super::verifiers::{Show, Verdict, Verifiers};
use super::{LATEST, Scene, World, now, ticks};
use crate::simulation::random::Random;

/// A token that a caller got.
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) kid: String,
    pub(super) received: Time,
    /// By the agent's clock.
    pub(super) expires: Time,
}

/// What verifiers said.
#[derive(Clone, Default, Debug)]
pub(super) struct Found {
    /// By the kind of the verifier.
    pub(super) verdicts: BTreeMap<&'static str, usize>,
    /// Of tokens that were over when the verifier came to it.
    pub(super) late: usize,
    /// From verifiers that had no set, for the origin was slow.
    pub(super) without_set: usize,
    /// By the kind and the moment: how many, and one of them.
    pub(super) faults: BTreeMap<(&'static str, &'static str), (usize, String)>,
}

impl Found {
    pub(super) fn faults_of(&self, kind: &str) -> usize {
        let of_it = self.faults.iter().filter(|((by, _), _)| *by == kind);
        of_it.map(|(_, (count, _))| count).sum()
    }
}

struct Audience {
    scene: Arc<Scene>,
    verifiers: Verifiers,
    random: Random,
    issued: Vec<Issued>,
    /// Tokens that are shown again, and when.
    again: Vec<(usize, Time)>,
    /// Tokens that are shown at their end.
    ending: Vec<usize>,
}

/// Shows what callers get until they are done and the last token is over.
pub(super) async fn watch(
    scene: Arc<Scene>,
    verifiers: Verifiers,
    world: World,
    mut tokens: UnboundedReceiver<Issued>,
) {
    let mut audience = Audience {
        scene,
        verifiers,
        random: Random::new(world.seed),
        issued: Vec::new(),
        again: Vec::new(),
        ending: Vec::new(),
    };
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        while let Ok(token) = tokens.try_recv() {
            audience.take(token);
        }
        audience.show_what_is_due();
        for verdict in audience.verifiers.verdicts() {
            audience.judge(verdict);
        }
        if audience.is_over() && !audience.scene.calling.load(Ordering::Relaxed) {
            return;
        }
    }
}

impl Audience {
    fn take(&mut self, token: Issued) {
        let n = self.issued.len();
        self.scene.signed(&token.kid, token.received);
        let (first, last) = (token.received, token.expires.max(token.received));
        let some = self.random.between(first.as_millis(), last.as_millis());
        self.again.push((n, Time::from_millis(some)));
        self.ending.push(n);
        self.issued.push(token);
        self.show(n, "at issue");
    }

    fn show_what_is_due(&mut self) {
        let now = now();
        let (due, later) = self.again.iter().partition(|(_, at)| *at <= now);
        self.again = later;
        let due: Vec<(usize, Time)> = due;
        for (n, _) in due {
            self.show(n, "at some time");
        }
        let agent = self.scene.clock.lock().unwrap().furthest(now);
        let over = |n: &usize| agent >= self.issued[*n].expires + LATEST;
        let (due, later): (Vec<usize>, Vec<usize>) = self.ending.iter().partition(|n| over(n));
        self.ending = later;
        for n in due {
            self.show(n, "at its end by a clock behind");
        }
    }

    fn show(&mut self, token: usize, moment: &'static str) {
        let text = &self.issued[token].token;
        self.verifiers.show(Show { token, moment }, text);
    }

    fn judge(&mut self, verdict: Verdict) {
        let Verdict { show, by, at, said } = verdict;
        let token = &self.issued[show.token];
        let agent = self.scene.clock.lock().unwrap().furthest(at);
        let mut found = self.scene.found.lock().unwrap();
        *found.verdicts.entry(by).or_default() += 1;
        if said == "ok" {
            return;
        }
        if said.starts_with("no set") {
            found.without_set += 1;
        } else if agent >= token.expires + super::SKEW {
            found.late += 1;
        } else {
            let why = format!(
                "{said}: {} received at {}, expires at {}, shown at {at}",
                token.kid, token.received, token.expires
            );
            let fault = found.faults.entry((by, show.moment)).or_insert((0, why));
            fault.0 += 1;
        }
    }

    fn is_over(&self) -> bool {
        self.again.is_empty() && self.ending.is_empty() && self.verifiers.is_idle()
    }
}
