//! What works and what does not, for an operator who looks for the cause.

use super::origins::OriginHealth;
use super::overdue::LateRotation;
use super::readiness::Trouble;
use super::record::{Record, RecordError};
use super::unwritten::Unwritten;
use super::{Agent, Reader, Room};
use crate::hsm::{Device, State};
use crate::keyring::KeySet;

/// Whether each key set signs and each device answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Ordered by name.
    pub key_sets: Vec<KeySetHealth>,
    /// Ordered by name.
    pub devices: Vec<DeviceHealth>,
}

/// Whether a key set signs, as far as its record, the clock, its device, and
/// what became of the last signature go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetHealth {
    /// Its name.
    pub name: String,
    /// Where it does not: the code that callers get, and why.
    pub fault: Option<(&'static str, String)>,
    /// The rotations that should have been done. The old keys sign on.
    pub late: Vec<LateRotation>,
    /// The addresses at which its JWKS is observed, and what they show.
    pub origins: Vec<OriginHealth>,
    /// The revocations that a restart would forget.
    pub unwritten: Unwritten,
}

/// Whether a device is open and logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceHealth {
    /// Its name.
    pub name: String,
    /// Where it is not: why.
    pub fault: Option<String>,
    /// Whether its PIN was refused and must not be tried again.
    pub pin_blocked: bool,
    /// The open token's label and serial number.
    pub token: Option<String>,
    /// Its serial number alone.
    pub serial: Option<String>,
    /// Whether it is being opened just now, for the first time.
    pub opening: bool,
}

impl Agent {
    /// As everything is now, from memory.
    pub(super) fn look(&self) -> Health {
        let (rooms, reading) = (self.0.rooms.iter(), self.clock().read());
        Health {
            key_sets: rooms
                .map(|(name, room)| KeySetHealth {
                    name: name.clone(),
                    fault: self.fault(name, &room.reader),
                    late: room
                        .reader
                        .overview()
                        .late(room.reader.judged(reading), &room.reader.terms().timing),
                    origins: origins(room),
                    unwritten: (*room.reader.unwritten()).clone(),
                })
                .collect(),
            devices: self.0.context.devices.values().map(device).collect(),
        }
    }

    /// As readiness has it. And what only a look for the cause should know:
    /// whoever routes requests would never try a key again that was missed
    /// once.
    fn fault(&self, name: &str, reader: &Reader) -> Option<(&'static str, String)> {
        let ready = self.readiness_of(name).signing;
        let trouble = |trouble: Trouble| (trouble.reason, trouble.why);
        ready.err().map(trouble).or_else(|| {
            let signers = reader.signers().ok()?;
            let moment = signers.moment(self.clock().read(), &reader.terms().timing);
            let key = signers.view.signer(None, moment).ok()?;
            let missing = reader.check_missing(key).err()?;
            Some((missing.reason(), missing.to_string()))
        })
    }
}

/// As the writer last saw them; before it has, as they are configured.
fn origins(room: &Room) -> Vec<OriginHealth> {
    let overview = room.reader.overview();
    let terms = room.reader.terms();
    let all = terms.observed_at.iter().map(|(name, url)| {
        let seen = overview.origins.iter().find(|seen| seen.name == *name);
        OriginHealth {
            name: name.clone(),
            url: url.clone(),
            ..seen.cloned().unwrap_or_default()
        }
    });
    all.collect()
}

fn device(device: &Device) -> DeviceHealth {
    let mut health = DeviceHealth {
        name: device.name().to_owned(),
        fault: None,
        pin_blocked: false,
        token: None,
        serial: None,
        opening: false,
    };
    match &*device.state().borrow() {
        State::Up { token, .. } => {
            health.token = Some(format!("{:?}, serial {}", token.label, token.serial));
            health.serial = Some(token.serial.clone());
        }
        State::Starting => {
            health.fault = Some("it is being opened".to_owned());
            health.opening = true;
        }
        State::Closed => health.fault = Some("it was shut down".to_owned()),
        State::Down {
            why, pin_blocked, ..
        } => {
            health.fault = Some(why.clone());
            health.pin_blocked = *pin_blocked;
        }
    }
    health
}

/// Reads a record as the agent does, for tools that only look. `log` is how
/// many key events of the key set the log knows.
///
/// # Errors
/// [`RecordError`], as it would keep the agent from signing.
pub fn inspect(record: &[u8], log: u64) -> Result<KeySet, RecordError> {
    let record = Record::from_bytes(record)?;
    record.check_against_log(log)?;
    Ok(record.set)
}
