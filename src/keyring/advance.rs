//! What time alone brings about: the steps of a rotation, in the order in
//! which one tick takes them.
//!
//! Each step looks at the value, not at what an earlier tick remembers, so a
//! tick that comes late, twice, or not at all changes when things happen and
//! never whether they are safe.

use super::event::{Event, What};
use super::key::{Key, KeyId, Phase};
use super::rules;
use super::set::{Genesis, KeySet, Plan, SeatId, Switch, Tick, raise_ceiling};
use crate::jose::KeyType;
use crate::time::{Span, Time};

impl KeySet {
    /// Takes every step that is due at `tick.now`, and writes the intents for
    /// what devices must do. Does nothing before genesis is done; the caller
    /// does not call it while the clock is in doubt.
    pub fn advance(
        &mut self,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Vec<Event> {
        if matches!(self.genesis, Genesis::Pending { .. }) {
            return Vec::new();
        }
        let mut events = Vec::new();
        self.join(tick);
        self.remember_bounds(plan, tick.now);
        events.extend(self.switch_over(plan, tick));
        events.extend(self.adopt_tracks(plan, tick));
        self.raise_ceilings(plan, tick);
        events.extend(self.end_waivers(plan, tick.now));
        events.extend(self.cancel_unsafe(plan, tick));
        for seat in self.seats_of(plan) {
            events.extend(self.schedule(&seat, plan, tick));
        }
        events.extend(self.withdraw_stale(plan, tick));
        events.extend(self.destroy_halves(plan, tick));
        events.extend(self.remove_keys(plan, tick));
        events.extend(self.expire_requests(plan, tick));
        for seat in self.seats_of(plan) {
            self.settle(&seat);
        }
        self.forget();
        // Last: a key that was removed leaves room for one.
        events.extend(self.replenish(plan, tick, ids));
        self.high_water = self.high_water.max(tick.now);
        events
    }

    /// The next instant at which [`KeySet::advance`] has something to do if
    /// nothing else happens. A tick before it changes nothing.
    #[must_use]
    pub fn deadline(&self, plan: &Plan, tick: &Tick) -> Time {
        let raise = self.next_raise(plan).filter(|at| *at > tick.now);
        let step = self.next_step(plan, tick);
        raise.map_or(step, |raise| raise.min(step))
    }

    /// The same, but for the ceilings, which nobody sees.
    pub(super) fn next_step(&self, plan: &Plan, tick: &Tick) -> Time {
        let timing = &plan.timing;
        let mut next = vec![Time::FAR_FUTURE];
        for seat_id in self.seats_of(plan) {
            let Some(seat) = self.seats.get(&seat_id) else {
                continue;
            };
            if let Some(switch) = &seat.switch {
                next.push(switch.at);
                continue;
            }
            let target = self.next_switch(&seat_id, plan, tick);
            next.extend(target.map(|(_, target)| target - lead(plan)));
            // One of before that is next gives way to a fresh one as soon as
            // that is ready.
            let fresh = self.fresh_standby(&seat_id);
            let fresh = fresh.filter(|_| seat.active.is_none());
            let ready = fresh.and_then(|key| self.allowed(key, plan, tick, tick.now));
            next.extend(ready.map(|at| at - ahead(plan)));
        }
        next.extend(self.waivers.values().map(|waiver| waiver.until));
        next.extend(self.bounds_end());
        for key in self.keys.values() {
            if let Phase::Retiring { last_sign, .. } = key.phase
                && !key.is_held()
            {
                if key.has_private_half() {
                    next.push(rules::rule_4_destruction(last_sign, timing));
                }
                next.push(removal(key, last_sign, plan));
            }
            let kept = self.kept_for_second(key, plan);
            next.extend(kept.filter(|_| !key.is_held()));
        }
        next.extend(self.requests.values().map(|request| request.expires));
        // What is overdue but blocked (a dead origin, a replica that has not
        // confirmed) is looked at again at each tick, not in a tight loop.
        next.into_iter()
            .filter(|at| *at > tick.now)
            .min()
            .unwrap_or(Time::FAR_FUTURE)
    }

    /// Readers have switched by themselves at the stored instant; the record
    /// follows.
    fn switch_over(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let due: Vec<(KeyId, Time)> = self
            .seats
            .values()
            .filter_map(|seat| seat.switch.as_ref())
            .filter(|switch| switch.at <= tick.now)
            .map(|switch| (switch.to, switch.at))
            .collect();
        due.into_iter()
            .flat_map(|(to, at)| self.activate(to, at, &plan.timing))
            .collect()
    }

    /// Raises the ceilings of all active keys together, once one needs it:
    /// one write for all tracks.
    fn raise_ceilings(&mut self, plan: &Plan, tick: &Tick) {
        let timing = &plan.timing;
        let needed = tick.now + timing.max_token_lifetime + timing.ceiling_step().divided_by(2);
        let low = |key: &Key| {
            matches!(key.phase, Phase::Active { .. })
                && (key.exp_ceiling.is_none_or(|ceiling| ceiling <= needed)
                    || key.longest_lifetime < timing.max_token_lifetime)
        };
        if self.keys.values().any(low) {
            for key in self.keys.values_mut() {
                if matches!(key.phase, Phase::Active { .. }) {
                    raise_ceiling(key, tick.now, timing);
                }
            }
            self.epoch += 1;
        }
    }

    /// When the first ceiling of an active key is raised again.
    fn next_raise(&self, plan: &Plan) -> Option<Time> {
        let timing = &plan.timing;
        let active = self
            .keys
            .values()
            .filter(|key| matches!(key.phase, Phase::Active { .. }));
        let lowest = active.filter_map(|key| key.exp_ceiling).min()?;
        Some(lowest - timing.max_token_lifetime - timing.ceiling_step().divided_by(2))
    }

    /// Takes all the steps before an instant that only raise ceilings: as many
    /// ticks would, in two.
    pub(super) fn raise_ceilings_until(&mut self, plan: &Plan, until: Time) {
        let step = plan.timing.ceiling_step();
        // Each raise is so much later than the one before it.
        let apart = step.as_millis() - step.divided_by(2).as_millis();
        while let Some(first) = self.next_raise(plan).filter(|at| *at < until) {
            let more = (until.as_millis() - 1 - first.as_millis()) / apart.max(1);
            for at in [0, more * apart] {
                let at = Time::from_millis(first.as_millis() + at);
                let keys = self.keys.values_mut();
                for key in keys.filter(|key| matches!(key.phase, Phase::Active { .. })) {
                    raise_ceiling(key, at, &plan.timing);
                }
            }
            self.epoch += 1;
        }
    }

    /// Takes back an activation that rule 1 does not allow any more, as long as
    /// every replica can still hear of it: an origin has lost the key, if only
    /// for a while, or the configuration knows of longer caches. One that an
    /// operator forces waits for no origin.
    pub(super) fn cancel_unsafe(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let mut events = Vec::new();
        for seat_id in self.seats_of(plan) {
            let unforced = self.seats.get(&seat_id).filter(|seat| !seat.force);
            let switch = unforced.and_then(|seat| seat.switch.clone());
            let Some(switch) = switch.filter(|switch| !switch.forced) else {
                continue;
            };
            let key = self.key(switch.to);
            // By the waivers that hold when it is active: one that ends before
            // had no part in it.
            let seen = self.observed(key, plan, switch.at);
            let safe = seen.is_some_and(|seen| self.held_everywhere(seen, plan) <= switch.at);
            if !safe && tick.now + plan.timing.adoption <= switch.at {
                events.push(Event::of(key, tick.now, What::ActivationCancelled));
                self.take_switch(&seat_id);
            }
        }
        events
    }

    /// Fixes the instant of the next activation, once it is near.
    fn schedule(&mut self, seat_id: &SeatId, plan: &Plan, tick: &Tick) -> Vec<Event> {
        if self
            .seats
            .get(seat_id)
            .is_none_or(|seat| seat.switch.is_some())
        {
            return Vec::new();
        }
        let Some((to, target)) = self.next_switch(seat_id, plan, tick) else {
            return Vec::new();
        };
        if tick.now + lead(plan) < target {
            return Vec::new();
        }
        let switch = Switch {
            to,
            at: target,
            rollback: false,
            forced: false,
        };
        vec![self.set_switch(switch, plan, tick.now)]
    }

    /// Writes down a change of the active key. Both ceilings are raised with
    /// it: readers will switch without another write.
    pub(super) fn set_switch(&mut self, switch: Switch, plan: &Plan, now: Time) -> Event {
        let timing = &plan.timing;
        let (to, at, what) = (switch.to, switch.at, switch.told());
        let seat_id = self.key(to).seat();
        self.take_switch(&seat_id);
        let seat = self.seats.entry(seat_id).or_default();
        seat.switch = Some(switch);
        if let Some(before) = seat.active {
            let last = rules::rule_2_last_use(at, timing) + timing.max_token_lifetime;
            let before = self.key_mut(before);
            before.exp_ceiling = before.exp_ceiling.max(Some(last));
        }
        self.epoch += 1;
        let key = self.key_mut(to);
        raise_ceiling(key, at, timing);
        Event::of(key, now, what)
    }

    /// The key that is next in a seat, and the earliest instant that every
    /// rule allows for it; `None` while there is none, or while it may not be
    /// told (a dead origin), or while an operator holds what it would touch.
    fn next_switch(&self, seat_id: &SeatId, plan: &Plan, tick: &Tick) -> Option<(KeyId, Time)> {
        let seat = self.seats.get(seat_id)?;
        let active = seat.active.map(|id| self.key(id));
        if active.is_some_and(|key| key.is_held()) {
            return None;
        }
        let mut safe = tick.now + ahead(plan);
        let fresh = self.fresh_standby(seat_id);
        let ready = fresh.filter(|key| self.allowed(key, plan, tick, safe) == Some(safe));
        let key = ready.or(self.standby(seat_id))?;
        if seat.force {
            return Some((key.id, safe));
        }
        // The later, the fewer waivers hold: after the first, each further round
        // is for one that has ended. A rule that went back in time would have no
        // answer, and then nothing is activated.
        for _ in 0..self.waivers.len() + 2 {
            let at = self.wanted(seat_id, safe, plan)?;
            safe = self.allowed(key, plan, tick, at)?;
            if safe == at {
                return Some((key.id, at));
            }
        }
        None
    }

    /// When the next rotation of a seat is wanted, where nothing stands in its
    /// way.
    #[must_use]
    pub fn due(&self, seat_id: &SeatId, plan: &Plan) -> Option<Time> {
        self.wanted(seat_id, Time::default(), plan)
    }

    /// The same, no earlier than it is `safe`: by the schedule and its window,
    /// or earlier where an operator asks, or a revocation until a key that was
    /// made after it is active; for a seat without an active key, at once.
    pub(super) fn wanted(&self, seat_id: &SeatId, safe: Time, plan: &Plan) -> Option<Time> {
        let seat = self.seats.get(seat_id)?;
        if seat.active.is_none() {
            return Some(safe);
        }
        let due = self.due_by_schedule(seat_id, plan)?;
        let by_schedule = rules::exception_window(due, safe, &plan.timing);
        let owed = seat.fresh_after.filter(|_| self.owes_fresh(seat_id));
        let asked = [seat.rotate_at, owed].into_iter().flatten();
        Some(asked.map(|at| at.max(safe)).fold(by_schedule, Time::min))
    }

    /// When the active key of a seat has been active for a whole period. The
    /// hard limit counts from here: an early rotation that takes its time does
    /// not make the key any older.
    pub(super) fn due_by_schedule(&self, seat_id: &SeatId, plan: &Plan) -> Option<Time> {
        match self.key(self.seats.get(seat_id)?.active?).phase {
            Phase::Active { since } => Some(since + plan.timing.rotate_every),
            _ => None,
        }
    }

    /// The published key that is active next: one that was adopted to be used,
    /// unless nothing is active; else the one published first, and
    /// after a compromise one that was made after it (rule 5), unless nothing
    /// is active at all. Then a key of before signs meanwhile, where none of
    /// after is ready.
    #[must_use]
    pub fn standby(&self, seat_id: &SeatId) -> Option<&Key> {
        let seat = self.seats.get(seat_id)?;
        let none_active = seat.active.is_none();
        self.standbys_of(seat_id)
            .filter(|key| none_active || rules::rule_5_fresh_key(key.created, seat.fresh_after))
            .min_by_key(|key| turn(key, none_active))
    }

    fn fresh_standby(&self, seat_id: &SeatId) -> Option<&Key> {
        let seat = self.seats.get(seat_id)?;
        self.standbys_of(seat_id)
            .filter(|key| rules::rule_5_fresh_key(key.created, seat.fresh_after))
            .min_by_key(|key| turn(key, seat.active.is_none()))
    }

    /// What may be active next, for all but what rule 5 says of it.
    pub(super) fn standbys_of<'a, 's>(
        &'a self,
        seat_id: &'s SeatId,
    ) -> impl Iterator<Item = &'a Key> + use<'a, 's> {
        self.keys
            .values()
            .filter(|key| key.seat() == *seat_id && !key.is_held() && key.has_private_half())
            .filter(|key| matches!(key.phase, Phase::Published { .. }))
    }

