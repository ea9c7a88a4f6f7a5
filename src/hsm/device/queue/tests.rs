//! The queue alone, then with a device that is played: minutes pass in
//! milliseconds.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn limits(places: usize) -> Limits {
    Limits {
        places,
        max_wait: 250 * MS,
    }
}

fn queue(places: usize, now: Instant) -> Queue<u32> {
    Queue::new(limits(places), 1, now)
}

/// A queue of a device with one worker that takes so long for each.
fn measured(service: Duration, now: Instant) -> Queue<u32> {
    let mut queue = queue(1_000_000, now);
    queue.sent(4, now);
    queue.landed(4, 4, now + 4 * service);
    queue
}

fn accepted(queue: &mut Queue<u32>, flow: &str, item: u32, now: Instant) {
    let offered = queue.offer(flow, item, now + 60_000 * MS, now);
    assert_eq!(offered, Offered::Accepted, "{flow} {item}");
}

#[test]
fn flows_take_turns() {
    let now = Instant::now();
    let mut queue = queue(100, now);
    for item in 0..5 {
        accepted(&mut queue, "a", item, now);
    }
    accepted(&mut queue, "b", 10, now);
    accepted(&mut queue, "b", 11, now);
    accepted(&mut queue, "c", 20, now);
    let order: Vec<u32> = std::iter::from_fn(|| queue.take(now)).collect();
    assert_eq!(order, [0, 10, 20, 1, 11, 2, 3, 4]);
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn a_full_queue_takes_a_place_from_the_longest_flow() {
    let now = Instant::now();
    let mut queue = queue(4, now);
    let soon = now + 1000 * MS;
    for item in 0..4 {
        accepted(&mut queue, "flood", item, now);
    }
    let Offered::Refused(4, refusal) = queue.offer("flood", 4, soon, now) else {
        panic!("expected the flood to be turned away");
    };
    assert_eq!(refusal.waiting, 4);
    assert_eq!(refusal.retry_after, RETRY_UNKNOWN);
    for (item, out) in [(10, 3), (11, 2)] {
        let offered = queue.offer("other", item, soon, now);
        assert!(
            matches!(offered, Offered::InPlaceOf(o, _) if o == out),
            "{offered:?}"
        );
    }
    // Two each: nobody has more than a fair share.
    for flow in ["flood", "other"] {
        let offered = queue.offer(flow, 12, soon, now);
        assert!(matches!(offered, Offered::Refused(12, _)), "{offered:?}");
    }
    let offered = queue.offer("third", 20, soon, now);
    assert!(matches!(offered, Offered::InPlaceOf(..)), "{offered:?}");
    assert_eq!(queue.waiting(), 4);
}

#[test]
fn what_would_wait_too_long_is_turned_away_with_an_honest_hint() {
    let now = Instant::now();
    let mut queue = measured(10 * MS, now);
    let later = now + 40 * MS;
    let mut n = 0;
    let refusal = loop {
        match queue.offer("a", n, later + 60_000 * MS, later) {
            Offered::Accepted => n += 1,
            Offered::Refused(_, refusal) => break refusal,
            other => panic!("{other:?}"),
        }
    };
    // 25 before it make 250 ms.
    assert_eq!(n, 26);
    assert_eq!(refusal.waiting, 26);
    // Those before it, and itself.
    assert_eq!(refusal.retry_after, 270 * MS);
}

#[test]
fn a_request_that_would_come_too_late_is_turned_away() {
    let now = Instant::now();
    let mut queue = measured(10 * MS, now);
    let now = now + 40 * MS;
    for item in 0..5 {
        accepted(&mut queue, "a", item, now);
    }
    let offered = queue.offer("a", 9, now + 49 * MS, now);
    assert!(matches!(offered, Offered::Refused(9, _)), "{offered:?}");
    let offered = queue.offer("a", 9, now + 50 * MS, now);
    assert_eq!(offered, Offered::Accepted);
    // The turn of another flow comes sooner.
    let offered = queue.offer("b", 9, now + 20 * MS, now);
    assert_eq!(offered, Offered::Accepted);
}

#[test]
fn whom_nobody_waits_for_is_let_go() {
    let now = Instant::now();
    let mut queue = queue(100, now);
    for item in 0..6 {
        accepted(&mut queue, if item < 3 { "a" } else { "b" }, item, now);
    }
    queue.retain(|item| *item > 2 && item % 2 == 0, now);
    assert_eq!(queue.waiting(), 1);
    assert_eq!(queue.take(now), Some(4));
    assert_eq!(queue.take(now), None);
}

/// A device with workers of a given speed behind a queue, in played time.
struct Play {
    now: Instant,
    service: Duration,
    workers: usize,
    queue: Queue<Asked>,
    with_child: VecDeque<Asked>,
    working: BinaryHeap<Reverse<(Instant, u64, Instant)>>,
    number: u64,
    done: Vec<Done>,
    refused: Vec<Done>,
    hints: Vec<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    flow: u64,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    flow: u64,
    took: Duration,
}

impl Play {
    fn new(workers: usize, service: Duration) -> Self {
        let now = Instant::now();
        Self {
            now,
            service,
            workers,
            queue: Queue::new(limits(1024), workers, now),
            with_child: VecDeque::new(),
            working: BinaryHeap::new(),
            number: 0,
            done: Vec::new(),
            refused: Vec::new(),
            hints: Vec::new(),
        }
    }

    fn offer(&mut self, flow: u64) {
        let (at, now) = (self.now, self.now);
        let asked = Asked { flow, at };
        match self
            .queue
            .offer(&flow.to_string(), asked, now + 5000 * MS, now)
        {
            Offered::Accepted => {}
            Offered::InPlaceOf(asked, refusal) | Offered::Refused(asked, refusal) => {
                self.hints.push(refusal.retry_after);
                self.refused.push(Done {
                    flow: asked.flow,
                    took: now - asked.at,
                });
            }
        }
        self.pump();
    }

    fn pump(&mut self) {
        while self.with_child.len() + self.working.len() < 2 * self.workers
            && let Some(asked) = self.queue.take(self.now)
        {
            self.with_child.push_back(asked);
            self.queue.sent(1, self.now);
        }
        while self.working.len() < self.workers
            && let Some(asked) = self.with_child.pop_front()
        {
            let end = self.now + self.service;
            self.working.push(Reverse((end, asked.flow, asked.at)));
        }
    }

    /// Plays on until `until`; says whose request was done, one at a time.
    fn next_done(&mut self, until: Instant) -> Option<u64> {
        let Some(&Reverse((end, flow, at))) = self.working.peek() else {
            self.now = until;
            return None;
        };
        if end > until {
            self.now = until;
            return None;
        }
        self.working.pop();
        self.now = end;
        self.queue.landed(1, 1, end);
        self.done.push(Done {
            flow,
            took: end - at,
        });
        self.pump();
        Some(flow)
    }

    /// A time for each flow at which so many ask each second, at random, and
    /// do not wait for answers.
    fn run(&mut self, rates: &[f64], time: Duration) {
        let end = self.now + time;
        let mut next: Vec<Instant> = rates.iter().map(|_| self.now).collect();
        loop {
            let (flow, at) = next
                .iter()
                .copied()
                .enumerate()
                .min_by_key(|(_, at)| *at)
                .unwrap();
            if at > end {
                break;
            }
            while self.next_done(at).is_some() {}
            self.offer(flow as u64);
            let gap = -self.random().ln() / rates[flow];
            next[flow] = at + Duration::from_secs_f64(gap);
        }
        while self.next_done(end).is_some() {}
    }

    /// Between 0 and 1, without them; the same ones each time.
    fn random(&mut self) -> f64 {
        self.number = self.number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.number;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn p99(&self, flow: u64) -> Duration {
        let mut took: Vec<_> = self
            .done
            .iter()
            .filter(|done| done.flow == flow)
            .map(|done| done.took)
            .collect();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    fn count(&self, flow: u64) -> usize {
        self.done.iter().filter(|done| done.flow == flow).count()
    }
}

#[test]
fn a_minute_of_fourfold_overload_leaves_latency_flat_and_the_device_busy() {
    for workers in [2, 16] {
        let capacity = workers as f64 / 0.002;
        let mut quiet = Play::new(workers, 2 * MS);
        quiet.run(&[capacity / 2.0], 20_000 * MS);
        assert_eq!(quiet.refused.len(), 0);

        let mut flood = Play::new(workers, 2 * MS);
        flood.run(&[capacity * 4.0], 60_000 * MS);
        let (before, now) = (quiet.p99(0), flood.p99(0));
        assert!(now <= 3 * before, "{workers}: {now:?}, quiet {before:?}");
        assert!(flood.done.len() as f64 >= 0.98 * 60.0 * capacity);
        // Nobody is told to come back at once, nor to stay away.
        let hints = &flood.hints[flood.hints.len() / 10..];
        assert!(hints.iter().all(|hint| *hint >= 100 * MS));
        assert!(hints.iter().all(|hint| *hint <= 1000 * MS));
        // Answered at once, unless another flow needed the place.
        assert!(flood.refused.iter().all(|one| one.took.is_zero()));
    }
}

#[test]
fn a_flood_leaves_others_their_share() {
    let mut play = Play::new(2, 2 * MS);
    // Capacity is 1000 a second. One floods, one asks for less than a third,
    // one for more.
    play.run(&[4000.0, 250.0, 600.0], 20_000 * MS);
    let polite = play.refused.iter().filter(|one| one.flow == 1).count();
    assert!(polite * 100 <= play.count(1), "{polite} refused");
    assert!(play.p99(1) <= 40 * MS, "{:?}", play.p99(1));
    let (flood, more) = (play.count(0) as f64, play.count(2) as f64);
    assert!(
        (0.8..1.25).contains(&(flood / more)),
        "{flood} {more} {}",
        play.count(1)
    );
    assert!(play.done.len() as f64 >= 0.98 * 20_000.0);
}

#[test]
fn no_flow_starves_among_many() {
    let mut play = Play::new(2, 2 * MS);
    play.run(&[200.0; 40], 20_000 * MS);
    let fair = play.done.len() / 40;
    for flow in 0..40 {
        let count = play.count(flow);
        assert!((fair * 8 / 10..=fair * 12 / 10).contains(&count), "{count}");
    }
}

/// Callers who wait for their answers are no overload, however many.
#[test]
fn a_crowd_that_waits_for_its_answers_is_not_turned_away() {
    let mut play = Play::new(2, 2 * MS);
    for _ in 0..200 {
        play.offer(0);
    }
    let end = play.now + 20_000 * MS;
    while let Some(flow) = play.next_done(end) {
        play.offer(flow);
    }
    assert_eq!(play.refused.len(), 0);
    assert!(play.done.len() >= 19_900);
}

/// A stall of the whole machine is over at once for all: it turns nobody away
/// who would be served in time. One that lasts does.
#[test]
fn a_short_stall_is_no_reason_to_turn_a_crowd_away() {
    let mut play = Play::new(2, 2 * MS);
    play.run(&[800.0], 1_000 * MS);
    for _ in 0..50 {
        play.offer(0);
    }
    play.now += 100 * MS;
    for _ in 0..50 {
        play.offer(0);
    }
    assert_eq!(play.refused.len(), 0);
    play.now += 300 * MS;
    play.offer(0);
    assert_eq!(play.refused.len(), 1);
}

#[test]
fn after_an_overload_a_crowd_is_let_in_again() {
    let mut play = Play::new(2, 2 * MS);
    play.run(&[4000.0], 5_000 * MS);
    // Half of its time is spare: what was turned away is soon forgotten.
    play.run(&[500.0], 2_000 * MS);
    let refused = play.refused.len();
    for _ in 0..100 {
        play.offer(0);
    }
    assert_eq!(play.refused.len(), refused);
}

#[derive(Clone, Debug)]
enum Step {
    Offer { flow: u8, patience_ms: u64 },
    Take,
    Sent,
    Landed,
    Lost,
    Sweep { modulus: u32 },
    Wait { us: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..5_u8, 0..400_u64).prop_map(|(flow, patience_ms)| Step::Offer { flow, patience_ms }),
        4 => Just(Step::Take),
        2 => Just(Step::Sent),
        2 => Just(Step::Landed),
        1 => Just(Step::Lost),
        1 => (2..5_u32).prop_map(|modulus| Step::Sweep { modulus }),
        3 => (0..20_000_u64).prop_map(|us| Step::Wait { us }),
    ]
}

/// What holds of a queue whenever nobody is inside.
fn invariant(queue: &Queue<(u8, u32)>) {
    let lines = queue.flows.values().map(|flow| flow.line.len());
    assert_eq!(queue.waiting, lines.clone().sum::<usize>());
    assert!(queue.waiting <= queue.limits.places);
    assert_eq!(queue.turns.len(), lines.filter(|len| *len > 0).count());
    for name in &queue.turns {
        assert!(queue.own(name) > 0);
    }
    for flow in queue.flows.values() {
        assert!(!flow.line.is_empty() || !flow.debt.is_zero());
        assert!(flow.debt <= queue.limits.max_wait);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn bounds_hold_and_nobody_is_lost(
        places in 1..12_usize,
        workers in 1..4_usize,
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut now = Instant::now();
        let mut queue = Queue::new(limits(places), workers, now);
        let (mut offered, mut gone) = (0_usize, 0_usize);
        // For each flow that waits: how often others were served since it came
        // or was served itself.
        let mut passed: BTreeMap<u8, BTreeMap<u8, usize>> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Offer { flow, patience_ms } => {
                    offered += 1;
                    let own = queue.own(&flow.to_string());
                    let item = (flow, u32::try_from(n).unwrap());
                    match queue.offer(&flow.to_string(), item, now + Duration::from_millis(patience_ms), now) {
                        Offered::Accepted => {}
                        Offered::InPlaceOf(out, refusal) => {
                            gone += 1;
                            prop_assert_ne!(out.0, flow);
                            let theirs = queue.own(&out.0.to_string());
                            prop_assert!(theirs > own, "{} and {}", theirs, own);
                            prop_assert!(refusal.retry_after >= RETRY_LEAST);
                        }
                        Offered::Refused(out, refusal) => {
                            gone += 1;
                            prop_assert_eq!(out, item);
                            prop_assert!(refusal.retry_after <= RETRY_MOST);
                        }
                    }
                }
                Step::Take => {
                    if let Some((flow, _)) = queue.take(now) {
                        gone += 1;
                        passed.remove(&flow);
                        let waiting: Vec<u8> =
                            queue.turns.iter().map(|name| name.parse().unwrap()).collect();
                        passed.retain(|name, _| waiting.contains(name));
                        for other in waiting.into_iter().filter(|other| *other != flow) {
                            let times = passed.entry(other).or_default().entry(flow).or_default();
                            *times += 1;
                            prop_assert!(*times <= 1, "{} passed {} twice", flow, other);
                        }
                    } else {
                        prop_assert_eq!(queue.waiting(), 0);
                    }
                }
                Step::Sent => queue.sent(1, now),
                Step::Landed => queue.landed(1, 1, now),
                Step::Lost => queue.lost(now),
                Step::Sweep { modulus } => {
                    let before = queue.waiting();
                    queue.retain(|(_, item)| item % modulus == 0, now);
                    gone += before - queue.waiting();
                    passed.clear();
                }
                Step::Wait { us } => now += Duration::from_micros(us),
            }
            invariant(&queue);
            prop_assert_eq!(offered, gone + queue.waiting());
        }
    }
}
