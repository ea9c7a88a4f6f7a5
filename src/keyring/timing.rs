//! The numbers of a schedule, and the inequalities that they must keep among
//! themselves before any key is made.

use serde::{Deserialize, Serialize};

use super::rules;
use super::window::Window;
use crate::time::{Span, Time};

/// The numbers that an operator chooses for a key set. The letters in brackets
/// are those of the inequalities in [`rules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// How long a key is active, at most.
    pub rotate_every: Span,
    /// When rotations are preferred; then a key is active for as long as its
    /// last window within `rotate_every` allows.
    pub window: Option<Window>,
    /// Greatest age of a JWKS in any bounded verifier's cache \[C\].
    pub verifier_cache: Span,
    /// Time for a published set to reach every place that serves it \[P\].
    pub propagation: Span,
    /// Clock skew and leeway between any two machines \[S\].
    pub skew: Span,
    /// Longest life of a token \[L\].
    pub max_token_lifetime: Span,
    /// How long the private half of a retiring key stays usable for a rollback
    /// \[B\].
    pub rollback_window: Span,
    /// Time for every replica to adopt a new view; one that could not confirm
    /// by then stops signing \[R\].
    pub adoption: Span,
    /// Longest time that a signing request may be in flight \[Q\].
    pub signing_deadline: Span,
    /// `max-age` of the JWKS.
    pub max_age: Span,
    /// How much longer a CDN in front may serve a set (`stale-while-revalidate`
    /// and the like).
    pub cdn_stale: Span,
    /// Longest gap at a start that is taken for downtime without a second
    /// source of time.
    pub max_gap: Span,
    /// How late a rotation may be before it is more than an alert.
    pub hard_limit: HardLimit,
}

/// What happens when a rotation is very late. None of them activates a key
/// that verifiers may not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HardLimit {
    /// The old key signs on; whoever is on call is paged from this lateness.
    Page(Span),
    /// Signing stops at this lateness: for operators who prefer an outage to
    /// a key that is too old.
    Stop(Span),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            rotate_every: Span::from_days(90),
            window: None,
            verifier_cache: Span::from_hours(24),
            propagation: Span::from_mins(5),
            skew: Span::from_mins(5),
            max_token_lifetime: Span::from_hours(1),
            rollback_window: Span::from_hours(24),
            adoption: Span::from_secs(30),
            signing_deadline: Span::from_secs(5),
            max_age: Span::from_mins(5),
            cdn_stale: Span::ZERO,
            max_gap: Span::from_days(7),
            hard_limit: HardLimit::Page(Span::from_days(7)),
        }
    }
}

/// The most keys of one algorithm that a JWKS may have to hold. Verifiers
/// bound the documents that they read, and some try each key in turn.
pub const LARGEST_SET: usize = 12;

impl Timing {
    /// From the first sighting at the last origin to the earliest activation:
    /// P + C + S.
    #[must_use]
    pub fn pre_publish(&self) -> Span {
        self.propagation + self.verifier_cache + self.skew
    }

    /// How often an origin is asked: several times within P, so that the wait
    /// that starts with a sighting starts soon.
    #[must_use]
    pub fn look_every(&self) -> Span {
        let several = self.propagation.divided_by(4);
        several.clamp(Span::from_millis(50), Span::from_secs(30))
    }

    /// How long an origin may be silent, or nobody may ask it, before what it
    /// showed counts no more: P, or several looks.
    #[must_use]
    pub fn patience(&self) -> Span {
        self.propagation.max(self.look_every().times(4))
    }

    /// The shortest time from one rotation to the next that the schedule
    /// brings about: a window may come up to its longest gap early.
    #[must_use]
    pub fn shortest_period(&self) -> Span {
        let early = self
            .window
            .map_or(Span::ZERO, |window| window.longest_gap());
        (Time::default() + self.rotate_every).since(Time::default() + early)
    }

    /// How long after an activation the predecessor may still finish a
    /// signature: R + Q.
    #[must_use]
    pub fn handover(&self) -> Span {
        self.adoption + self.signing_deadline
    }

    /// How far ahead of its need an `exp_ceiling` is raised. Coarse, so that
    /// raising it costs a write now and then and not one for each signature;
    /// at most half the pre-publication, so that it stays within what
    /// [`rules::rule_6_set_size`] allows for.
    #[must_use]
    pub fn ceiling_step(&self) -> Span {
        self.max_token_lifetime
            .min(self.pre_publish())
            .divided_by(2)
            .max(Span::from_millis(500))
    }

