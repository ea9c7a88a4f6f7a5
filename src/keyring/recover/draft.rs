//! A key as the witnesses draw it, before anything is concluded.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::bare;
use super::{Finding, Inferred, Told, Vouched, Witnesses};
use crate::jose::PublicKey;
use crate::keyring::adopt::Adoption;
use crate::keyring::event::What;
use crate::keyring::key::{Half, Hold, Key, KeyId, Phase};
use crate::keyring::rules;
use crate::keyring::set::{Plan, Revocation};
use crate::keyring::view::PublishedKey;
use crate::time::{Span, Time};

/// All keys that witnesses know by an id of ours.
pub(super) struct Drafts {
    pub(super) keys: BTreeMap<KeyId, Draft>,
    pub(super) placeholder: Option<KeyId>,
    pub(super) revoked: BTreeMap<String, Revocation>,
    /// Whether a key was revoked of which nobody knows the track.
    pub(super) revoked_unseen: bool,
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) id: KeyId,
    /// Its `kid`, algorithm and numbers.
    pub(super) named: Option<PublishedKey>,
    pub(super) group: String,
    pub(super) created: Option<Time>,
    pub(super) published: Option<Time>,
    pub(super) activated: Option<Time>,
    /// As the log, or the older record, says it; `Generating` where neither
    /// knows more.
    pub(super) phase: Phase,
    /// It was to become active, and no cancellation is known.
    pub(super) switch: bool,
    abandoned: bool,
    pub(super) hold: Option<Hold>,
    pub(super) halves: BTreeMap<String, Half>,
    pub(super) tokens: BTreeMap<String, String>,
    pub(super) given_up: BTreeMap<String, Time>,
    pub(super) exp_ceiling: Option<Time>,
    pub(super) longest_lifetime: Span,
    pub(super) forced: bool,
    pub(super) adopted: Option<Box<Adoption>>,
    pub(super) in_log: bool,
    /// It was never made here.
    imported: bool,
    pub(super) record: Option<&'static str>,
    pub(super) held_by: BTreeSet<String>,
    pub(super) missing: bool,
    pub(super) on_disk: bool,
    pub(super) origins: BTreeSet<String>,
    /// It left the set after the record's time.
    pub(super) gone: bool,
    /// It may have.
    pub(super) unshown: bool,
}

impl Draft {
    fn new(id: KeyId, plan_group: &str) -> Self {
        Self {
            id,
            named: None,
            group: plan_group.to_owned(),
            created: None,
            published: None,
            activated: None,
            phase: Phase::Generating,
            switch: false,
            abandoned: false,
            hold: None,
            halves: BTreeMap::new(),
            tokens: BTreeMap::new(),
            given_up: BTreeMap::new(),
            exp_ceiling: None,
            longest_lifetime: Span::ZERO,
            forced: false,
            adopted: None,
            in_log: false,
            imported: false,
            record: None,
            held_by: BTreeSet::new(),
            missing: false,
            on_disk: false,
            origins: BTreeSet::new(),
            gone: false,
            unshown: false,
        }
    }

    fn of_record(key: &Key) -> Self {
        let named = (key.kid.clone()).zip(key.public.clone());
        Self {
            named: named.map(|(kid, public)| PublishedKey {
                kid,
                algorithm: key.algorithm,
                public,
            }),
            created: Some(key.created),
            published: key.published,
            activated: key.activated,
            phase: key.phase.clone(),
            hold: key.hold.clone(),
            halves: key.placements.clone(),
            tokens: key.tokens.clone(),
            given_up: key.given_up.clone(),
            exp_ceiling: key.exp_ceiling,
            longest_lifetime: key.longest_lifetime,
            forced: key.forced,
            adopted: key.adopted.clone(),
            record: Some(key.phase.name()),
            imported: key.placements.is_empty() && key.kid.is_some(),
            ..Self::new(key.id, &key.group)
        }
    }

    /// A device answered that should hold its private half, and does not.
    pub(super) fn is_missing(&self) -> bool {
        self.missing
    }

