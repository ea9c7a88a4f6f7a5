//! What waits for a second person, where two are asked for.
//!
//! A person asks, another one agrees, and only then it is done, by the rules
//! of that instant. Blocking and unpublishing never come here
//! ([`rules::exception_second_person`](super::rules::exception_second_person)).

use serde::{Deserialize, Serialize};

use super::event::{Event, What};
use super::key::{Half, Key, Mandate};
use super::refusal::OperatorError;
use super::set::{KeySet, Plan, Tick};
use crate::time::{Span, Time};

/// What a person may ask for and not do alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "kebab-case")]
pub enum Wish {
    /// The destruction of a private half.
    Destroy {
        /// The key.
        kid: String,
        /// Even where that ends its rollback window.
        end_rollback: bool,
    },
    /// A former key active again.
    Rollback {
        /// The key.
        kid: String,
    },
    /// The next key active before every verifier can hold it.
    Activate {
        /// The revoked key in whose place it signs.
        kid: String,
    },
    /// A standby active before every verifier can hold it, in front of a key
    /// that signs.
    Force {
        /// The standby.
        kid: String,
    },
    /// That an origin is not waited for.
    Waive {
        /// Which.
        origin: String,
        /// For how long.
        span: Span,
    },
}

/// A wish on record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Request {
    /// What is asked for.
    #[serde(flatten)]
    pub wish: Wish,
    /// Who asks.
    pub mandate: Mandate,
    /// Which person that is.
    pub person: String,
    /// Since when.
    pub at: Time,
    /// Until when somebody may agree.
    pub expires: Time,
}

/// How many wishes may wait at a time: more than people can judge.
pub const MOST_REQUESTS: usize = 32;

impl Wish {
    /// The key that it is about, by its `kid`; or the origin.
    #[must_use]
    pub fn about(&self) -> &str {
        match self {
            Self::Destroy { kid, .. }
            | Self::Rollback { kid }
            | Self::Activate { kid }
            | Self::Force { kid } => kid,
            Self::Waive { origin, .. } => origin,
        }
    }

    /// A stable word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Destroy { .. } => "destroy",
            Self::Rollback { .. } => "rollback",
            Self::Activate { .. } => "activate",
            Self::Force { .. } => "force",
            Self::Waive { .. } => "waive",
        }
    }
}