    /// Keeps a standby in each seat, a whole period ahead of its need.
    fn replenish(
        &mut self,
        plan: &Plan,
        tick: &Tick,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for &(algorithm, key_type) in &plan.tracks {
            let seat_id = SeatId {
                algorithm,
                group: plan.group.clone(),
            };
            if self.wants_key(&seat_id, key_type, plan) {
                events.extend(self.generate(&seat_id, key_type, plan, tick, ids));
            }
        }
        events
    }

    fn wants_key(&self, seat_id: &SeatId, key_type: KeyType, plan: &Plan) -> bool {
        let Some(seat) = self.seats.get(seat_id) else {
            return false;
        };
        let mine = || self.keys.values().filter(|key| key.seat() == *seat_id);
        let coming = mine().any(|key| {
            let ahead = key.is_coming() || matches!(key.phase, Phase::Published { .. });
            let placeholder = self.placeholder == Some(key.id);
            let right = key.key_type == key_type && !key.is_held();
            let fresh = rules::rule_5_fresh_key(key.created, seat.fresh_after);
            ahead && right && !placeholder && fresh
        });
        // After a compromise nothing waits: the key that was revoked has left
        // its room in the set.
        !coming && (self.owes_fresh(seat_id) || self.crowd(seat_id, plan).is_none())
    }

