//! How fast a device signs, as its replies tell.

use std::time::Duration;

use tokio::time::Instant;

/// The moving average goes over so many signatures, and some for each worker:
/// workers that began together end together, and a part of such a wave says
/// nothing.
const OVER: f64 = 32.0;
const OVER_FOR_EACH_WORKER: f64 = 8.0;
/// How many signatures must have been made until anything is said: so many
/// for each worker, and no more than enough.
const FIRST_FOR_EACH_WORKER: usize = 4;
const ENOUGH: usize = 256;

/// The measured speed of one device, over all its children.
///
/// What is measured is the time that one worker takes for one signature: it
/// is the same whether one worker is busy or all are, so a lone request says
/// as much about the device as a crowd.
#[derive(Debug)]
pub(super) struct Pace {
    workers: usize,
    /// Signatures that were sent and not answered.
    in_flight: usize,
    /// In seconds.
    service_s: f64,
    /// How many signatures that is the average of, as a weight.
    known: f64,
    /// Time of busy workers since the last reply, in seconds, all together.
    spent_s: f64,
    /// Up to when time is accounted for.
    at: Instant,
    /// When the last reply came, or the first request after a rest was sent.
    heard: Instant,
}

impl Pace {
    pub(super) fn new(workers: usize, now: Instant) -> Self {
        Self {
            workers: workers.max(1),
            in_flight: 0,
            service_s: 0.0,
            known: 0.0,
            spent_s: 0.0,
            at: now,
            heard: now,
        }
    }

    /// Lets time pass; says how much passed, and how much of that the workers
    /// had nothing to do, as a part of all of them.
    pub(super) fn lapse(&mut self, now: Instant) -> (Duration, Duration) {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let busy = self.in_flight.min(self.workers) as f64;
        self.spent_s += passed.as_secs_f64() * busy;
        (passed, passed.mul_f64(1.0 - busy / self.workers as f64))
    }

    /// So many signatures are on their way to the device.
    pub(super) fn sent(&mut self, n: usize, now: Instant) {
        self.lapse(now);
        if self.in_flight == 0 {
            self.heard = self.at;
        }
        self.in_flight += n;
    }

    /// So many came back; `signed` of them were work for the device.
    pub(super) fn landed(&mut self, n: usize, signed: usize, now: Instant) {
        self.lapse(now);
        self.in_flight = self.in_flight.saturating_sub(n);
        self.heard = self.at;
        if signed == 0 {
            return;
        }
        let over = OVER + OVER_FOR_EACH_WORKER * self.workers as f64;
        let signed = signed as f64;
        let sample = self.spent_s / signed;
        self.spent_s = 0.0;
        self.known = (self.known + signed).min(over.max(signed));
        self.service_s += (sample - self.service_s) * signed / self.known;
    }

    /// The child is gone, and with it what was in flight.
    pub(super) fn lost(&mut self, now: Instant) {
        self.lapse(now);
        self.in_flight = 0;
        self.spent_s = 0.0;
    }

    /// How long one worker takes for one signature.
    pub(super) fn service(&self) -> Option<Duration> {
        let enough = (FIRST_FOR_EACH_WORKER * self.workers).min(ENOUGH);
        if self.known < enough as f64 {
            return None;
        }
        Some(Duration::from_secs_f64(self.service_s.max(0.0)))
    }

    /// How long until a worker is free for a request with so many others
    /// before it that are not sent yet.
    ///
    /// A device that is silent for longer than it takes for one has stalled:
    /// nobody knows for how long, but as long again is a fair guess. Once, and
    /// not for each that waits: most stalls are of the machine's making and
    /// end at once for all.
    pub(super) fn wait(&self, ahead: usize) -> Option<Duration> {
        let turns = (ahead + self.in_flight + 1).saturating_sub(self.workers);
        if turns == 0 {
            return self.service().map(|_| Duration::ZERO);
        }
        Some(self.each()?.mul_f64(turns as f64) + self.stalled())
    }

    fn stalled(&self) -> Duration {
        if self.in_flight == 0 {
            return Duration::ZERO;
        }
        let silent = self.at.saturating_duration_since(self.heard);
        silent.saturating_sub(self.service().unwrap_or_default())
    }