impl KeySet {
    /// Puts a wish on record; says under which number. The same wish keeps the
    /// number that it has, whoever asks: another person is to agree to it
    /// rather than ask once more. No number where there is nothing to do.
    ///
    /// Refused where the order itself would be, so that nobody is asked to
    /// agree to what cannot be done.
    pub fn request(
        &mut self,
        wish: &Wish,
        (mandate, person): (&Mandate, &str),
        lifetime: Span,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<(Option<u64>, Vec<Event>), OperatorError> {
        match self.clone().grant(wish, mandate, plan, tick) {
            Ok(events) if events.is_empty() => return Ok((None, Vec::new())),
            // Agents say so within moments, and people take longer.
            Ok(_) | Err(OperatorError::InUse { .. }) => {}
            Err(e) => return Err(e),
        }
        let mut waiting = self.requests.iter();
        if let Some((number, _)) = waiting.find(|(_, request)| request.wish == *wish) {
            return Ok((Some(*number), Vec::new()));
        }
        if self.requests.len() >= MOST_REQUESTS {
            return Err(OperatorError::TooManyRequests);
        }
        self.last_request += 1;
        let (request, expires) = (self.last_request, tick.now + lifetime);
        self.requests.insert(
            request,
            Request {
                wish: wish.clone(),
                mandate: mandate.clone(),
                person: person.to_owned(),
                at: tick.now,
                expires,
            },
        );
        let what = What::ApprovalRequested {
            request,
            wish: wish.name(),
            expires,
        };
        let event = self.about(wish, plan, tick.now, what, Some(mandate));
        Ok((Some(request), event.into_iter().collect()))
    }

    /// The request to destroy the private half of a key that waits for a
    /// second person, where there is one.
    #[must_use]
    pub fn asked_to_destroy(&self, wanted: &str) -> Option<u64> {
        let asks = |request: &Request| match &request.wish {
            Wish::Destroy { kid, .. } => kid == wanted,
            _ => false,
        };
        let mut waiting = self.requests.iter();
        let (number, _) = waiting.find(|(_, request)| asks(request))?;
        Some(*number)
    }

    /// A second person agrees: it is done, in the name of the first.
    ///
    /// Refused where the rules of now are against it; then it goes on waiting.
    pub fn approve(
        &mut self,
        number: u64,
        (mandate, person): (&Mandate, &str),
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let request = self.waiting(number, tick)?;
        // By another account, or by the same one under another name: a
        // configuration that says so since does not make it two.
        if request.person == person || request.mandate.by == mandate.by {
            let person = person.to_owned();
            return Err(OperatorError::SamePerson { person });
        }
        let Request {
            wish,
            mandate: first,
            ..
        } = request;
        let mut events = self.grant(&wish, &first, plan, tick)?;
        self.requests.remove(&number);
        for event in events.iter_mut().filter(|event| event.mandate.is_some()) {
            event.second = Some(mandate.by.clone());
        }
        let what = What::Approved {
            request: number,
            wish: wish.name(),
        };
        let approved = self.about(&wish, plan, tick.now, what, Some(mandate));
        let reached = self.drop_reached(Some(mandate), plan, tick);
        Ok(approved.into_iter().chain(events).chain(reached).collect())
    }

    /// Takes off the wishes that have come true otherwise: nobody is to be
    /// asked for what is done.
    fn drop_reached(&mut self, by: Option<&Mandate>, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let waiting = self.requests.iter();
        let reached: Vec<(u64, Wish)> = waiting
            .filter(|(_, request)| self.is_reached(&request.wish))
            .map(|(number, request)| (*number, request.wish.clone()))
            .collect();
        let mut events = Vec::new();
        for (request, wish) in reached {
            self.requests.remove(&request);
            let what = What::RequestWithdrawn { request };
            events.extend(self.about(&wish, plan, tick.now, what, by));
        }
        events
    }

    fn is_reached(&self, wish: &Wish) -> bool {
        let seat_of = |kid: &str| {
            let key = self.by_kid(kid)?;
            Some((key, self.seats.get(&key.seat())?))
        };
        match wish {
            Wish::Destroy { kid, .. } => self.by_kid(kid).is_some_and(|key| {
                let mut halves = key.placements.values();
                halves.all(|half| matches!(half, Half::Destroying | Half::Destroyed))
            }),
            Wish::Rollback { kid } | Wish::Force { kid } => {
                seat_of(kid).is_some_and(|(key, seat)| {
                    let near = seat.switch.as_ref();
                    seat.active == Some(key.id) || near.is_some_and(|switch| switch.to == key.id)
                })
            }
            Wish::Activate { kid } => {
                seat_of(kid).is_some_and(|(_, seat)| seat.active.is_some() || seat.force)
            }
            Wish::Waive { .. } => false,
        }
    }

    /// The key that would sign if somebody agreed to this now, where there is
    /// one and that is what is asked for.
    #[must_use]
    pub fn would_sign(&self, wish: &Wish) -> Option<&Key> {
        match wish {
            Wish::Activate { kid } => {
                let revoked = self.by_kid(kid)?;
                self.standby(&revoked.seat())
                    .filter(|next| next.id != revoked.id)
            }
            Wish::Rollback { kid } | Wish::Force { kid } => self.by_kid(kid),
            Wish::Destroy { .. } | Wish::Waive { .. } => None,
        }
    }

    /// Takes a wish off the record, whoever asks: nothing happens.
    pub fn withdraw_request(
        &mut self,
        number: u64,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        let Request { wish, .. } = self.waiting(number, tick)?;
        self.requests.remove(&number);
        let what = What::RequestWithdrawn { request: number };
        let event = self.about(&wish, plan, tick.now, what, Some(mandate));
        Ok(event.into_iter().collect())
    }

    /// Forgets wishes to which nobody agreed in time, or need not any more.
    pub(super) fn expire_requests(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let over = self.requests.iter();
        let over: Vec<(u64, Wish)> = over
            .filter(|(_, request)| request.expires <= tick.now)
            .map(|(number, request)| (*number, request.wish.clone()))
            .collect();
        let mut events = self.drop_reached(None, plan, tick);
        for (request, wish) in over {
            self.requests.remove(&request);
            let what = What::RequestExpired { request };
            events.extend(self.about(&wish, plan, tick.now, what, None));
        }
        events
    }

    fn waiting(&self, number: u64, tick: &Tick) -> Result<Request, OperatorError> {
        let request = self.requests.get(&number);
        // A tick that is late makes nobody's word last longer.
        request
            .filter(|request| tick.now < request.expires)
            .cloned()
            .ok_or(OperatorError::UnknownRequest { number })
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// Where the order itself would be refused.
    pub fn grant(
        &mut self,
        wish: &Wish,
        mandate: &Mandate,
        plan: &Plan,
        tick: &Tick,
    ) -> Result<Vec<Event>, OperatorError> {
        match wish {
            Wish::Destroy { kid, end_rollback } => {
                self.destroy(kid, *end_rollback, mandate, plan, tick)
            }
            Wish::Rollback { kid } => self.rollback(kid, mandate, plan, tick),
            Wish::Force { kid } => self.force(kid, mandate, plan, tick),
            Wish::Waive { origin, span } => self.waive(origin, *span, mandate, plan, tick),
            Wish::Activate { kid } => {
                if !self.revoked.contains_key(kid) {
                    let (kid, key_set) = (kid.clone(), self.name.clone());
                    return Err(OperatorError::UnknownKid { kid, key_set });
                }
                Ok(self.sign_again(kid, mandate, plan, tick))
            }
        }
    }

    /// None for a key that was forgotten meanwhile: it has no more events.
    fn about(
        &self,
        wish: &Wish,
        plan: &Plan,
        at: Time,
        what: What,
        by: Option<&Mandate>,
    ) -> Option<Event> {
        let mut event = match wish {
            Wish::Waive { .. } => Event::of_no_key(plan, at, what),
            _ => Event::of(self.by_kid(wish.about())?, at, what),
        };
        event.mandate = by.cloned();
        Some(event)
    }
}
