//! A state of the world, all that may happen in it next, and what must hold.

use sealkeeper::keyring::Then;

use super::action::Action;
use super::ask::Ask;
use super::clock::{Clock, Fault};
use super::instance::{Instance, Order};
use super::lab::{Broken, Lab, PLACEHOLDER, Record, kid, name, units};
use super::port;
use super::record::{Mask, NOW, bit, slots};
use super::verifiers::whole_run;

/// Everything that is not the same in all states of an instance. All of it is
/// relative to now.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// What the store has.
    pub(crate) record: Record,
    pub(crate) agents: [Agent; 2],
    /// What the device holds.
    objects: Mask,
    /// What each origin serves.
    fronts: [Mask; 2],
    /// For each origin and key, for how many units every place of the origin
    /// has served the key, and one more; none where it does not.
    ///
    /// This is every bounded verifier at once: whatever an origin served
    /// within P + C, some verifier holds, and nothing else.
    pub(super) runs: [[u8; 8]; 2],
    /// For how many units a token of each key is alive yet at the slowest
    /// verifier: that of the token that lives longest. Whoever may sign does.
    pub(super) tokens: [u8; 8],
    /// For each key, those that were ever served beside it: what a verifier
    /// may trust that knows the key and fetches only what it does not know.
    pub(super) beside: [Mask; 8],
    /// Keys that signed before every verifier could hold them, because an
    /// operator said so, while their tokens live.
    excused: Mask,
    /// For each origin, the keys that came to sign before its verifiers could
    /// hold them, as nobody waited for it, while they are in the set.
    pub(super) unseen: [Mask; 2],
    /// The orders that were given.
    ordered: u8,
    /// For how many units nobody has looked at each origin, up to more than a
    /// patience.
    unlooked: [u8; 2],
    /// The origins that went back unseen since.
    strayed: Mask,
}

/// What a process has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    link: Link,
    /// What it is about to store, and whether the record that it was made from
    /// is the store's still. A write takes less than R.
    writes: Option<(Record, bool, u8)>,
    /// What was revoked here, in memory and on disk.
    blocked: Mask,
    pub(crate) clock: Clock,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Link {
    /// It hears of each change at once.
    Near,
    /// It does not hear of the store. Its readers go by an older record, for
    /// so many units yet.
    Cut(Record, u8),
    /// The process is dead, or its readers sign nothing.
    Gone,
}

impl State {
    /// The end of `init`, with every verifier holding the first key, as the
    /// operator asserts.
    pub(crate) fn beginning(lab: &mut Lab) -> Result<Self, Broken> {
        let agent = Agent {
            link: Link::Near,
            writes: None,
            blocked: 0,
            clock: Clock::RIGHT,
        };
        let whole = whole_run(&lab.inst);
        let mut runs = [[0; 8]; 2];
        for run in &mut runs[..lab.inst.plan.origins.len()] {
            run[0] = whole;
        }
        let mut state = Self {
            record: lab.beginning()?,
            agents: [agent; 2],
            objects: bit(0),
            fronts: [bit(0); 2],
            runs,
            tokens: [0; 8],
            beside: [0; 8],
            excused: 0,
            unseen: [0; 2],
            ordered: 0,
            unlooked: [0; 2],
            strayed: 0,
        };
        state.judge(lab)?;
        Ok(state)
    }

    /// Everything that may happen next; the second agent's steps come late,
    /// and time passes last.
    pub(crate) fn actions(&self, lab: &Lab) -> Vec<Action> {
        let inst = &lab.inst;
        let mut found = Vec::with_capacity(24);
        let late = self.agents.iter().any(|agent| {
            let adoption = units(inst.world.timing.adoption);
            agent.writes.is_some_and(|(_, _, age)| age >= adoption)
        });
        self.actions_of(0, lab, &mut found);
        for o in 0..inst.plan.origins.len() {
            // One that went back is seen, or it stays so for as long as nobody
            // looks, which is longer than a patience.
            if self.strayed & bit(o) == 0 || self.unlooked[o] > units(inst.plan.timing.patience()) {
                found.push(Action::Pull(o));
            }
            if inst.gaps {
                let lost = lab.facts(self.record).may_stray & self.fronts[o];
                found.extend(slots(lost).map(|key| Action::Stray(o, key)));
            }
            if inst.regressions && self.is_free(0) {
                let lost = lab.facts(self.record).may_be_lost & self.fronts[o];
                found.extend(slots(lost).map(|key| Action::Regress(o, key)));
            }
        }
        if inst.replicas > 1 {
            self.actions_of(1, lab, &mut found);
        }
        if !late {
            found.push(Action::Pass);
        }
        found
    }