    /// Where its private half was made or taken over; what is known of it
    /// there stands.
    fn is_in(&mut self, device: Option<&String>) {
        if let Some(device) = device {
            self.halves.entry(device.clone()).or_insert(Half::Present);
        }
    }

    fn hear(&mut self, told: &Told, plan: &Plan) {
        let at = told.at;
        self.in_log = true;
        if let Some((kid, algorithm, public)) = &told.public {
            self.named = Some(PublishedKey {
                kid: kid.clone(),
                algorithm: *algorithm,
                public: public.clone(),
            });
        }
        match &told.what {
            What::GenerationBegun { device } => {
                self.created = Some(at);
                self.is_in(device.as_ref());
            }
            // Nobody knows when it was made: it is not fresh after a compromise.
            What::AdoptionBegun => self.created = Some(Time::default()),
            What::Adopted { device, id, label } => {
                self.created = Some(Time::default());
                self.is_in(Some(device));
                self.adopted = (told.public.as_ref()).map(|(kid, _, public)| {
                    Box::new(Adoption {
                        kid: kid.clone(),
                        public: public.clone(),
                        former_id: id.clone(),
                        label: label.clone(),
                        mandate: told.mandate.clone(),
                    })
                });
            }
            What::GenerationAbandoned => self.abandoned = true,
            What::Published => {
                self.phase = Phase::Published { since: at };
                self.published.get_or_insert(at);
            }
            What::PlaceholderMade => self.phase = Phase::Placeholder,
            What::ActivationScheduled { .. }
            | What::ActivationForced { .. }
            | What::RollbackScheduled { .. } => self.switch = true,
            What::ActivationCancelled => self.switch = false,
            What::Activated => {
                self.phase = Phase::Active { since: at };
                self.activated.get_or_insert(at);
                self.switch = false;
            }
            What::Retiring => {
                let last_sign = rules::rule_2_last_use(at, &plan.timing);
                self.phase = Phase::Retiring {
                    since: at,
                    last_sign,
                };
            }
            What::DestructionBegun { device } => {
                self.halves.insert(device.clone(), Half::Destroying);
            }
            What::Destroyed { device } => {
                self.halves.insert(device.clone(), Half::Destroyed);
            }
            What::Lost { device } => {
                self.halves.insert(device.clone(), Half::Lost);
            }
            What::DestructionStopped { device } => {
                self.halves.insert(device.clone(), Half::Present);
            }
            What::Removed => self.phase = Phase::Retired { since: at },
            What::Revoked { reason } | What::RevocationNoted { reason } => {
                let since = match self.phase {
                    Phase::Revoked { since, .. } => since,
                    _ => at,
                };
                let reason = *reason;
                self.phase = Phase::Revoked { since, reason };
            }
            What::Imported { until } => {
                self.published.get_or_insert(at);
                self.imported = true;
                self.exp_ceiling = self.exp_ceiling.max(Some(*until));
                self.phase = Phase::Retiring {
                    since: at,
                    last_sign: at,
                };
            }
            What::Held => {
                let since = self.hold.as_ref().map_or(at, |hold| hold.since);
                let mandate = told.mandate.clone();
                self.hold = Some(Hold { since, mandate });
            }
            What::Released => self.hold = None,
            What::ApprovalRequested { .. }
            | What::Approved { .. }
            | What::RequestWithdrawn { .. }
            | What::RequestExpired { .. }
            | What::OriginWaived { .. }
            | What::OriginRestored { .. }
            | What::WaiverEnded { .. }
            | What::ClockConfirmed { .. }
            | What::ObservedEverywhere
            | What::Regressed { .. }
            | What::Unobserved { .. }
            | What::RotationRequested
            | What::SuccessorForced
            | What::Recovered
            | What::RecordVouched { .. } => {}
        }
    }
}