    /// How long the device, all workers together, takes for one.
    pub(super) fn each(&self) -> Option<Duration> {
        Some(self.service()?.div_f64(self.workers as f64))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn near(a: Option<Duration>, b: Duration) -> bool {
        a.unwrap().abs_diff(b) <= b / 100
    }

    /// Eight workers, 2 ms each: one request at a time tells the same as
    /// eight at a time.
    #[test]
    fn a_lone_request_tells_as_much_as_a_crowd() {
        for crowd in [1, 3, 8] {
            let mut now = Instant::now();
            let mut pace = Pace::new(8, now);
            for _ in 0..50 {
                pace.sent(crowd, now);
                now += 2 * MS;
                pace.landed(crowd, crowd, now);
                now += 7 * MS;
            }
            assert!(near(pace.service(), 2 * MS), "{crowd}: {pace:?}");
            assert!(near(pace.each(), MS / 4), "{crowd}: {pace:?}");
        }
    }

    #[test]
    fn what_is_in_flight_is_waited_for() {
        let mut now = Instant::now();
        let mut pace = Pace::new(2, now);
        assert_eq!(pace.wait(9), None, "nothing is known yet");
        pace.sent(8, now);
        now += 8 * MS;
        pace.landed(8, 8, now);
        assert_eq!(pace.wait(0), Some(Duration::ZERO));
        assert_eq!(pace.wait(1), Some(Duration::ZERO));
        assert_eq!(pace.wait(2), Some(MS));
        pace.sent(4, now);
        assert_eq!(pace.wait(0), Some(3 * MS));
        pace.lost(now);
        assert_eq!(pace.wait(0), Some(Duration::ZERO));
    }

    /// Workers that begin and end together, with a request for the next wave
    /// behind each: at no point of the wave does the device look much slower
    /// or faster than it is.
    #[test]
    fn waves_do_not_rock_it() {
        for workers in [1, 2, 16, 64] {
            let mut now = Instant::now();
            let mut pace = Pace::new(workers, now);
            pace.sent(2 * workers, now);
            for _ in 0..30 {
                now += 2 * MS;
                for _ in 0..workers {
                    pace.landed(1, 1, now);
                    pace.sent(1, now);
                    let service = pace.service().unwrap_or(2 * MS);
                    assert!(
                        service >= MS * 3 / 2 && service <= MS * 3,
                        "{workers}: {service:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_silent_device_is_waited_for_as_long_again() {
        let mut now = Instant::now();
        let mut pace = Pace::new(1, now);
        pace.sent(4, now);
        now += 4 * MS;
        pace.landed(4, 4, now);
        // Silence with nothing to do says nothing.
        now += 1000 * MS;
        pace.lapse(now);
        assert_eq!(pace.wait(10), Some(10 * MS));
        pace.sent(1, now);
        now += MS;
        pace.lapse(now);
        assert_eq!(pace.wait(10), Some(11 * MS));
        now += 300 * MS;
        pace.lapse(now);
        assert_eq!(pace.wait(10), Some(311 * MS));
        assert_eq!(pace.service(), Some(MS));
        pace.lost(now);
        assert_eq!(pace.wait(10), Some(10 * MS));
    }

    #[test]
    fn it_follows_a_device_that_changes() {
        let mut now = Instant::now();
        let mut pace = Pace::new(2, now);
        for service in [MS, 10 * MS, MS / 2] {
            for _ in 0..200 {
                pace.sent(2, now);
                now += service;
                pace.landed(2, 2, now);
            }
            assert!(near(pace.service(), service), "{service:?}: {pace:?}");
        }
    }

    #[test]
    fn what_expired_in_the_child_was_no_work() {
        let mut now = Instant::now();
        let mut pace = Pace::new(1, now);
        pace.sent(10, now);
        now += 8 * MS;
        pace.landed(6, 0, now);
        pace.landed(4, 4, now);
        assert_eq!(pace.service(), Some(2 * MS));
    }

    #[test]
    fn time_that_nobody_worked_is_spare() {
        let mut now = Instant::now();
        let mut pace = Pace::new(4, now);
        now += 8 * MS;
        assert_eq!(pace.lapse(now), (8 * MS, 8 * MS));
        pace.sent(1, now);
        now += 8 * MS;
        assert_eq!(pace.lapse(now), (8 * MS, 6 * MS));
        pace.sent(9, now);
        now += 8 * MS;
        assert_eq!(pace.lapse(now), (8 * MS, Duration::ZERO));
    }
}