    fn is_free(&self, r: usize) -> bool {
        self.agents[r].link == Link::Near && self.agents[r].writes.is_none()
    }

    fn actions_of(&self, r: usize, lab: &Lab, found: &mut Vec<Action>) {
        let inst = &lab.inst;
        let agent = &self.agents[r];
        if let Some((_, _, _)) = agent.writes {
            found.extend([Action::Land(r), Action::LandUnheard(r), Action::Crash(r)]);
            return;
        }
        if inst.clocks {
            let faults = [Fault::None, Fault::Ahead, Fault::Back];
            found.extend(faults.map(|fault| Action::Clock(r, fault)));
        }
        match agent.link {
            Link::Near => {}
            Link::Cut(..) | Link::Gone => {
                found.push(Action::Load(r));
                if inst.clocks {
                    found.push(Action::Reboot(r));
                }
                return;
            }
        }
        if inst.absent & bit(r) != 0 {
            found.push(Action::Crash(r));
            if inst.replicas > 1 {
                found.push(Action::Cut(r));
            }
        }
        let mut asks = match inst.prompt {
            true => vec![Ask::Observe(inst.origin_mask())],
            false => (1..=inst.origin_mask()).map(Ask::Observe).collect(),
        };
        if !inst.prompt {
            asks.push(Ask::Tick);
        }
        let [make, destroy, look] = lab.facts(self.record).tasks[r];
        let done = make & self.objects | (destroy | look) & !self.objects;
        asks.extend(slots(done).map(Ask::Report));
        asks.extend(slots(look & self.objects).map(Ask::ReportKept));
        let comes = bit(inst.keys) - 1;
        let open = make & comes & !self.objects | destroy & self.objects;
        found.extend(slots(open).map(Action::Device));
        if agent.clock.doubted {
            asks = vec![Ask::Note, Ask::Confirm];
        }
        self.orders(r, lab, &mut asks, found);
        found.extend(asks.into_iter().map(|ask| match inst.slow_writes {
            true => Action::Send(r, ask),
            false => Action::Step(r, ask),
        }));
    }

    /// What an operator may ask of an agent now.
    fn orders(&self, r: usize, lab: &Lab, asks: &mut Vec<Ask>, found: &mut Vec<Action>) {
        let (inst, facts) = (&lab.inst, lab.facts(self.record));
        // Work that a revocation leaves behind. What to do where no standby is
        // safe is only asked where the key signs.
        for key in slots(self.agents[r].blocked & !facts.revoked) {
            asks.push(Ask::Revoke(key, None));
            if facts.active & bit(key) != 0 {
                asks.extend([Then::Wait, Then::Activate].map(|then| Ask::Revoke(key, Some(then))));
            }
        }
        // A hold does not last for ever.
        asks.extend(slots(facts.held).map(Ask::Release));
        if self.ordered.count_ones() >= inst.budget {
            return;
        }
        let keys = facts.shown & !bit(PLACEHOLDER);
        for order in inst.orders.iter().filter(|order| !self.was(**order)) {
            match order {
                Order::Rotate => asks.push(Ask::Rotate),
                Order::Force => {
                    let next = keys & !facts.active & !facts.retiring;
                    asks.extend(slots(next).map(Ask::Force));
                }
                Order::Init => asks.push(Ask::Init),
                // The other origin is as this one.
                Order::Waive => asks.push(Ask::Waive(0)),
                Order::Rollback => asks.extend(slots(facts.retiring).map(Ask::Rollback)),
                Order::Hold => asks.extend(slots(keys).map(Ask::Hold)),
                Order::Destroy => {
                    asks.extend(slots(facts.retiring).map(|key| Ask::Destroy(key, true)));
                }
                Order::Revoke => found.extend(slots(keys).map(|key| Action::Block(r, key))),
            }
        }
    }

    fn was(&self, order: Order) -> bool {
        self.ordered & (1 << order as u8) != 0
    }

