//! What a verifier may say of a token, and why.

use std::rc::Rc;

use sealkeeper::keyring::Key;
use sealkeeper::time::{Span, Time};

use super::Population;
use super::cache::{Copy, Verdict, Verifier};
use super::kinds::Promise;
use super::past::Lack;
use crate::simulation::world::World;

impl World {
    pub(super) fn judge_verdict(&mut self, client: usize, kid: &str, at: Time, verdict: &Verdict) {
        let revoked = self.ledger.revoked.get(kid).filter(|since| **since <= at);
        if revoked.is_some() {
            let figures = &mut self.population.clients[client].figures;
            figures.trusted += u64::from(verdict.accepted);
            figures.distrusted += u64::from(!verdict.accepted);
        }
        let judged = match (verdict.accepted, revoked) {
            (true, None) => return,
            (false, Some(_)) => Ok("verifier: refused what was revoked"),
            (true, Some(since)) => self.population.trusts(client, kid, *since, at, verdict),
            (false, None) => {
                let excused = self.ledger.excused.contains(kid);
                self.population.refuses(client, kid, excused, at, verdict)
            }
        };
        match (judged, &mut self.population.breaches) {
            (Ok(what), _) => self.totals.count(what),
            (Err(why), Some(breaches)) => {
                let kind = self.population.clients[client].kind.name;
                *breaches.entry((why, kind)).or_default() += 1;
            }
            (Err(why), None) => panic!(
                "{why}: {kid} at {} by {}, {verdict:?}",
                at.as_millis(),
                self.population.clients[client].told()
            ),
        }
    }
}

impl World {
    /// Rule 5: at rest, a key that was made after it has signed since each
    /// revocation. Whoever asks only at unknown keys, and meets that one,
    /// trusts the revoked key no more.
    pub(crate) fn invariant_forgotten(&mut self) {
        self.verifiers();
        let record = Rc::clone(&self.store.record);
        let revoked = self.ledger.revoked.clone();
        let keys = record.seats.values().filter_map(|seat| seat.active);
        let active: Vec<&Key> = keys.filter_map(|id| record.keys.get(&id)).collect();
        for key in &active {
            let mine = record.keys.values().filter(|old| old.seat() == key.seat());
            for ended in mine.filter_map(|old| old.kid.as_ref()) {
                assert!(
                    !revoked.contains_key(ended) || self.population.followed.contains(ended),
                    "no key signed that was made after {ended} was revoked"
                );
            }
        }
        for client in 0..self.population.clients.len() {
            if self.population.clients[client].kind.promise == Promise::UntilItMeets {
                let meets = active.iter().filter_map(|key| key.kid.as_ref());
                for kid in meets.chain(revoked.keys()) {
                    let verdict = self.population.meets(client, kid, self.now);
                    self.judge_verdict(client, kid, self.now, &verdict);
                }
            }
        }
    }
}

impl Population {
    /// A good token was refused.
    fn refuses(
        &self,
        client: usize,
        kid: &str,
        excused: bool,
        at: Time,
        verdict: &Verdict,
    ) -> Result<&'static str, &'static str> {
        let client = &self.clients[client];
        let past = &self.pasts[client.origin];
        let dead = verdict.unanswered && past.is_dead(at);
        let Some(copy) = &verdict.by else {
            return match excused {
                _ if dead => Ok("verifier: refused, its origin was dead"),
                true => Ok("verifier: refused, its origin had nothing yet"),
                false => Err("a verifier cannot check a token: its origin has nothing"),
            };
        };
        if self.is_too_old(client, copy, at) {
            return match client.kind.promise {
                _ if client.kind.stale_on_error && dead => {
                    Ok("verifier: refused, with an old set of an origin that is dead")
                }
                Promise::Bounded | Promise::OnceMore if !client.fits(&self.truth) => {
                    Ok("verifier: refused, keeps sets for longer than the plan")
                }
                Promise::UntilItMeets if dead => Ok("verifier: refused, its origin was dead"),
                Promise::OnceMore if self.slept(client, copy, verdict) => {
                    Ok("verifier: refused, woke with an old set")
                }
                _ => Err("a verifier cannot check a token, by a set that is too old"),
            };
        }
        match past.lack(kid, copy.as_of) {
            Lack::WentBack => Ok("verifier: refused, its origin went back"),
            Lack::NotYet if excused => Ok("verifier: refused, nobody waited for it"),
            Lack::NotYet => Err("a verifier cannot check a token: its key was not there yet"),
            Lack::Removed => Err("a verifier cannot check a token: its key was there no more"),
        }
    }

    /// A token of a revoked key was taken.
    fn trusts(
        &self,
        client: usize,
        kid: &str,
        revoked: Time,
        at: Time,
        verdict: &Verdict,
    ) -> Result<&'static str, &'static str> {
        let client = &self.clients[client];
        let copy = verdict.by.as_ref().expect("it takes nothing on no grounds");
        if copy.kids.iter().any(|met| self.is_fresh(met, kid)) {
            return Err("a verifier met a key of after the revocation, and trusts the revoked one");
        }
        let Some(answered) = self.answered.get(kid) else {
            return Ok("verifier: trusted what was revoked, and nobody was told");
        };
        if at <= *answered {
            return Ok("verifier: trusted what was revoked, for as long as was told");
        }
        if copy.as_of >= revoked {
            return Ok("verifier: trusted what was revoked, its origin showed it on");
        }
        let past = &self.pasts[client.origin];
        let dead = verdict.unanswered && past.is_dead(at);
        match client.kind.promise {
            _ if !self.is_too_old(client, copy, at) => {
                Err("a verifier trusts a revoked key for longer than the operator was told")
            }
            _ if client.kind.stale_on_error && dead => {
                Ok("verifier: trusted what was revoked, its origin was dead")
            }
            Promise::Bounded | Promise::OnceMore if !client.fits(&self.truth) => {
                Ok("verifier: trusted what was revoked, keeps sets for longer than the plan")
            }
            Promise::UntilItMeets => Ok("verifier: trusted what was revoked, has met no later key"),
            Promise::OnceMore if self.slept(client, copy, verdict) => {
                Ok("verifier: trusted what was revoked, woke with an old set")
            }
            Promise::Bounded | Promise::OnceMore => {
                Err("a verifier trusts a revoked key, by a set that is too old")
            }
        }
    }

    /// Whether no token came, or nobody answered, since the set was to be
    /// renewed.
    fn slept(&self, client: &Verifier, copy: &Copy, verdict: &Verdict) -> bool {
        let due = client.due(copy);
        let in_vain = |before| self.pasts[client.origin].is_dead(before);
        let awake = |before| due.is_some_and(|due| due <= before) && !in_vain(before);
        !verdict.before.is_some_and(awake)
    }

    /// Whether a set is older than any that a bounded verifier uses.
    fn is_too_old(&self, client: &Verifier, copy: &Copy, at: Time) -> bool {
        at.since(copy.as_of) > client.most(copy.as_of, &self.truth)
    }
}

impl Verifier {
    /// For a message.
    fn told(&self) -> String {
        let bound = self.oldest.unwrap_or(Span::ZERO);
        format!(
            "{} at origin {}, {} behind, copies up to {}, sets up to {bound} (0: ever)",
            self.kind.name, self.origin, self.lag, self.cdn
        )
    }
}
