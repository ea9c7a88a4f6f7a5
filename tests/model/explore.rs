//! Every state, nearest first.

use std::collections::HashSet;
use std::fmt;

use super::action::Action;
use super::ask::Ask;
use super::hash::Quick;
use super::instance::Instance;
use super::lab::{Broken, Lab};
use super::world::State;

/// What an exploration went through.
pub(crate) struct Visited {
    pub(crate) states: usize,
    transitions: usize,
    records: usize,
}

impl fmt::Display for Visited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            transitions,
            records,
        } = self;
        write!(
            f,
            "{states} states, {transitions} transitions, {records} records"
        )
    }
}

/// A promise that does not hold, and the shortest way there.
pub(crate) struct Violation {
    pub(crate) what: Broken,
    trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, line) in self.trace.iter().enumerate() {
            writeln!(f, "{:>4}  {line}", step + 1)?;
        }
        write!(f, "      and so: {}", self.what)
    }
}

/// Visits every state that can be reached.
pub(crate) fn explore(inst: &Instance) -> Result<Visited, Violation> {
    let mut lab = Lab::new(inst);
    let first = State::beginning(&mut lab).map_err(|what| Violation {
        what,
        trace: Vec::new(),
    })?;
    let mut known: HashSet<State, Quick> = HashSet::from_iter([first]);
    // In the order of their distance; with each, from where it was reached.
    let mut states = vec![(first, 0, Action::Pass)];
    let (mut next, mut transitions) = (0, 0);
    while let Some((state, _, _)) = states.get(next).copied() {
        let mut done = Vec::new();
        for action in state.actions(&lab) {
            if inst.prompt && done.iter().any(|done| action.waits_for(*done)) {
                continue;
            }
            match state.after(&mut lab, action) {
                Ok(None) => {}
                Ok(Some(reached)) => {
                    transitions += 1;
                    done.push(action);
                    if known.insert(reached) {
                        states.push((reached, next, action));
                    }
                }
                Err(what) => {
                    let trace = trace(&mut lab, &states, next, action);
                    return Err(Violation { what, trace });
                }
            }
        }
        next += 1;
    }
    Ok(Visited {
        states: states.len(),
        transitions,
        records: lab.records(),
    })
}

/// The way from the beginning to a state, and one action more.
fn trace(
    lab: &mut Lab,
    states: &[(State, usize, Action)],
    mut at: usize,
    last: Action,
) -> Vec<String> {
    let mut way = vec![(states[at].0, last)];
    while at > 0 {
        let (_, before, action) = states[at];
        way.push((states[before].0, action));
        at = before;
    }
    way.reverse();
    let mut passed = 0;
    way.into_iter()
        .map(|(state, action)| {
            passed += usize::from(action == Action::Pass);
            let told = match action {
                Action::Step(r, ask) | Action::Send(r, ask) => told(lab, &state, r, ask),
                _ => String::new(),
            };
            format!("at {passed}: {action}{told}")
        })
        .collect()
}

fn told(lab: &Lab, state: &State, r: usize, ask: Ask) -> String {
    let clock = state.agents[r].clock;
    match lab.events(state.record, (r, ask), clock, state.seen(lab)) {
        events if events.is_empty() => events,
        events => format!(": {events}"),
    }
}