impl Drafts {
    /// What the older record and the log say; the log from where the record
    /// ends.
    pub(super) fn replay(witnesses: &Witnesses, plan: &Plan) -> Self {
        let mut drafts = Self {
            keys: BTreeMap::new(),
            placeholder: None,
            revoked: BTreeMap::new(),
            revoked_unseen: false,
        };
        let mut known = 0;
        if let Some((set, events)) = &witnesses.record {
            known = *events;
            drafts.keys = (set.keys.values())
                .map(|key| (key.id, Draft::of_record(key)))
                .collect();
            drafts.placeholder = set.placeholder;
            drafts.revoked = set.revoked.clone();
            for switch in set.seats.values().filter_map(|seat| seat.switch.as_ref()) {
                if let Some(draft) = drafts.keys.get_mut(&switch.to) {
                    draft.switch = true;
                }
            }
        }
        for told in &witnesses.log {
            drafts.revocation(told);
            let new = || Draft::new(told.key, &plan.group);
            let draft = drafts.keys.entry(told.key).or_insert_with(new);
            draft.in_log = true;
            if told.number <= known && draft.record.is_some() {
                continue;
            }
            draft.hear(told, plan);
            if told.what == What::PlaceholderMade {
                drafts.placeholder = Some(told.key);
            }
        }
        drafts.keys.retain(|_, draft| !draft.abandoned);
        for (kid, revocation) in &witnesses.tombstones {
            let known = drafts.revoked.entry(kid.clone());
            known.or_insert_with(|| revocation.clone());
        }
        let kids: BTreeSet<&String> = drafts.kids().collect();
        drafts.revoked_unseen = drafts.revoked.keys().any(|kid| !kids.contains(kid));
        drafts
    }

    fn kids(&self) -> impl Iterator<Item = &String> {
        let named = self.keys.values().filter_map(|draft| draft.named.as_ref());
        named.map(|named| &named.kid)
    }

    fn revocation(&mut self, told: &Told) {
        let (What::Revoked { reason }, Some((kid, ..))) = (&told.what, &told.public) else {
            return;
        };
        let revocation = || Revocation {
            at: told.at,
            reason: *reason,
            mandate: told.mandate.clone(),
        };
        self.revoked.entry(kid.clone()).or_insert_with(revocation);
    }

