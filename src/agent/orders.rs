//! What operators ask of the writer, and what they are told.

use std::collections::VecDeque;
use std::convert::Infallible;

use tokio::sync::oneshot;

use super::admin::{
    AdminError, AfterRevocation, Change, Changed, KeySetStatus, Order, RevocationReason,
};
use super::impact::Impact;
use super::reader::Blocked;
use super::refusal::refusal;
use super::sentences;
use super::status::{self, Stuck};
use super::writer::{Clock, StepError, Writer};
use crate::clock::Reading;
use crate::keyring::{
    Ending, Event, Half, KeySet, Mandate, OperatorError, Plan, Reason, Task, Then, Tick, Wish,
};
use crate::policy::Caller;
use crate::store::StoreError;
use crate::time::{Span, Time};

/// An order on its way to the writer.
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) order: Order,
    pub(super) reply: oneshot::Sender<Result<Changed, AdminError>>,
    /// Keeps the key that is to be revoked from signing until the writer has
    /// decided.
    pub(super) block: Option<Blocked>,
}

/// The last answers, by request id: an operator's command that is tried again
/// after a lost connection is not carried out twice.
#[derive(Default)]
pub(super) struct Answered(VecDeque<(Order, Changed)>);

/// How many answers are kept.
const REMEMBERED: usize = 128;

impl Answered {
    /// The answer to the same order under the same id; another order under an
    /// id that was used is the caller's mistake.
    fn find(&self, order: &Order) -> Option<Result<Changed, AdminError>> {
        let (before, changed) = self
            .0
            .iter()
            .find(|(o, _)| o.request_id == order.request_id)?;
        if before == order {
            return Some(Ok(changed.clone()));
        }
        Some(Err(AdminError::Refused {
            reason: "REQUEST_ID_USED",
            rule: "request_id".to_owned(),
            why: format!(
                "the request id {:?} was used for another order",
                order.request_id
            ),
            hint: "choose a new request id".to_owned(),
            remaining: None,
        }))
    }

    fn keep(&mut self, order: Order, changed: Changed) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((order, changed));
    }
}

/// What a change did, before it is put into words for the operator.
pub(super) struct Did {
    pub(super) done: Vec<String>,
    pub(super) pending: Vec<String>,
    pub(super) trusted_until: Option<Time>,
    pub(super) impact: Option<Impact>,
    pub(super) durable: bool,
    /// Whether one person did what may want a second one.
    pub(super) alone: bool,
}

impl Did {
    pub(super) fn of(done: &[Event]) -> Self {
        Self {
            done: done.iter().map(sentences::sentence).collect(),
            pending: Vec::new(),
            trusted_until: None,
            impact: None,
            durable: true,
            alone: done.iter().any(Event::is_alone),
        }
    }
}

impl Writer {
    /// Carries an order out and answers it.
    pub(super) async fn answer(&mut self, asked: Asked) {
        let Asked {
            caller,
            order,
            reply,
            block,
        } = asked;
        let answer = match self.answered.find(&order) {
            Some(answer) => answer,
            None => self.carry_out(&caller, &order).await,
        };
        if let Ok(changed) = &answer {
            self.answered.keep(order, changed.clone());
        }
        // What was carried out has blocked the key for good by now.
        drop(block);
        // The operator may have gone; what was done stays done.
        let _ = reply.send(answer);
    }

    pub(super) async fn carry_out(
        &mut self,
        caller: &Caller,
        order: &Order,
    ) -> Result<Changed, AdminError> {
        // A revocation needs no record: what it restricts is in memory.
        let revokes = matches!(order.change, Change::Revoke { .. });
        if self.held.is_none() && !revokes {
            return Err(self.dark());
        }
        // Nor one that is as it was: in the dark nobody can tell.
        let in_the_dark = revokes && (self.held.is_none() || self.dark.is_some());
        let found = self.held.as_ref().map(status::version).unwrap_or_default();
        if let Some(expected) = order
            .expected_version
            .as_ref()
            .filter(|v| !in_the_dark && **v != found)
        {
            return Err(AdminError::Changed {
                expected: expected.clone(),
                found,
            });
        }
        let (change, about) = (order.change.name(), order.change.about());
        // Chosen by who gives the order: quoted, as a key id may be anything.
        tracing::info!(key_set = order.key_set, %caller, change, ?about, "an order");
        let did = self.change(caller, &order.change).await?;
        let alone = did.alone.then(|| caller.to_string());
        if let Some(by) = &alone {
            let change = order.change.name();
            tracing::warn!(key_set = order.key_set, by, change, "{ALONE}");
        }
        Ok(Changed {
            key_set: self
                .status()
                .unwrap_or_else(|_| status::unknown(&self.reader)),
            done: did.done,
            pending: did.pending,
            trusted_until: did.trusted_until,
            durable: did.durable,
            alone,
            impact: did.impact,
        })
    }