    /// Every inequality that these numbers break; none for a schedule that
    /// may be loaded.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut found = self.too_short();
        let mut require = |holds: bool, rule, field, message: String, hint: &str| {
            if !holds {
                found.push(Violation {
                    rule,
                    field,
                    message,
                    hint: hint.to_owned(),
                });
            }
        };
        let period = self.shortest_period();
        let early = self.window.map_or_else(String::new, |window| {
            let gap = window.longest_gap();
            match period {
                Span::ZERO => {
                    format!(": the window may come {gap} early, and leaves no period at all")
                }
                _ => format!(" less {gap}, by which a window may come early, = {period}"),
            }
        });
        let standby = self.pre_publish() + self.adoption.times(3);
        require(
            period > standby,
            "rule_1_pre_publish",
            "rotate_every",
            format!(
                "expected more than propagation {} + verifier_cache {} + skew {} + 3 x adoption {} = {standby}, got {}{early}",
                self.propagation, self.verifier_cache, self.skew, self.adoption, self.rotate_every
            ),
            match self.window {
                None => {
                    "the next key must reach every verifier while the present one is active: rotate more rarely, or bound the verifiers' caches more tightly"
                }
                Some(_) => {
                    "the next key must reach every verifier while the present one is active: rotate more rarely, give a window that comes more often, or bound the verifiers' caches more tightly"
                }
            },
        );
        require(
            self.handover() <= self.pre_publish(),
            "rule_2_last_use",
            "adoption",
            format!(
                "expected adoption {} + signing_deadline {} = {} to be at most propagation + verifier_cache + skew = {}",
                self.adoption,
                self.signing_deadline,
                self.handover(),
                self.pre_publish()
            ),
            "a handover longer than the wait before it would keep more keys published than the set is sized for",
        );
        require(
            rules::rule_7_cache_bound(self),
            "rule_7_cache_bound",
            "verifier_cache",
            format!(
                "expected at least max_age {} + cdn_stale {} = {}, got {}",
                self.max_age,
                self.cdn_stale,
                self.max_age + self.cdn_stale,
                self.verifier_cache
            ),
            "verifiers may keep the set for as long as its headers allow: lower max_age, or raise verifier_cache",
        );
        // Without a period there is no size: rule 1 says why above.
        let size =
            (period > Span::ZERO).then(|| rules::rule_6_set_size(self.max_token_lifetime, self));
        require(
            size.is_none_or(|size| size <= LARGEST_SET),
            "rule_6_set_size",
            "rotate_every",
            format!(
                "expected at most {LARGEST_SET} keys of one algorithm, got ceil((max_token_lifetime {} + rollback_window {} + skew {} + pre-publication {}) / rotate_every {}{early}) + 2 = {}",
                self.max_token_lifetime,
                self.rollback_window,
                self.skew,
                self.pre_publish(),
                self.rotate_every,
                size.unwrap_or_default()
            ),
            "rotate more rarely, or shorten max_token_lifetime or rollback_window",
        );
        require(
            self.max_gap > self.skew,
            "exception_clock",
            "max_gap",
            format!(
                "expected more than skew {}, got {}",
                self.skew, self.max_gap
            ),
            "each start would need its time confirmed by hand",
        );
        found
    }

    /// The numbers below which an agent does not work, whatever the rules say:
    /// it would doubt its own clock, or refuse what it is asked.
    ///
    /// No others have such a bound. Without `propagation`, `verifier_cache`,
    /// `max_age` and `cdn_stale` nobody caches; without a `rollback_window`
    /// nobody goes back; and a hard limit of nothing begins where lateness
    /// does, after the handover.
    fn too_short(&self) -> Vec<Violation> {
        let ms = Span::from_millis;
        let least = [
            (
                "max_token_lifetime",
                self.max_token_lifetime,
                Span::from_secs(1),
                "rule_3_overlap",
                "JWT dates are whole seconds",
            ),
            (
                "rotate_every",
                self.rotate_every,
                Span::from_secs(1),
                "rule_1_pre_publish",
                "each rotation makes a key pair on the device and stores the record several times",
            ),
            (
                // The two clocks are read one after the other, each in whole
                // milliseconds: between them lies a slice of the scheduler.
                "skew",
                self.skew,
                ms(10),
                "exception_clock",
                "the agent would soon doubt its own clock: two readings of it differ by some milliseconds, and two machines by more",
            ),
            (
                "adoption",
                self.adoption,
                ms(50),
                "rule_2_last_use",
                "a change of the record is synced to disk before anybody adopts it",
            ),
            (
                "signing_deadline",
                self.signing_deadline,
                ms(50),
                "rule_2_last_use",
                "each signature waits for the device and for a line synced to disk; nothing would be signed in time",
            ),
            (
                // The record's own time is stored again after an eighth of
                // it, at the writer's next heartbeat.
                "max_gap",
                self.max_gap,
                Span::from_secs(30),
                "exception_clock",
                "a restart takes some seconds, and each would need its time confirmed by hand",
            ),
        ];
        let below = least
            .into_iter()
            .filter(|(_, given, least, ..)| given < least);
        below
            .map(|(field, given, least, rule, hint)| Violation {
                rule,
                field,
                message: format!("expected at least {least}, got {given}"),
                hint: hint.to_owned(),
            })
            .collect()
    }
}

