//! The signing path: policy, then the device and the record at the same time,
//! then verification, then the question whether the key is still allowed.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Agent;
use super::failpoint::{Effect, Side, hit};
use super::figures::outcome;
use super::history::NoHistory;
use super::reader::Reader;
use super::signing::{Published, SignError, Signed, Signing, TurnedAway};
use super::terms::Terms;
use crate::audit::{self, InputDigest, Verdict};
use crate::hsm::{Device, DeviceError, ObjectId};
use crate::jose::jws;
use crate::keyring::{Moment, SigningKey};
use crate::metrics::{AuditLine, InFlight, KeySetMetrics, Operation, Outcome};
use crate::policy::{self, Caller, CheckError, JwsRequest, JwtRequest, KeyFacts};
use crate::time::Time;

impl Signing for Agent {
    async fn sign_jwt(
        &self,
        caller: &Caller,
        request: JwtRequest,
        deadline: Instant,
    ) -> Result<Signed, SignError> {
        let figures = self.figures_of(&request.key_set);
        let mut counted = figures.begin(Operation::SignJwt);
        let result = self.jwt(caller, request, deadline, &mut counted).await;
        count(figures, counted, &result);
        result
    }

    async fn sign_jws(
        &self,
        caller: &Caller,
        request: JwsRequest,
        deadline: Instant,
    ) -> Result<Signed, SignError> {
        let figures = self.figures_of(&request.key_set);
        let mut counted = figures.begin(Operation::SignJws);
        let result = self.jws(caller, request, deadline, &mut counted).await;
        count(figures, counted, &result);
        result
    }

    fn published(&self, key_set: &str) -> Option<Published> {
        let reader = self.reader(key_set).ok()?;
        reader.published(self.clock().read())
    }

    fn well_known(&self) -> Option<Published> {
        self.published(self.well_known_name()?)
    }

    fn knows(&self, key_set: &str) -> bool {
        match key_set {
            "" => self.well_known_name().is_some(),
            name => self.reader(name).is_ok(),
        }
    }

    fn historical_keys(&self, key_set: &str) -> Option<Result<Published, NoHistory>> {
        self.archived(key_set)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.feel_pulse()
    }

    fn turned_away(&self, key_set: &str, operation: Operation, why: TurnedAway<'_>) {
        let figures = self.figures_of(key_set);
        match why {
            TurnedAway::Overloaded => figures.count(operation, Outcome::Overloaded),
            TurnedAway::Refused(refusal) => {
                figures.count(operation, Outcome::Refused);
                figures.refused(refusal.reason.code(), &refusal.rule);
            }
        }
    }
}

fn count(figures: &KeySetMetrics, request: InFlight<'_>, result: &Result<Signed, SignError>) {
    match result {
        // Whoever asked may do so again: then this was not the end.
        Err(SignError::Overloaded { .. }) => request.uncounted(),
        Err(SignError::Refused(refusal)) => {
            request.end(Outcome::Refused);
            figures.refused(refusal.reason.code(), &refusal.rule);
        }
        result => request.end(outcome(result)),
    }
}

impl Agent {
    async fn jwt(
        &self,
        caller: &Caller,
        request: JwtRequest,
        deadline: Instant,
        counted: &mut InFlight<'_>,
    ) -> Result<Signed, SignError> {
        let reader = self.reader(&request.key_set)?;
        let signers = reader.signers()?;
        let reading = self.clock().read();
        let terms = reader.terms();
        let moment = signers.moment(reading, &terms.timing);
        let key = signers.signer(request.algorithm, moment)?;
        let checked = policy::check_jwt(&terms.rules, caller, &request, &facts(key), moment.time())
            .map_err(check_error)?;
        terms.take_rate(&checked.rule, caller, reading)?;
        let header = jws::Header {
            algorithm: key.algorithm,
            kid: key.kid.clone(),
            typ: checked.typ,
        };
        let allowed = Allowed {
            reader,
            terms: &terms,
            key,
            input: jws::signing_input(&header, &checked.payload),
            exp: checked.exp,
            caller: caller.to_string(),
            moment,
        };
        self.make(allowed, (&checked.rule, caller), deadline, counted)
            .await
    }

