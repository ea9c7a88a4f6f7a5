//! Progress on what takes long, and silence on what does not.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes longer than this shows that it is at work.
const SILENT_FOR: Duration = Duration::from_secs(2);

/// A line on a terminal's standard error that comes after two seconds, and
/// goes when it is dropped.
pub(super) struct Late {
    bar: ProgressBar,
    began: Instant,
    shown: bool,
}

impl Late {
    /// `template` as indicatif has it: `{pos} of {len}`.
    pub(super) fn new(template: &str, len: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self {
            bar,
            began: Instant::now(),
            shown: false,
        }
    }

    /// So much is done.
    pub(super) fn at(&mut self, done: u64) {
        if !self.shown && self.began.elapsed() >= SILENT_FOR {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done);
        self.bar.tick();
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
