//! What the edges log, as a test hears it.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

/// Lines that this thread logged. Tests run on one thread each, so these are
/// the test's own, but for what blocks elsewhere.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// JSON lines, as a daemon without a terminal writes them, until the guard
    /// is dropped.
    pub(super) fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (log, set_default(subscriber.into()))
    }

    /// All that anything says, at the wordiest.
    pub(super) fn listen_to_all() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, set_default(subscriber.into()))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines about this event.
    pub(super) fn lines(&self, event: &str) -> Vec<String> {
        let event = format!("\"event\":\"{event}\"");
        let text = self.text();
        let lines = text.lines().filter(|line| line.contains(&event));
        lines.map(str::to_owned).collect()
    }

    /// The reasons of the lines about this event.
    pub(super) fn reasons(&self, event: &str) -> Vec<String> {
        let reason = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["fields"]["reason"].as_str().unwrap().to_owned()
        };
        self.lines(event).iter().map(reason).collect()
    }
}

/// Why a second one beside it: while there is but one subscriber, `tracing`
/// asks the *current thread's* whether a line is wanted, and keeps the answer
/// for all. A test on another thread, without any, would silence this one.
fn set_default(subscriber: Dispatch) -> DefaultGuard {
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| {
        let nowhere = tracing_subscriber::fmt().with_writer(std::io::sink);
        nowhere.finish().into()
    });
    // What was settled before there were two is settled anew.
    tracing::callsite::rebuild_interest_cache();
    tracing::dispatcher::set_default(&subscriber)
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
