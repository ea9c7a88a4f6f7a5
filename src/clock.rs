//! The only place that asks the time.
//!
//! Everything below takes instants as arguments; the agent reads a [`Clock`]
//! and passes what it saw downward.

use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::time::{Span, Time};

/// What the clocks of the machine said, one right after the other.
///
/// Between two readings `wall` and `boot` should advance by the same amount.
/// Where they do not, somebody stepped the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    /// The civil time, UTC. It can step, in both directions.
    pub wall: Time,
    /// Time since the machine started, suspended time included
    /// (`CLOCK_BOOTTIME`, clock_gettime(2)). Never runs backwards, cannot be
    /// set, and means nothing across a restart of the machine.
    pub boot: Span,
}

/// A source of readings. A trait, so that a test can own the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// What time it is. Never blocks, never fails.
    fn read(&self) -> Reading;

    /// Which start of the machine `boot` counts from: readings with the same
    /// name can be held against each other, by different processes too. Empty
    /// where the machine does not say.
    fn boot_id(&self) -> String;
}

/// The machine's clocks.
#[derive(Debug, Default)]
pub struct SystemClock {
    #[cfg(feature = "failpoints")]
    offset: step::Offset,
}

impl SystemClock {
    /// The machine's clocks.
    ///
    /// In a build with the feature `failpoints`, and in no other, the wall
    /// clock is shifted by what stands in the file that the environment
    /// variable `SEALKEEPER_TEST_CLOCK_OFFSET` names: a signed whole number of
    /// milliseconds, read anew each time. So a test steps the wall clock of a
    /// running daemon, while boot time runs on. A second number shifts boot
    /// time: with the same number twice, time passes. An absent file means no
    /// shift; a file that is being written keeps the shift read last. There,
    /// `SEALKEEPER_TEST_BOOT_ID` says which start of the machine this is.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(feature = "failpoints")]
            offset: step::Offset::from_environment(),
        }
    }
}

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        let (wall, boot) = together(|| {
            let before = since_start(ClockId::Boottime);
            let wall = wall_millis(SystemTime::now());
            (before, wall, since_start(ClockId::Boottime))
        });
        #[cfg(feature = "failpoints")]
        let (wall, boot) = self.offset.apply(wall, boot);
        Reading {
            wall: Time::from_millis(wall),
            boot: Span::from(boot),
        }
    }

    /// A random id of the running kernel (random(4)).
    fn boot_id(&self) -> String {
        #[cfg(feature = "failpoints")]
        if let Ok(id) = std::env::var("SEALKEEPER_TEST_BOOT_ID") {
            return id;
        }
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    }
}

/// The wall clock and the time since the start, of one instant.
///
/// Why again: a process that is put to sleep between the two readings would
/// see the wall clock step by as long as it slept, and doubt it for good.
fn together(look: impl Fn() -> (Duration, i64, Duration)) -> (i64, Duration) {
    let apart = |&(before, _, after): &(Duration, i64, Duration)| after.saturating_sub(before);
    let mut best = look();
    for _ in 1..LOOKS {
        if apart(&best) <= CLOSE {
            break;
        }
        let next = look();
        if apart(&next) < apart(&best) {
            best = next;
        }
    }
    let (before, wall, _) = best;
    (wall, before + apart(&best) / 2)
}

/// How often the clocks are read until the readings are close enough.
const LOOKS: usize = 5;

/// Far below the least skew that a configuration may allow.
const CLOSE: Duration = Duration::from_millis(1);

/// Time since the machine started, as the service manager dates what it is told
/// (`CLOCK_MONOTONIC`; sd_notify(3), `MONOTONIC_USEC`).
#[must_use]
pub fn monotonic() -> Duration {
    since_start(ClockId::Monotonic)
}

fn since_start(clock: ClockId) -> Duration {
    let read = clock_gettime(clock);
    Duration::new(
        u64::try_from(read.tv_sec).unwrap_or(0),
        u32::try_from(read.tv_nsec).unwrap_or(0),
    )
}

/// Milliseconds since 1970, rounded down; negative before.
fn wall_millis(now: SystemTime) -> i64 {
    let clamp = |ms: u128| i64::try_from(ms).unwrap_or(i64::MAX / 4);
    match now.duration_since(UNIX_EPOCH) {
        Ok(after) => clamp(after.as_millis()),
        // A machine without a battery may believe this; the agent's own checks
        // of the clock must see it rather than a panic here.
        Err(before) => -clamp(before.duration().as_millis()) - 1,
    }
}

/// Steps the wall clock of a running daemon; in test builds alone.
#[cfg(feature = "failpoints")]
mod step {
    use std::path::PathBuf;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    #[derive(Debug, Default)]
    pub(super) struct Offset {
        file: Option<PathBuf>,
        /// In milliseconds, of the wall clock and of boot time.
        last: Mutex<(i64, u64)>,
    }

    impl Offset {
        pub(super) fn from_environment() -> Self {
            Self::from_file(std::env::var_os("SEALKEEPER_TEST_CLOCK_OFFSET").map(PathBuf::from))
        }

        pub(super) fn from_file(file: Option<PathBuf>) -> Self {
            Self {
                file,
                last: Mutex::default(),
            }
        }

        pub(super) fn apply(&self, wall: i64, boot: Duration) -> (i64, Duration) {
            let (of_wall, of_boot) = self.read();
            let boot = boot.saturating_add(Duration::from_millis(of_boot));
            (wall.saturating_add(of_wall), boot)
        }

