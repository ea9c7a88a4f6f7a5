//! A configuration that changes under an agent that runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::admin::AdminError;
use super::context::blocking;
use super::pulse::Pulse;
use super::reader::Reader;
use super::terms::Terms;
use super::writer::{Held, Message, Writer};
use super::{Agent, Context, Wanted, gone, observe_origin};
use crate::keyring::{Genesis, Lowered, OWN_LISTENER, Plan};
use crate::observe::Origin;

/// Who asks the origins of a key set, each by its name. They end with it.
#[derive(Default)]
pub(super) struct Observers(BTreeMap<String, Observer>);

struct Observer {
    origin: Origin,
    every: Duration,
    task: AbortHandle,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// Takes a key set's new configuration into use; when it returns, the
    /// record follows it as far as it may at once.
    ///
    /// # Errors
    /// [`AdminError::UnknownKeySet`] for one that was not there at the start.
    pub async fn follow(&self, wanted: Wanted) -> Result<(), AdminError> {
        let name = wanted.name.clone();
        let (reply, done) = oneshot::channel();
        let message = Message::Follow(Box::new(wanted), reply);
        self.tell(&name, message).await?;
        done.await.map_err(|_| gone(&name))
    }
}

impl Writer {
    /// Of a command that works while no agent runs: nobody reads.
    pub(super) fn alone(context: Arc<Context>, wanted: &Wanted) -> Self {
        let figures = context.metrics.key_set(&wanted.name);
        let terms = Terms::of(wanted, None);
        let reader = Reader::new(&wanted.name, terms, figures, Pulse::default());
        Self::new(context, Arc::new(reader), plan(wanted))
    }

    /// Goes by another configuration from now on, as after a restart with it.
    ///
    /// Readers have it first. What it permits beyond the last one waits for
    /// the record all the same: no token outlives the stored ceiling of its
    /// key, and no key signs before its activation is stored.
    pub(super) async fn follow(&mut self, wanted: Wanted) {
        let before = self.reader.terms();
        // There may be tens of thousands of rules: whoever signs does not wait
        // for them.
        let (terms, wanted) = blocking(move || (Terms::of(&wanted, Some(&before)), wanted)).await;
        self.reader.agree(terms);
        self.plan = plan(&wanted);
        self.watch(wanted.origins.into_iter().chain(wanted.own));
        if let (None, Some(held)) = (&self.dark, self.held.clone())
            && !matches!(held.record.set.genesis, Genesis::Pending { .. })
        {
            self.show(&held).await;
        }
        self.tick().await;
    }

    /// Says in the log that the configuration lowered a bound that holds on for
    /// what was fetched before.
    pub(super) fn tell_of_bounds(&self, before: Option<&Held>, now: &Held) {
        let lowered = |held: &Held| held.record.set.bounds.and_then(|known| known.lowered);
        let Some(longer) = lowered(now).filter(|it| before.and_then(lowered) != Some(*it)) else {
            return;
        };
        let Lowered { bounds, until } = longer;
        tracing::warn!(
            key_set = self.reader.name,
            verifier_cache = %bounds.verifier_cache,
            propagation = %bounds.propagation,
            skew = %bounds.skew,
            %until,
            "a bound was lowered: what was fetched before is kept for as long as by the one of before, and activations wait accordingly"
        );
    }

    /// Whether an origin's answer counts: it may have been taken off the
    /// configuration meanwhile.
    pub(super) fn asks(&self, origin: &str) -> bool {
        origin == OWN_LISTENER || self.plan.origins.contains(origin)
    }

    /// Asks these origins from now on, and no others. Whoever is asked already,
    /// as often, goes on: a run of sightings is not broken for nothing.
    pub(super) fn watch(&mut self, origins: impl IntoIterator<Item = Origin>) {
        let every = self.plan.timing.look_every().to_duration();
        let mut before = std::mem::take(&mut self.observers.0);
        for origin in origins {
            let name = origin.name().to_owned();
            let kept = before.remove(&name);
            let kept = kept.filter(|kept| kept.origin == origin && kept.every == every);
            let observer = kept.unwrap_or_else(|| {
                let news = Arc::downgrade(&self.news);
                let task = tokio::spawn(observe_origin(origin.clone(), every, news));
                Observer {
                    origin,
                    every,
                    task: task.abort_handle(),
                }
            });
            self.observers.0.insert(name, observer);
        }
        let asked = &self.observers.0;
        self.live.retain(|name, _| asked.contains_key(name));
        self.origins.only(|name| asked.contains_key(name));
    }
}

/// The plan, with the names of the origins.
pub(super) fn plan(wanted: &Wanted) -> Plan {
    let names = wanted.origins.iter().map(|origin| origin.name().to_owned());
    Plan {
        origins: names.collect(),
        ..wanted.plan.clone()
    }
}