    /// Takes standbys of before a compromise off, once a key of after it is
    /// active: none of them may be active any more.
    fn withdraw_stale(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let mut events = Vec::new();
        for seat_id in self.seats_of(plan) {
            let Some(after) = self.seats.get(&seat_id).and_then(|seat| seat.fresh_after) else {
                continue;
            };
            if self.owes_fresh(&seat_id) {
                continue;
            }
            let stale = self.standbys_of(&seat_id).filter(|key| {
                !rules::rule_5_fresh_key(key.created, Some(after)) && !self.is_next(key.id)
            });
            let stale: Vec<KeyId> = stale.map(|key| key.id).collect();
            for id in stale {
                self.epoch += 1;
                events.push(self.withdraw(id, self.epoch, plan, tick));
            }
        }
        events
    }

    /// Destroys private halves whose time is over: of retiring keys when the
    /// rollback window is, of keys out of the set at once. Never while an
    /// operator holds the key, nor while a replica may still use it.
    fn destroy_halves(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let everywhere = self
            .replicas
            .values()
            .map(|replica| replica.confirmed)
            .min();
        let wanted = |key: &&Key| match key.phase {
            Phase::Retiring { last_sign, .. } => {
                let over = rules::rule_4_destruction(last_sign, &plan.timing);
                tick.now >= over && !self.is_next(key.id)
            }
            Phase::Retired { .. } => true,
            Phase::Revoked { .. } => {
                let kept = self.kept_for_second(key, plan);
                kept.is_none_or(|until| tick.now >= until)
            }
            _ => false,
        };
        let over: Vec<KeyId> = self
            .keys
            .values()
            .filter(|key| !key.is_held() && key.has_private_half())
            .filter(wanted)
            .filter(|key| key.left_epoch <= everywhere.unwrap_or(0))
            .map(|key| key.id)
            .collect();
        over.into_iter()
            .flat_map(|id| self.begin_destruction(id, tick))
            .collect()
    }