        fn read(&self) -> (i64, u64) {
            let Some(file) = &self.file else {
                return (0, 0);
            };
            let read = match std::fs::read_to_string(file) {
                Ok(text) => parse(&text),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some((0, 0)),
                Err(_) => None,
            };
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = read.unwrap_or(*last);
            *last
        }
    }

    fn parse(text: &str) -> Option<(i64, u64)> {
        let mut words = text.split_whitespace();
        let wall = words.next()?.parse().ok()?;
        let boot = words.next().map_or(Some(0), |word| word.parse().ok())?;
        Some((wall, boot))
    }
}

/// A clock that stands still until it is told to move, for simulations and
/// tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Reading, u64)>);

impl ManualClock {
    /// A clock that shows `wall`, on a machine that started an hour ago.
    #[must_use]
    pub fn new(wall: Time) -> Self {
        let boot = Span::from_hours(1);
        Self(Mutex::new((Reading { wall, boot }, 1)))
    }

    /// Time passes: both clocks advance.
    pub fn advance(&self, by: Span) {
        self.with(|r| {
            r.wall = r.wall + by;
            r.boot = r.boot + by;
        });
    }

    /// Somebody sets the wall clock; boot time does not move.
    pub fn set_wall(&self, wall: Time) {
        self.with(|r| r.wall = wall);
    }

    /// The machine has started so long ago.
    pub fn set_boot(&self, boot: Span) {
        self.with(|r| r.boot = boot);
        self.lock().1 += 1;
    }

    fn with<T>(&self, f: impl FnOnce(&mut Reading) -> T) -> T {
        f(&mut self.lock().0)
    }

    fn lock(&self) -> MutexGuard<'_, (Reading, u64)> {
        // A reading is plain data: a panic elsewhere cannot have left it torn.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Clock for ManualClock {
    fn read(&self) -> Reading {
        self.with(|r| *r)
    }

    fn boot_id(&self) -> String {
        self.lock().1.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a machine that sleeps between two readings.
    #[test]
    fn readings_that_were_torn_apart_are_taken_again() {
        let ms = Duration::from_millis;
        let reading = |looks: Vec<(Duration, i64, Duration)>| {
            let looks = std::cell::RefCell::new(looks.into_iter());
            together(|| {
                looks
                    .borrow_mut()
                    .next()
                    .expect("no more looks than allowed")
            })
        };
        let torn = (ms(1_000), 90_000, ms(1_400));
        assert_eq!(
            reading(vec![torn, (ms(1_500), 90_100, ms(1_500))]),
            (90_100, ms(1_500))
        );
        // However busy the machine is: the one that was torn least.
        let torn = |n: u64| (ms(n), i64::try_from(n).expect("small"), ms(n + n));
        let looks = vec![torn(90), torn(40), torn(70), torn(60), torn(50)];
        assert_eq!(reading(looks), (40, ms(60)));
    }

    #[test]
    fn the_system_clock_tells_civil_time_and_time_since_boot() {
        let clock = SystemClock::new();
        let before = wall_millis(SystemTime::now());
        let reading = clock.read();
        let after = wall_millis(SystemTime::now());
        assert!((before..=after).contains(&reading.wall.as_millis()));
        // /proc/uptime is boot time too, to a hundredth of a second.
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let uptime: f64 = uptime
            .split(' ')
            .next()
            .and_then(|s| s.parse().ok())
            .expect("seconds");
        #[expect(clippy::cast_possible_truncation, reason = "a count of milliseconds")]
        let uptime = (uptime * 1000.0) as i64;
        let boot = reading.boot.as_millis();
        assert!(
            (boot - 20..boot + 10_000).contains(&uptime),
            "{boot} {uptime}"
        );
    }

    #[test]
    fn boot_time_never_runs_backwards() {
        let clock = SystemClock::new();
        let mut last = clock.read().boot;
        for _ in 0..1000 {
            let boot = clock.read().boot;
            assert!(boot >= last);
            last = boot;
        }
    }

    #[test]
    fn before_1970_is_negative() {
        let before = UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(wall_millis(before), -1501);
    }

    #[test]
    fn a_manual_clock_steps_wall_and_boot_apart() {
        let clock = ManualClock::new(Time::from_secs(1_000));
        clock.advance(Span::from_secs(5));
        let advanced = clock.read();
        assert_eq!(advanced.wall, Time::from_secs(1_005));
        clock.set_wall(Time::from_secs(10));
        assert_eq!(clock.read().boot, advanced.boot);
        assert_eq!(clock.read().wall, Time::from_secs(10));
        clock.set_boot(Span::ZERO);
        assert_eq!(clock.read().boot, Span::ZERO);
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn a_test_build_shifts_the_wall_clock_by_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("offset");
        let clock = SystemClock {
            offset: step::Offset::from_file(Some(file.clone())),
        };
        let shift = |clock: &SystemClock| {
            let plain = SystemClock::default().read();
            let shifted = clock.read();
            assert!(shifted.boot.as_millis() - plain.boot.as_millis() < 60_000);
            shifted.wall.as_millis() - plain.wall.as_millis()
        };
        assert!(
            shift(&clock).abs() < 60_000,
            "an absent file shifts nothing"
        );
        std::fs::write(&file, "-86400000\n").expect("written");
        assert!((-86_460_000..-86_340_000).contains(&shift(&clock)));
        std::fs::write(&file, "").expect("written");
        assert!(
            shift(&clock) < -86_340_000,
            "a half-written file changes nothing"
        );
        let boot = || clock.read().boot.as_millis();
        let before = boot();
        std::fs::write(&file, "86400000 86400000\n").expect("written");
        let passed = boot() - before;
        assert!((86_400_000..86_460_000).contains(&passed), "{passed}");
    }
}