/// An inequality that a configuration breaks, with the numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({rule})")]
pub struct Violation {
    /// The function in [`rules`] that holds it.
    pub rule: &'static str,
    /// The field to look at first, as in the configuration.
    pub field: &'static str,
    /// What was expected and what was given.
    pub message: String,
    /// What to change.
    pub hint: String,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_defaults_hold() {
        assert_eq!(Timing::default().check(), []);
    }

    #[test]
    fn each_broken_inequality_is_named_with_its_numbers() {
        let good = Timing::default();
        let broken = [
            (
                Timing {
                    rotate_every: Span::from_hours(24),
                    ..good
                },
                "rule_1_pre_publish",
                "1day 11m 30s",
            ),
            (
                Timing {
                    adoption: Span::from_hours(25),
                    ..good
                },
                "rule_2_last_use",
                "1day 1h 5s",
            ),
            (
                Timing {
                    max_token_lifetime: Span::ZERO,
                    ..good
                },
                "rule_3_overlap",
                "1s",
            ),
            (
                Timing {
                    max_token_lifetime: Span::from_days(1000),
                    ..good
                },
                "rule_6_set_size",
                "= 14",
            ),
            (
                Timing {
                    rotate_every: Span::from_days(7),
                    max_token_lifetime: Span::from_days(2),
                    window: "Mon..Wed,Fri 02:00-05:00 UTC".parse().ok(),
                    verifier_cache: Span::from_days(4),
                    ..good
                },
                "rule_1_pre_publish",
                "got 7days less 3days, by which a window may come early, = 4days",
            ),
            (
                Timing {
                    max_age: Span::from_hours(25),
                    ..good
                },
                "rule_7_cache_bound",
                "1day 1h",
            ),
            (
                Timing {
                    cdn_stale: Span::from_hours(24),
                    ..good
                },
                "rule_7_cache_bound",
                "1day 5m",
            ),
            (
                Timing {
                    max_gap: Span::from_mins(1),
                    ..good
                },
                "exception_clock",
                "5m",
            ),
        ];
        for (timing, rule, number) in broken {
            let found = timing.check();
            assert_eq!(found.len(), 1, "{rule}: {found:?}");
            assert_eq!(found[0].rule, rule);
            assert!(
                found[0].message.contains(number),
                "{rule}: {}",
                found[0].message
            );
        }
    }

    /// A schedule of seconds.
    fn quick() -> Timing {
        Timing {
            rotate_every: Span::from_secs(10),
            verifier_cache: Span::from_secs(2),
            propagation: Span::from_millis(200),
            skew: Span::from_millis(500),
            max_token_lifetime: Span::from_secs(5),
            rollback_window: Span::from_secs(2),
            adoption: Span::from_millis(300),
            signing_deadline: Span::from_secs(2),
            max_age: Span::from_secs(1),
            ..Timing::default()
        }
    }

    #[test]
    fn a_schedule_of_seconds_holds_too() {
        assert_eq!(quick().check(), []);
    }

    /// Found by review: schedules with which nothing is signed, or with which
    /// the clock is soon in doubt, were good.
    #[test]
    fn a_number_with_which_nothing_works_is_too_short() {
        // So short that everything else is kept at each bound.
        let least = Timing {
            rotate_every: Span::from_secs(1),
            window: None,
            verifier_cache: Span::from_millis(100),
            propagation: Span::ZERO,
            skew: Span::from_millis(10),
            max_token_lifetime: Span::from_secs(1),
            rollback_window: Span::ZERO,
            adoption: Span::from_millis(50),
            signing_deadline: Span::from_millis(50),
            max_age: Span::ZERO,
            cdn_stale: Span::ZERO,
            max_gap: Span::from_secs(30),
            hard_limit: HardLimit::Stop(Span::ZERO),
        };
        assert_eq!(least.check(), []);
        type Number = fn(&mut Timing) -> &mut Span;
        let numbers: [(&str, Number); 6] = [
            ("rotate_every", |t| &mut t.rotate_every),
            ("skew", |t| &mut t.skew),
            ("max_token_lifetime", |t| &mut t.max_token_lifetime),
            ("adoption", |t| &mut t.adoption),
            ("signing_deadline", |t| &mut t.signing_deadline),
            ("max_gap", |t| &mut t.max_gap),
        ];
        for (field, number) in numbers {
            let mut short = least;
            let at_least = *number(&mut short);
            let less = Span::from(at_least.to_duration() - Duration::from_millis(1));
            *number(&mut short) = less;
            let found = short.check();
            assert_eq!(found.len(), 1, "{field}: {found:?}");
            assert_eq!(found[0].field, field);
            let message = format!("expected at least {at_least}, got {less}");
            assert_eq!(found[0].message, message);
        }
    }
}