    /// The state after an action; `None` where it changes nothing.
    pub(crate) fn after(&self, lab: &mut Lab, action: Action) -> Result<Option<Self>, Broken> {
        let mut next = *self;
        match action {
            Action::Pass => next.pass(lab)?,
            Action::Step(r, ask) => {
                next.looks(ask, &lab.inst);
                if let Some(record) = next.asked(lab, r, ask)? {
                    next.swap(lab, r, (record, true));
                }
            }
            Action::Send(r, ask) => {
                if let Some(record) = next.asked(lab, r, ask)? {
                    next.agents[r].writes = Some((record, true, 0));
                }
            }
            Action::Land(r) | Action::LandUnheard(r) => {
                let (record, current, _) = self.agents[r].writes.expect("it was offered");
                next.agents[r].writes = None;
                next.swap(lab, r, (record, current));
                if action == Action::LandUnheard(r) {
                    next.agents[r].link = Link::Gone;
                }
            }
            Action::Cut(r) => {
                let lease = units(lab.inst.world.timing.adoption);
                next.agents[r].link = Link::Cut(self.record, lease);
            }
            Action::Crash(r) => {
                next.agents[r].link = Link::Gone;
                next.agents[r].writes = None;
                next.agents[r].clock.doubted = false;
            }
            Action::Load(r) => next.load(lab, r)?,
            Action::Clock(r, fault) => next.agents[r].clock.fault = fault,
            Action::Reboot(r) => next.record = lab.rebooted(self.record, r)?,
            Action::Device(key) => {
                if lab.facts(self.record).held & self.objects & bit(key) != 0 {
                    return Err(format!("{} is held, and the device destroys it", kid(key)));
                }
                next.objects ^= bit(key);
            }
            Action::Pull(o) => {
                let source = match self.agents[0].link {
                    Link::Near => self.record,
                    Link::Cut(record, _) => record,
                    Link::Gone => return Ok(None),
                };
                next.serve(o, lab.facts(source).shown, &lab.inst);
            }
            Action::Regress(o, key) => {
                next.serve(o, self.fronts[o] & !bit(key), &lab.inst);
                let all = Ask::Observe(lab.inst.origin_mask());
                if let Some(record) = next.asked(lab, 0, all)? {
                    next.swap(lab, 0, (record, true));
                }
            }
            Action::Stray(o, key) => {
                next.serve(o, self.fronts[o] & !bit(key), &lab.inst);
                next.strayed |= bit(o);
            }
            Action::Block(r, key) => {
                next.ordered |= 1 << Order::Revoke as u8;
                next.agents[r].blocked |= bit(key);
            }
        }
        if next == *self {
            return Ok(None);
        }
        next.judge(lab)?;
        next.promise_fresh(self, lab)?;
        next.forget(lab);
        Ok((next != *self).then_some(next))
    }

    /// Somebody looks at origins.
    fn looks(&mut self, ask: Ask, inst: &Instance) {
        if let (Ask::Observe(origins), true) = (ask, inst.gaps) {
            for o in slots(origins) {
                self.unlooked[o] = 0;
                self.strayed &= !bit(o);
            }
        }
    }

    /// A process starts, or hears of the store again.
    fn load(&mut self, lab: &Lab, r: usize) -> Result<(), Broken> {
        let agent = &mut self.agents[r];
        if lab.inst.clocks {
            let (set, right) = (lab.set(self.record), lab.wall(r, NOW));
            agent.clock.doubted = lab.starts_in_doubt(set, r, agent.clock.fault, right)?;
        }
        agent.link = Link::Near;
        Ok(())
    }

    /// What an agent would store.
    fn asked(&mut self, lab: &mut Lab, r: usize, ask: Ask) -> Result<Option<Record>, Broken> {
        let clock = self.agents[r].clock;
        if lab.inst.clocks {
            let judged = lab.judged(lab.set(self.record), clock, lab.wall(r, NOW))?;
            self.agents[r].clock.doubted = judged.is_err();
            if ask == Ask::Confirm {
                self.agents[r].clock = Clock::RIGHT;
            }
        }
        let record = lab.step(self.record, (r, ask), clock, self.seen(lab))?;
        if let (Some(_), Some(order)) = (record, order_of(ask)) {
            self.ordered |= 1 << order as u8;
        }
        Ok(record)
    }

    /// What an agent gets that asks the origins.
    pub(crate) fn seen(&self, lab: &Lab) -> [Mask; 2] {
        match lab.inst.world.observes {
            true => self.fronts,
            false => [lab.facts(self.record).shown; 2],
        }
    }

    /// A write reaches the store.
    fn swap(&mut self, lab: &Lab, r: usize, (record, current): (Record, bool)) {
        let current = current || !lab.inst.world.compares;
        if port::swap(self.record, record, current) {
            self.record = record;
            for (other, agent) in self.agents.iter_mut().enumerate() {
                if let Some((_, current, _)) = agent.writes.as_mut().filter(|_| other != r) {
                    *current = false;
                }
            }
        }
    }

    fn serve(&mut self, o: usize, shown: Mask, inst: &Instance) {
        self.fronts[o] = shown;
        for (key, run) in self.runs[o].iter_mut().enumerate() {
            *run = match shown & bit(key) != 0 {
                true => (*run).max(1),
                false => 0,
            };
        }
        if inst.orders.contains(&Order::Revoke) {
            for key in slots(shown) {
                self.beside[key] |= shown & !bit(key);
            }
        }
    }