    async fn change(&mut self, caller: &Caller, change: &Change) -> Result<Did, AdminError> {
        let by = |note: &str| Mandate {
            by: caller.to_string(),
            note: note.to_owned(),
        };
        Ok(match change {
            Change::Revoke {
                kid,
                reason,
                then,
                note,
            } => {
                let ending = Ending {
                    reason: (*reason).into(),
                    then: then.map(Into::into),
                    at: None,
                    mandate: by(note),
                };
                self.revoke_by(caller, kid, ending).await?
            }
            Change::ConfirmClock { reading, note } => {
                self.confirm_clock(*reading, &by(note)).await?
            }
            Change::Rotate {
                algorithm,
                force,
                note,
            } => {
                let algorithm = algorithm.unwrap_or_else(|| self.default_track());
                if *force {
                    return self.force(caller, algorithm, note).await;
                }
                let mut did = self
                    .ask(|set, plan, tick| set.rotate(algorithm, &by(note), plan, tick))
                    .await?;
                did.pending.extend(self.decided_in(algorithm));
                if did.done.is_empty() {
                    did.pending.push(format!(
                        "no {algorithm} key is active: the next one signs without being asked for, once every verifier can hold it; `sealkeeper keys rotate --force` has it sign earlier"
                    ));
                }
                did
            }
            Change::Approve { request } => self.approve(caller, *request).await?,
            Change::Withdraw { request } => self.withdraw(caller, *request).await?,
            Change::Rollback { kid } => {
                if let Some(asker) = self.asker(caller, "")? {
                    let kid = kid.clone();
                    return self.wish(&asker, &Wish::Rollback { kid }).await;
                }
                self.ask(|set, plan, tick| set.rollback(kid, &by(""), plan, tick))
                    .await?
            }
            Change::Destroy {
                kid,
                end_rollback,
                note,
            } => {
                if let Some(asker) = self.asker(caller, note)? {
                    let wish = Wish::Destroy {
                        kid: kid.clone(),
                        end_rollback: *end_rollback,
                    };
                    return self.wish(&asker, &wish).await;
                }
                self.destroy(kid, *end_rollback, &by(note)).await?
            }
            Change::Hold { kid, note } => self.hold(kid, &by(note)).await?,
            Change::Release { kid } => {
                let mut did = self
                    .ask(|set, _, tick| set.release(kid, &by(""), tick))
                    .await?;
                if did.done.is_empty() {
                    // As a hold of a held key: it is as it was asked for.
                    did.done.push(format!("nothing held the key {kid}"));
                }
                did
            }
            Change::WaiveOrigin { origin, span, note } => {
                if let Some(asker) = self.asker(caller, note)? {
                    let (origin, span) = (origin.clone(), *span);
                    return self.wish(&asker, &Wish::Waive { origin, span }).await;
                }
                self.waive(origin, *span, &by(note)).await?
            }
            Change::RestoreOrigin { origin } => self.restore(origin, &by("")).await?,
        })
    }

    /// What an operator sees.
    pub(super) fn status(&self) -> Result<KeySetStatus, AdminError> {
        let mut held = self
            .held
            .clone()
            .or_else(|| self.last.clone())
            .ok_or_else(|| self.dark())?;
        // A revocation holds, whether or not the store has it yet.
        let owed = self.owed.keys().next().cloned();
        held.record.set = self.less_owed(&held);
        let Reading { wall, boot } = self.context.clock.read();
        let stuck = match (self.guard.doubt_now(wall, boot), owed) {
            (Some(doubt), _) => Some(Stuck::Doubt(doubt)),
            (None, Some(kid)) => Some(Stuck::Owed(kid)),
            (None, None) => None,
        };
        let mut status = status::key_set(&held, &self.reader, &self.context, &self.plan, stuck);
        let dark = self.dark.as_ref().filter(|_| self.held.is_none());
        status.not_in_force = dark.map(ToString::to_string);
        Ok(status.with_unwritten(&self.reader.unwritten()))
    }