    async fn jws(
        &self,
        caller: &Caller,
        request: JwsRequest,
        deadline: Instant,
        counted: &mut InFlight<'_>,
    ) -> Result<Signed, SignError> {
        let reader = self.reader(&request.key_set)?;
        let signers = reader.signers()?;
        let reading = self.clock().read();
        let terms = reader.terms();
        let moment = signers.moment(reading, &terms.timing);
        let nameable = signers.view.nameable(moment)?;
        let facts: Vec<KeyFacts> = nameable.iter().map(|key| facts(key)).collect();
        let checked = policy::check_jws(&terms.rules, caller, &request, &facts, moment.time())
            .map_err(check_error)?;
        terms.take_rate(&checked.rule, caller, reading)?;
        let key = nameable
            .into_iter()
            .find(|key| key.kid == checked.kid)
            .ok_or_else(|| {
                defect(
                    "KEY_VANISHED",
                    format!("the checked key {} is not in the view", checked.kid),
                )
            })?;
        let allowed = Allowed {
            reader,
            terms: &terms,
            key,
            input: request.signing_input,
            exp: checked.exp,
            caller: caller.to_string(),
            moment,
        };
        self.make(allowed, (&checked.rule, caller), deadline, counted)
            .await
    }

    /// The device that signs with a key: its token is in it, as far as either
    /// is known.
    pub(super) fn device_of(&self, key: &SigningKey) -> Result<&Device, SignError> {
        let device = key.devices.first().and_then(|name| self.device(name));
        let device = device.ok_or_else(|| {
            unavailable(
                "DEVICE_ABSENT",
                format!("no device that holds {} is configured", key.kid),
            )
        })?;
        match (key.tokens.get(device.name()), device.token()) {
            (Some(expected), Some(found)) if *expected != found.serial => {
                Err(device_error(DeviceError::OtherToken {
                    device: device.name().to_owned(),
                    expected: expected.clone(),
                    found: found.serial.clone(),
                }))
            }
            _ => Ok(device),
        }
    }

    /// Signs what a rule allowed a caller. What finds no room counts for no
    /// rate.
    async fn make(
        &self,
        allowed: Allowed<'_>,
        (rule, caller): (&str, &Caller),
        deadline: Instant,
        counted: &mut InFlight<'_>,
    ) -> Result<Signed, SignError> {
        let terms = allowed.terms;
        let made = self.release(allowed, deadline, counted).await;
        if let Err(SignError::Overloaded { .. }) = made {
            terms.give_back(rule, caller);
        }
        made
    }

    /// The device and the record work at the same time; nothing leaves before
    /// both are done, the signature verifies against the *published* key, and
    /// the key is still allowed to sign.
    pub(super) async fn release(
        &self,
        allowed: Allowed<'_>,
        deadline: Instant,
        counted: &mut InFlight<'_>,
    ) -> Result<Signed, SignError> {
        let Allowed {
            reader,
            terms,
            key,
            input,
            exp,
            caller,
            moment,
        } = allowed;
        let started = Instant::now();
        reader.check_blocked(key)?;
        // Rule 2 counts on this bound: no signature is in flight for longer.
        let deadline = deadline.min(started + terms.timing.signing_deadline.to_duration());
        let signers = reader.signers()?;
        let verifier = signers.verifier(&key.kid).ok_or_else(|| {
            defect(
                "KEY_NOT_PUBLISHED",
                format!("the set does not show the key {}", key.kid),
            )
        })?;
        let device = self.device_of(key)?;
        let intent = audit::Intent {
            at: moment.time(),
            key_set: reader.name.clone(),
            kid: key.kid.clone(),
            caller,
            exp: Some(exp),
            input: InputDigest::of(&input),
        };
        hit(Side::Before, Effect::AppendSigning);
        // What finds no place is not recorded: nothing was handed over, and
        // a flood of refusals must not become a flood of writes.
        let object = ObjectId(key.id.0);
        let pending = device
            .enqueue(&reader.name, object, key.algorithm, input.clone(), deadline)
            .map_err(device_error)?;
        let (signature, recorded) = tokio::join!(
            timed(&mut counted.device, pending.signature()),
            timed(&mut counted.record, self.audit().record_signing(intent)),
        );
        hit(Side::After, Effect::AppendSigning);
        let record = recorded.map_err(|e| {
            self.0.context.metrics.audit_failed(AuditLine::Signing);
            let why = format!("the signature could not be recorded: {e}");
            match e.is_full() {
                true => SignError::Unavailable {
                    reason: "DISK_FULL",
                    why,
                    retry_after: None,
                },
                false => unavailable("NOT_RECORDED", why),
            }
        })?;
        match &signature {
            Ok(_) => reader.found(&key.kid),
            Err(DeviceError::NoSuchKey { .. }) => reader.missed(&key.kid),
            Err(_) => {}
        }
        let failed = |error| match error {
            // The token's own tools know the one id, `keys` the other.
            DeviceError::NoSuchKey { device, why } => device_error(DeviceError::NoSuchKey {
                device,
                why: format!("{why}; its kid is {}", key.kid),
            }),
            error => device_error(error),
        };
        // A moment of the first signatures of a process, at most.
        let told = reader.gate.passes(device.name(), deadline).await;
        let released = signature.map_err(failed).and_then(|signature| {
            reader.signers()?;
            if !told {
                let name = device.name();
                let why = format!("the device {name} has not yet said what it holds, which it is asked at each start");
                return Err(unavailable("DEVICE_UNAVAILABLE", why));
            }
            let began = Instant::now();
            let verified = verifier.verify(&input, &signature);
            counted.verification = began.elapsed();
            verified.map_err(|_| {
                tracing::error!(
                    kid = key.kid,
                    "the device made a wrong signature; it was withheld"
                );
                defect(
                    "WRONG_SIGNATURE",
                    "the device made a wrong signature".to_owned(),
                )
            })?;
            if !reader.may_release(&key.kid, self.clock().read()) {
                return Err(unavailable(
                    "KEY_NOT_ALLOWED",
                    format!("the key {} stopped signing meanwhile", key.kid),
                ));
            }
            Ok(signature)
        });
        self.audit().outcome(
            record,
            audit::Outcome {
                at: self.clock().read().wall,
                verdict: match &released {
                    Ok(_) => Verdict::Released,
                    Err(e) => Verdict::Withheld {
                        reason: e.reason().to_owned(),
                    },
                },
            },
        );
        released.map(|signature| Signed {
            signing_input: input,
            signature,
            kid: key.kid.clone(),
            algorithm: key.algorithm,
            expires: exp,
        })
    }
}

