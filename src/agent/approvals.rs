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
        let set = self.held.as_ref().map(|held| &held.record.set);
        if let (Some(number), Some(set)) = (number, set) {
            let approve = format!(
                "`sealkeeper approvals approve {number} --key-set {}`",
                self.reader.name
            );
            let first = set.requests.get(&number).map(|request| &request.person);
            did.pending.push(match first {
                Some(first) if *first != asker.person => {
                    format!(
                        "{first} asked for it before, and it waits for you or another: {approve}"
                    )
                }
                _ => format!(
                    "it waits for a person other than {}: {approve}",
                    asker.person
                ),
            });
            if matches!(wish, Wish::Activate { .. } | Wish::Force { .. }) {
                let next = set.would_sign(wish).and_then(|key| key.kid.clone());
                did.pending.push(match next {
                    Some(next) => format!("agreed to now, {next} signs before its time"),
                    None => "agreed to now, the next key signs as soon as one is made".to_owned(),
                });
            }
        }
        Ok(did)
    }

    /// Ends a key. To have the next one sign before its time takes two people
    /// where two are asked for, and so does the destruction of the private
    /// half: both are asked for in the name of whoever revokes. To block a key
    /// and to take it out of the set takes one, and does not wait for what the
    /// second may say.
    pub(super) async fn revoke_by(
        &mut self,
        caller: &Caller,
        kid: &str,
        ending: Ending,
    ) -> Result<Did, AdminError> {
        if self.reader.terms().approvals.is_none() {
            return self.revoke(kid, ending).await;
        }
        let activates = ending.then == Some(Then::Activate);
        let note = ending.mandate.note.clone();
        let ending = match activates {
            true => ending.or_later(),
            false => ending,
        };
        let mut did = self.revoke(kid, ending).await?;
        let set = self.held.as_ref().map(|held| &held.record.set);
        // Else another key signs, or the store has it not yet.
        let empty = set.is_some_and(|set| {
            set.by_kid(kid).is_some_and(|key| {
                let last = set.emptied_by(&key.seat());
                last.is_some_and(|last| last.id == key.id)
            })
        });
        if let Some(set) = set
            && activates
            && !empty
        {
            did.pending.push(self.nothing_to_activate(set, kid));
        }
        if activates && empty {
            let kid = kid.to_owned();
            // The key is blocked all the same.
            let without = "no key signs in its place before its time, which takes two people";
            self.wish_too(&mut did, caller, &note, &Wish::Activate { kid }, without)
                .await;
        }
        self.ask_to_destroy(&mut did, caller, kid, &note).await;
        Ok(did)
    }

    /// Asks that the private half of a key that was just revoked be destroyed,
    /// and says what becomes of it until somebody agrees.
    async fn ask_to_destroy(&mut self, did: &mut Did, caller: &Caller, kid: &str, note: &str) {
        let known = self.held.as_ref().or(self.last.as_ref());
        let known = known.map(|held| &held.record.set);
        let key = known.and_then(|set| set.by_kid(kid));
        let (Some(set), Some(key)) = (known, key) else {
            return;
        };
        if !key.has_private_half() || key.is_held() {
            return;
        }
        let Some(until) = set.kept_for_second(key, &self.plan) else {
            did.pending.push(format!(
                "the private half is not destroyed before the store has the revocation: then `sealkeeper keys destroy {kid}` asks for a second person"
            ));
            return;
        };
        did.pending.push(format!(
            "the private half of {kid} is kept: to destroy it takes two people. It signs nothing; at {until} it is destroyed all the same, as that of a retired key"
        ));
        if let Some(number) = set.asked_to_destroy(kid) {
            did.pending.push(format!(
                "its destruction was asked for before: `sealkeeper approvals approve {number} --key-set {}`",
                self.reader.name
            ));
            return;
        }
        let wish = Wish::Destroy {
            kid: kid.to_owned(),
            end_rollback: false,
        };
        let again = format!("`sealkeeper keys destroy {kid}` asks for it again");
        self.wish_too(did, caller, note, &wish, &again).await;
    }

    /// Puts a wish on record that goes along with what is done already.
    /// `without` says what holds where that cannot be.
    async fn wish_too(
        &mut self,
        did: &mut Did,
        caller: &Caller,
        note: &str,
        wish: &Wish,
        without: &str,
    ) {
        let wished = match self.asker(caller, note) {
            Ok(Some(asker)) => self.wish(&asker, wish).await,
            Ok(None) => return,
            Err(e) => Err(e),
        };
        match wished {
            Ok(wished) => {
                did.done.extend(wished.done);
                did.pending.extend(wished.pending);
            }
            Err(e) => did.pending.push(format!("{without}: {e}")),
        }
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
        let mut did = Did::of(&events);
        self.tell_price(&mut did, &events);
        Ok(did)
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