    pub(super) fn dark(&self) -> AdminError {
        let (reason, why) = match &self.dark {
            Some(dark) => (dark.reason(), dark.to_string()),
            None => ("LOADING", "the key set is being loaded".to_owned()),
        };
        AdminError::Unavailable {
            reason,
            why,
            retry_after: None,
        }
    }

    /// A change that is a permission: it needs the clock and the store.
    pub(super) async fn ask(
        &mut self,
        change: impl Fn(&mut KeySet, &Plan, &Tick) -> Result<Vec<Event>, OperatorError>,
    ) -> Result<Did, AdminError> {
        let step = self.step(Clock::Sure, |set, plan, tick| {
            change(set, plan, tick).map(|events| (events.clone(), events))
        });
        Ok(Did::of(&step.await.map_err(|e| self.not_done(e))?))
    }

    /// What a hold did, and what it could not keep from happening.
    fn held(&mut self, kid: &str, events: &[Event]) -> Did {
        let mut did = Did::of(events);
        self.keep_half(kid, &mut did);
        let switches = self
            .held
            .as_ref()
            .and_then(|held| held.record.set.switches_at(kid));
        did.pending.extend(switches.map(|at| {
            format!(
                "the change of the active key at {at} is too near to be taken back and goes on: agents may have it already. `sealkeeper keys rollback` goes back after it, once the hold is released"
            )
        }));
        did
    }

    /// What a hold means for a private half whose destruction had begun.
    fn keep_half(&mut self, kid: &str, did: &mut Did) {
        let Some(held) = &self.held else { return };
        let set = &held.record.set;
        let Some(key) = set.by_kid(kid) else { return };
        let mut halves = key.placements.values().peekable();
        if halves.peek().is_some() && halves.all(|half| *half == Half::Destroyed) {
            did.done.push(format!(
                "the private half of {kid} was destroyed before: there is nothing left to keep"
            ));
        }
        for (id, intent) in &set.intents {
            if !matches!(&intent.task, Task::Destroy { key: of, .. } if *of == key.id) {
                continue;
            }
            // It is asked at once, if it is there.
            self.tasks.forget_failures(*id);
            did.pending.push(format!(
                "the destruction of the private half had begun: it is kept unless {} had destroyed it by now, or was doing so at this very moment. The device is asked which: `sealkeeper keys show {kid}` tells",
                intent.task.device()
            ));
        }
    }

    /// Holds a key. That restricts, and so it waits for no clock.
    async fn hold(&mut self, kid: &str, by: &Mandate) -> Result<Did, AdminError> {
        let sure = self.step(Clock::Sure, |set, plan, tick| {
            let held = set.hold(kid, by, plan, tick);
            held.map(|events| (events.clone(), events))
        });
        let doubt = match sure.await {
            Ok(events) => return Ok(self.held(kid, &events)),
            Err(StepError::Doubt(doubt)) => doubt,
            Err(e) => return Err(self.not_done(e)),
        };
        let in_doubt = self.step(Clock::Any, |set, _, tick| {
            let held = set.hold_in_doubt(kid, by, tick);
            held.map(|events| (events.clone(), events))
        });
        let mut did = Did::of(&in_doubt.await.map_err(|e| self.not_done(e))?);
        self.keep_half(kid, &mut did);
        let confirm = status::confirm(&self.reader.name);
        did.pending.push(format!(
            "{doubt}: nothing moves until {confirm}; an activation that this hold forbids is taken back then"
        ));
        Ok(did)
    }

