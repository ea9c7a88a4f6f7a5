//! Orders that wait for a second person.

use super::admin::AdminError;
use super::orders::Did;
use super::refusal::refusal;
use super::writer::{Clock, StepError, Writer};
use crate::keyring::{Ending, Mandate, OperatorError, Then, Wish};
use crate::policy::{Approvals, Caller};
use crate::time::Span;

/// Who orders something, where it may take two.
pub(super) struct Asker {
    pub(super) mandate: Mandate,
    person: String,
    lifetime: Span,
}

impl Writer {
    /// Who asks for a second person; none where one is enough.
    ///
    /// # Errors
    /// Where two are asked for and the caller is nobody: it could be anybody
    /// twice.
    pub(super) fn asker(&self, caller: &Caller, note: &str) -> Result<Option<Asker>, AdminError> {
        let terms = self.reader.terms();
        let Some(Approvals { people, lifetime }) = &terms.approvals else {
            return Ok(None);
        };
        let Some(person) = people.person(caller) else {
            return Err(AdminError::Refused {
                reason: "NOT_A_PERSON",
                rule: "exception_second_person".to_owned(),
                why: format!("{caller} is nobody that the configuration names as a person"),
                hint: "the key set asks for two people: [person.NAME] in the configuration says which callers they are".to_owned(),
                remaining: None,
            });
        };
        Ok(Some(Asker {
            mandate: Mandate {
                by: caller.to_string(),
                note: note.to_owned(),
            },
            person: person.to_owned(),
            lifetime: *lifetime,
        }))
    }

    /// Puts a wish on record, and says who can grant it.
    pub(super) async fn wish(&mut self, asker: &Asker, wish: &Wish) -> Result<Did, AdminError> {
        let by = (&asker.mandate, asker.person.as_str());
        let step = self.step(Clock::Sure, |set, plan, tick| {
            let (number, events) = set.request(wish, by, asker.lifetime, plan, tick)?;
            Ok(((number, events.clone()), events))
        });
        let (number, events) = step.await.map_err(|e| self.not_done(e))?;
        let mut did = Did::of(&events);
        if let Some(number) = number {
            did.pending.push(format!(
                "it waits for a person other than {}: `sealkeeper approvals approve {number} --key-set {}`",
                asker.person, self.reader.name
            ));
        }
        Ok(did)
    }

    /// Ends a key. To have the next one sign before its time takes two people
    /// where two are asked for; to block a key and to take it out of the set
    /// takes one, and does not wait for what the second may say.
    pub(super) async fn revoke_by(
        &mut self,
        caller: &Caller,
        kid: &str,
        ending: Ending,
    ) -> Result<Did, AdminError> {
        let two = self.reader.terms().approvals.is_some();
        if !two || ending.then != Some(Then::Activate) {
            return self.revoke(kid, ending).await;
        }
        let note = ending.mandate.note.clone();
        let mut did = self.revoke(kid, ending.or_later()).await?;
        let held = self.held.as_ref();
        let empty = held.is_some_and(|held| {
            let set = &held.record.set;
            set.by_kid(kid).is_some_and(|key| {
                let last = set.emptied_by(&key.seat());
                last.is_some_and(|last| last.id == key.id)
            })
        });
        if !empty {
            return Ok(did); // Another key signs, or the store has it not yet.
        }
        let kid = kid.to_owned();
        let wished = match self.asker(caller, &note) {
            Ok(Some(asker)) => self.wish(&asker, &Wish::Activate { kid }).await,
            Ok(None) => return Ok(did),
            Err(e) => Err(e),
        };
        match wished {
            Ok(wished) => {
                did.done.extend(wished.done);
                did.pending.extend(wished.pending);
            }
            // The key is blocked all the same.
            Err(e) => did.pending.push(format!(
                "no key signs in its place before its time, which takes two people: {e}"
            )),
        }
        Ok(did)
    }

    /// The second person agrees.
    pub(super) async fn approve(
        &mut self,
        caller: &Caller,
        number: u64,
    ) -> Result<Did, AdminError> {
        let asker = self.asker(caller, "")?;
        let Some(asker) = asker else {
            return Err(refusal(OperatorError::UnknownRequest { number }));
        };
        let by = (&asker.mandate, asker.person.as_str());
        let step = self.step(Clock::Sure, |set, plan, tick| {
            let events = set.approve(number, by, plan, tick)?;
            Ok((events.clone(), events))
        });
        let events = step
            .await
            .map_err(|e: StepError<OperatorError>| self.not_done(e))?;
        Ok(Did::of(&events))
    }

    /// Nobody wants it any more. A restriction: it takes no second person, and
    /// no first one either.
    pub(super) async fn withdraw(
        &mut self,
        caller: &Caller,
        number: u64,
    ) -> Result<Did, AdminError> {
        let mandate = Mandate {
            by: caller.to_string(),
            note: String::new(),
        };
        let step = self.step(Clock::Any, |set, plan, tick| {
            let events = set.withdraw_request(number, &mandate, plan, tick)?;
            Ok((events.clone(), events))
        });
        let events = step
            .await
            .map_err(|e: StepError<OperatorError>| self.not_done(e))?;
        Ok(Did::of(&events))
    }
}
