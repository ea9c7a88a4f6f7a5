//! `device unlock`: lets a PIN be tried again.

use std::path::Path;

use serde_json::json;

use super::compose;
use super::output::{Failure, say};
use crate::hsm::pin_marker;

/// Removes the marker that a refused PIN left.
pub(super) fn unlock(path: &Path, name: &str, as_json: bool) -> Result<(), Failure> {
    let config = compose::config(path)?;
    let device = config.devices.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.devices.keys().map(String::as_str).collect();
        Failure::usage(format!("no device {name:?} is configured"))
            .hint(format!("one of: {}", known.join(", ")))
    })?;
    let marker = device.pin_marker(&config.state_dir);
    let stood = pin_marker::unlock(&marker)
        .map_err(|e| Failure::failed(e).hint("may you write to the state directory?"))?;
    if as_json {
        return say(json!({ "device": name, "was_locked": stood }));
    }
    say(if stood {
        format!("the PIN of {name} may be tried once more: make sure first that it is right")
    } else {
        format!("{name} was not locked")
    })
}