/// A signature that policy allowed, or that the agent itself wants.
pub(super) struct Allowed<'a> {
    pub(super) reader: &'a Reader,
    /// The terms that allowed it.
    pub(super) terms: &'a Terms,
    pub(super) key: &'a SigningKey,
    pub(super) input: Vec<u8>,
    pub(super) exp: Time,
    /// Who asked, for the record.
    pub(super) caller: String,
    /// When it was allowed.
    pub(super) moment: Moment,
}

/// Notes how long something took.
async fn timed<T>(took: &mut Duration, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    *took = began.elapsed();
    done
}

fn facts(key: &SigningKey) -> KeyFacts {
    KeyFacts {
        algorithm: key.algorithm,
        kid: key.kid.clone(),
        exp_limit: key.exp_ceiling,
    }
}

fn check_error(error: CheckError) -> SignError {
    match error {
        CheckError::Refused(refusal) => SignError::Refused(refusal),
        // Ours to raise, not the caller's to lower: while the store or the
        // clock is in trouble, the ceiling stays where it is.
        CheckError::CeilingReached { exp_limit, .. } => unavailable(
            "CEILING_REACHED",
            format!(
                "nothing may be signed that expires after {exp_limit}: the store or the clock is in trouble"
            ),
        ),
    }
}

fn device_error(error: DeviceError) -> SignError {
    let why = error.to_string();
    match error {
        DeviceError::Unavailable { retry_after, .. } => SignError::Unavailable {
            reason: "DEVICE_UNAVAILABLE",
            why,
            retry_after: Some(retry_after),
        },
        DeviceError::Unusable { .. } => SignError::Unavailable {
            reason: "DEVICE_UNUSABLE",
            why,
            retry_after: None,
        },
        DeviceError::Overloaded {
            device,
            queued,
            retry_after,
        } => SignError::Overloaded {
            device,
            queued,
            retry_after,
        },
        DeviceError::Deadline { waited, .. } => SignError::Deadline { waited },
        DeviceError::PinBlocked { .. } => SignError::Unavailable {
            reason: "PIN_BLOCKED",
            why,
            retry_after: None,
        },
        DeviceError::NoSuchKey { .. } => SignError::Unavailable {
            reason: "KEY_MISSING",
            why,
            retry_after: None,
        },
        DeviceError::OtherToken { .. } => SignError::Unavailable {
            reason: "OTHER_TOKEN",
            why,
            retry_after: None,
        },
        DeviceError::BadKey { .. } => defect("BAD_KEY", why),
        DeviceError::Refused { .. } => defect("DEVICE_REFUSED", why),
        DeviceError::Defect { .. } => defect("DEVICE_DEFECT", why),
    }
}

pub(super) fn unavailable(reason: &'static str, why: String) -> SignError {
    SignError::Unavailable {
        reason,
        why,
        retry_after: Some(Duration::from_secs(1)),
    }
}

fn defect(reason: &'static str, why: String) -> SignError {
    SignError::Internal { reason, why }
}