    fn pass(&mut self, lab: &mut Lab) -> Result<(), Broken> {
        let whole = whole_run(&lab.inst);
        self.record = lab.later(self.record)?;
        for agent in &mut self.agents {
            if let Link::Cut(record, left) = agent.link {
                agent.link = match left {
                    0 if lab.inst.world.leases => Link::Gone,
                    _ => Link::Cut(lab.later(record)?, left.saturating_sub(1)),
                };
            }
            if let Some((record, current, age)) = agent.writes {
                agent.writes = Some((lab.later(record)?, current, age + 1));
            }
        }
        for run in self.runs.iter_mut().flatten().filter(|run| **run > 0) {
            *run = (*run + 1).min(whole);
        }
        for token in &mut self.tokens {
            *token = token.saturating_sub(1);
        }
        if lab.inst.gaps {
            let enough = units(lab.inst.plan.timing.patience()) + 1;
            for unlooked in &mut self.unlooked {
                *unlooked = (*unlooked + 1).min(enough);
            }
        }
        Ok(())
    }

    /// Everybody signs what they may, and every promise is looked at.
    fn judge(&mut self, lab: &mut Lab) -> Result<(), Broken> {
        let facts = *lab.facts(self.record);
        let mut signed: Mask = 0;
        let mut blocked: Mask = 0;
        for r in 0..lab.inst.replicas {
            let agent = self.agents[r];
            blocked |= agent.blocked;
            let record = match agent.link {
                Link::Near => self.record,
                Link::Cut(record, _) => record,
                Link::Gone => continue,
            };
            self.excused |= lab.facts(record).forced;
            let reading = lab.reading(record, r, agent.blocked, agent.clock)?;
            if agent.link != Link::Near {
                lab.agree(record, self.record, r)?;
            }
            if let Some(key) = slots(reading.signs & !self.objects).next() {
                let (agent, key) = (name(r), kid(key));
                return Err(format!("{agent} signs with {key}, whose half is gone"));
            }
            for o in slots(lab.facts(record).waived) {
                let whole = whole_run(&lab.inst);
                let lacking = slots(reading.signs).filter(|key| self.runs[o][*key] < whole);
                self.unseen[o] |= lacking.fold(0, |mask, key| mask | bit(key));
            }
            signed |= reading.signs;
            for (token, lives) in self.tokens.iter_mut().zip(reading.lives) {
                *token = (*token).max(lives);
            }
        }
        if let Some(key) = slots(self.objects & !facts.named).next() {
            return Err(format!("{} is in the device and not on record", kid(key)));
        }
        if let Some(key) = slots(facts.present & !self.objects).next() {
            return Err(format!("{} is on record and not in the device", kid(key)));
        }
        self.promise_tokens(signed, facts.revoked | self.excused | blocked, &lab.inst)
    }

    /// Drops what decides nothing any more, so that the same is equal: what
    /// origins serve of a key that left the set, once its tokens are dead.
    fn forget(&mut self, lab: &Lab) {
        let facts = lab.facts(self.record);
        let live = (0..8).filter(|key| self.tokens[*key] > 0);
        let live = live.fold(0, |mask, key| mask | bit(key));
        self.excused &= facts.forced | live;
        for unseen in &mut self.unseen {
            // It may pause, while its ceiling is not raised.
            *unseen &= live | facts.shown;
        }
        let mut kept = facts.shown | facts.revoked;
        for agent in &self.agents {
            let record = match (agent.link, agent.writes) {
                (Link::Cut(record, _), _) | (_, Some((record, _, _))) => record,
                _ => continue,
            };
            kept |= lab.facts(record).shown;
        }
        for key in slots(!kept).filter(|key| self.tokens[*key] == 0) {
            for o in 0..2 {
                self.fronts[o] &= !bit(key);
                self.runs[o][key] = 0;
            }
            self.beside[key] = 0;
            for beside in &mut self.beside {
                *beside &= !bit(key);
            }
        }
    }
}

fn order_of(ask: Ask) -> Option<Order> {
    match ask {
        Ask::Rotate => Some(Order::Rotate),
        Ask::Rollback(_) => Some(Order::Rollback),
        Ask::Hold(_) => Some(Order::Hold),
        Ask::Destroy(..) => Some(Order::Destroy),
        Ask::Init => Some(Order::Init),
        Ask::Waive(_) => Some(Order::Waive),
        _ => None,
    }
}
