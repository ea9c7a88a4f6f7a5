//! Tells readers that there may be something new to read.

use std::sync::Arc;

use tokio::sync::watch;

use crate::hsm::Device;

/// Beats whenever a view, a block or a device changes. What changed, a reader
/// finds out by reading: so a slow one misses nothing but what is outdated.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<watch::Sender<()>>);

impl Pulse {
    pub(super) fn beat(&self) {
        self.0.send_replace(());
    }

    pub(super) fn feel(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }

    /// Beats with a device, until the device ends.
    pub(super) fn follow(&self, device: &Device) {
        let (pulse, mut state) = (self.clone(), device.state());
        tokio::spawn(async move {
            while state.changed().await.is_ok() {
                pulse.beat();
            }
        });
    }
}