    /// Takes public keys out of the set whose last token is dead (rule 3).
    fn remove_keys(&mut self, plan: &Plan, tick: &Tick) -> Vec<Event> {
        let over: Vec<KeyId> = self
            .keys
            .values()
            .filter(|key| !key.is_held() && !self.is_next(key.id))
            .filter(|key| match key.phase {
                Phase::Retiring { last_sign, .. } => tick.now >= removal(key, last_sign, plan),
                _ => false,
            })
            .map(|key| key.id)
            .collect();
        let mut events = Vec::new();
        for id in over {
            if self.is_all_there_is(id) {
                continue;
            }
            let key = self.key_mut(id);
            key.phase = Phase::Retired { since: tick.now };
            events.push(Event::of(key, tick.now, What::Removed));
            self.epoch += 1;
        }
        events
    }

    /// Whether nothing would be shown without this key: a record that was made
    /// again may lack a placeholder.
    fn is_all_there_is(&self, id: KeyId) -> bool {
        let placeholder = self.placeholder.map(|id| &self.key(id).phase);
        let mut others = self.keys.values().filter(|key| key.id != id);
        placeholder != Some(&Phase::Placeholder) && !others.any(Key::is_published)
    }

    /// Whether an activation of this key is scheduled.
    pub(super) fn is_next(&self, id: KeyId) -> bool {
        self.seats
            .values()
            .any(|seat| seat.switch.as_ref().is_some_and(|s| s.to == id))
    }
}

/// Which of two standbys is next: the lesser.
fn turn(key: &Key, none_active: bool) -> (bool, Option<Time>, KeyId) {
    (none_active || key.adopted.is_none(), key.published, key.id)
}

/// How far ahead of now an activation is put: R for the replicas, and as much
/// again for the write itself, which may be slow.
pub(super) fn ahead(plan: &Plan) -> Span {
    plan.timing.adoption.times(2)
}

/// How long before its instant an activation is fixed. The shorter, the more
/// an origin may still say against it.
fn lead(plan: &Plan) -> Span {
    plan.timing.adoption.times(3)
}

pub(super) fn removal(key: &Key, last_sign: Time, plan: &Plan) -> Time {
    let ceiling = key.exp_ceiling.unwrap_or(last_sign);
    rules::rule_3_overlap(ceiling, last_sign, key.longest_lifetime, &plan.timing)
}