    /// Takes up what sets show. Returns what is passed over.
    pub(super) fn show(
        &mut self,
        witnesses: &Witnesses,
        vouched: Vouched,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Vec<Finding> {
        let mut passed_over: BTreeMap<String, Finding> = BTreeMap::new();
        let on_disk = witnesses.last_good.iter().map(|shown| (None, shown));
        let origins = witnesses.origins.iter().flat_map(|(origin, shown)| {
            let origin = Some(origin.as_str());
            shown.iter().map(move |shown| (origin, shown))
        });
        // The placeholder is of the set's own disk, and is no key that signs.
        let placeholder = witnesses.placeholder.iter();
        for shown in placeholder {
            self.show_placeholder(shown, witnesses, ids);
        }
        for (origin, shown) in on_disk.chain(origins) {
            let trusted = origin.is_none() || vouched.origins_are_true;
            match self.place(shown, witnesses, trusted, ids) {
                Ok(draft) => match origin {
                    Some(origin) => drop(draft.origins.insert(origin.to_owned())),
                    None => draft.on_disk = true,
                },
                Err(inferred) => {
                    let finding = passed_over.entry(shown.kid.clone());
                    let finding = finding.or_insert_with(|| bare(None, &shown.kid, inferred));
                    finding.on_disk |= origin.is_none();
                    finding.origins.extend(origin.map(str::to_owned));
                }
            }
        }
        passed_over.into_values().collect()
    }

    /// The draft of a key that a set shows.
    fn place(
        &mut self,
        shown: &PublishedKey,
        witnesses: &Witnesses,
        trusted: bool,
        ids: &mut dyn FnMut() -> KeyId,
    ) -> Result<&mut Draft, Inferred> {
        let named = |draft: &Draft| draft.named.as_ref().map(|named| named.kid.clone());
        let known = self.keys.values();
        let mut known = known.filter(|draft| named(draft).as_ref() == Some(&shown.kid));
        let known = known.next().map(|draft| draft.id);
        let id = match known {
            Some(id) => id,
            None => {
                let held = held(witnesses, &shown.public);
                if held.is_none() && !trusted {
                    return Err(Inferred::OnlyAtOrigins);
                }
                held.unwrap_or_else(ids)
            }
        };
        let group = self.keys.values().map(|draft| draft.group.clone()).next();
        let new = || Draft::new(id, group.as_deref().unwrap_or(crate::keyring::ONLY_GROUP));
        let draft = self.keys.entry(id).or_insert_with(new);
        match &draft.named {
            Some(named) if *named != *shown => return Err(Inferred::Contradicted),
            Some(_) => {}
            None => draft.named = Some(shown.clone()),
        }
        Ok(draft)
    }

    fn show_placeholder(
        &mut self,
        shown: &PublishedKey,
        witnesses: &Witnesses,
        ids: &mut dyn FnMut() -> KeyId,
    ) {
        if self.placeholder.is_some() || self.kids().any(|kid| *kid == shown.kid) {
            return;
        }
        if let Ok(draft) = self.place(shown, witnesses, true, ids) {
            draft.phase = Phase::Placeholder;
            draft.on_disk = true;
            self.placeholder = Some(draft.id);
        }
    }

    /// Compares with what devices hold. What a token lacks that was never meant
    /// to hold it is gone only where the operator vouches for that.
    pub(super) fn look_into_devices(
        &mut self,
        witnesses: &Witnesses,
        vouched: Vouched,
        plan: &Plan,
        now: Time,
    ) {
        for draft in self.keys.values_mut() {
            let Some(named) = &draft.named else { continue };
            for (device, held) in &witnesses.devices {
                if held.get(&draft.id) != Some(&named.public) {
                    continue;
                }
                draft.held_by.insert(device.clone());
                draft.given_up.remove(device);
                let token = witnesses.tokens.get(device);
                (draft.tokens).extend(token.map(|token| (device.clone(), token.clone())));
                let half = draft.halves.entry(device.clone()).or_insert(Half::Present);
                if *half == Half::Destroyed {
                    // Its destruction was ordered; somebody brought it back.
                    *half = Half::Destroying;
                }
            }
            if draft.halves.is_empty() && draft.in_log && !draft.imported {
                // The log did not always say where.
                draft.halves.insert(plan.device.clone(), Half::Present);
            }
            // What signs no more needs no half.
            let live = matches!(draft.phase, Phase::Published { .. } | Phase::Active { .. });
            for (device, half) in &mut draft.halves {
                let answered = witnesses.devices.contains_key(device);
                if answered && !draft.held_by.contains(device) {
                    draft.missing |= *half == Half::Present && live;
                    let (holds, asked) = (draft.tokens.get(device), witnesses.tokens.get(device));
                    if holds.is_none() || holds == asked || vouched.keys_are_lost {
                        // What was ordered of the token that answers is done.
                        let done = *half == Half::Destroying && holds == asked;
                        if *half != Half::Destroyed && !done {
                            draft.given_up.insert(device.clone(), now);
                        }
                        *half = Half::Destroyed;
                    }
                }
                // Of a placeholder it goes as soon as it exists; of a key that
                // is held it stays for whoever looks into what happened.
                match (&draft.phase, &draft.hold, *half) {
                    (Phase::Placeholder, _, Half::Present) => *half = Half::Destroying,
                    (Phase::Retired { .. } | Phase::Revoked { .. }, Some(_), Half::Destroying) => {
                        *half = Half::Present;
                    }
                    _ => {}
                }
            }
            draft.missing &= draft.held_by.is_empty();
        }
    }
}

/// The id under which a device holds the private half of a public key.
fn held(witnesses: &Witnesses, public: &PublicKey) -> Option<KeyId> {
    let mut held = witnesses.devices.values().flatten();
    held.find(|(_, it)| *it == public).map(|(id, _)| *id)
}