    pub(super) fn not_done(&self, error: StepError<OperatorError>) -> AdminError {
        match error {
            StepError::Keyring(error) => refusal(error),
            StepError::Doubt(_) => AdminError::Refused {
                reason: "CLOCK_IN_DOUBT",
                rule: "exception_clock".to_owned(),
                why: error.to_string(),
                hint: status::how_to_confirm(&self.reader.name),
                remaining: None,
            },
            other => other.into(),
        }
    }

    /// Destroys a private half: for the record at once, in the device as soon
    /// as that can be.
    async fn destroy(
        &mut self,
        kid: &str,
        end_rollback: bool,
        by: &Mandate,
    ) -> Result<Did, AdminError> {
        let mut did = self
            .ask(|set, plan, tick| set.destroy(kid, end_rollback, by, plan, tick))
            .await?;
        let halves = self.held.as_ref().and_then(|held| {
            let key = held.record.set.by_kid(kid)?;
            Some(key.placements.clone())
        });
        let halves = halves.unwrap_or_default();
        if halves.values().all(|half| *half == Half::Destroyed) {
            did.done
                .push(format!("the private half of {kid} is gone already"));
        }
        for (device, _) in halves.iter().filter(|(_, half)| **half == Half::Destroying) {
            did.pending.push(format!(
                "the device {device} is to destroy it, and is asked again until it has: `sealkeeper keys show` tells"
            ));
        }
        Ok(did)
    }

    /// Takes this machine's time for true again.
    async fn confirm_clock(&mut self, reading: Time, by: &Mandate) -> Result<Did, AdminError> {
        let ours = self.context.clock.read();
        let apart = ours.wall.since(reading).max(reading.since(ours.wall));
        if apart > self.plan.timing.skew.max(CONFIRMATION_LATENCY) {
            return Err(AdminError::Refused {
                reason: "CLOCKS_DIFFER",
                rule: "exception_clock".to_owned(),
                why: format!("the agent's clock says {}, yours {reading}", ours.wall),
                hint: "set the agent's clock first (NTP), then confirm".to_owned(),
                remaining: None,
            });
        }
        // The record first: against its later instants the reading would be
        // doubted again.
        let anchor = self.guard.anchor();
        let mut vouched = self.guard.clone();
        vouched.confirm(ours.wall, ours.boot);
        let note = vouched.note(&self.context.clock.boot_id());
        let step = self.step(Clock::Any, |set, plan, tick| {
            let expected = anchor.map_or(set.high_water, |anchor| anchor.expected(ours.boot));
            let events = set.confirm_clock(ours.wall, expected, by, plan);
            set.note_clock(&tick.replica, note.clone());
            Ok::<_, Infallible>((events.clone(), events))
        });
        let events = step.await?;
        self.guard = vouched;
        // A clock that was fast dated these later than now: a dead origin
        // would be taken for one that answers.
        self.live.clear();
        self.origins.clock_moved(ours.wall);
        Ok(Did::of(&events))
    }
}

/// What the log says of it.
const ALONE: &str = "one person did alone what may want a second one: others may look at it";

/// An operator's confirmation takes a moment to arrive.
const CONFIRMATION_LATENCY: Span = Span::from_secs(30);

impl From<RevocationReason> for Reason {
    fn from(reason: RevocationReason) -> Self {
        match reason {
            RevocationReason::Unspecified => Self::Unspecified,
            RevocationReason::Compromised => Self::Compromised,
            RevocationReason::Superseded => Self::Superseded,
        }
    }
}

impl From<AfterRevocation> for Then {
    fn from(then: AfterRevocation) -> Self {
        match then {
            AfterRevocation::Wait => Self::Wait,
            AfterRevocation::Activate => Self::Activate,
        }
    }
}

impl<E: std::fmt::Display> From<StepError<E>> for AdminError {
    fn from(error: StepError<E>) -> Self {
        let reason = match &error {
            StepError::NoRecord => "NOT_INITIALIZED",
            StepError::Doubt(_) => "CLOCK_IN_DOUBT",
            StepError::Store(StoreError::Full { .. }) => "DISK_FULL",
            StepError::Store(_) | StepError::Contended => "STORE_FAILED",
            StepError::Record(_) => "RECORD_UNUSABLE",
            StepError::Keyring(_) => "REFUSED",
        };
        Self::Unavailable {
            reason,
            why: error.to_string(),
            retry_after: None,
        }
    }
}
