//! What may happen.

use std::fmt;

use super::ask::Ask;
use super::clock::Fault;
use super::lab::{kid, name};

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A unit of time.
    Pass,
    /// An agent takes a step, and its write succeeds at once.
    Step(usize, Ask),
    /// An agent sends a write.
    Send(usize, Ask),
    /// The write arrives.
    Land(usize),
    /// The write arrives, and the process dies before it knows.
    LandUnheard(usize),
    Cut(usize),
    Crash(usize),
    /// It loads the record, and its readers go by it.
    Load(usize),
    /// The device does what it was asked for a key.
    Device(usize),
    /// An origin fetches the set.
    Pull(usize),
    /// An origin goes back to a set without this key, and its agent sees it.
    Regress(usize, usize),
    /// An origin goes back to a set without this key, and nobody sees it.
    Stray(usize, usize),
    /// An operator revokes a key at one agent, which blocks it.
    Block(usize, usize),
    /// Somebody moves a clock, or sets it right.
    Clock(usize, Fault),
    /// A machine starts anew.
    Reboot(usize),
}

impl Action {
    /// What is done without an order, and without a fault.
    fn is_routine(self) -> bool {
        match self {
            Self::Step(_, ask) => matches!(ask, Ask::Tick | Ask::Observe(_) | Ask::Report(_)),
            Self::Device(_) | Self::Pull(_) => true,
            _ => false,
        }
    }

    /// Whether it waits, among the prompt, for what somebody has done.
    pub(crate) fn waits_for(self, done: Self) -> bool {
        let first = !matches!(done, Self::Step(1, _));
        done.is_routine()
            && match self {
                Self::Pass => true,
                Self::Step(1, _) => self.is_routine() && first,
                _ => false,
            }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Pass => f.write_str("a unit passes"),
            Self::Step(r, ask) => write!(f, "{} {ask}", name(r)),
            Self::Send(r, ask) => write!(f, "{} {ask}, and writes", name(r)),
            Self::Land(r) => write!(f, "the write of {} arrives", name(r)),
            Self::LandUnheard(r) => write!(f, "the write of {} arrives, and it dies", name(r)),
            Self::Cut(r) => write!(f, "{} loses sight of the store", name(r)),
            Self::Crash(r) => write!(f, "{} dies", name(r)),
            Self::Load(r) => write!(f, "{} loads the record", name(r)),
            Self::Device(key) => write!(f, "the device makes or destroys {}", kid(key)),
            Self::Pull(o) => write!(f, "origin {o} fetches the set"),
            Self::Regress(o, key) => {
                write!(f, "origin {o} goes back to a set without {}", kid(key))
            }
            Self::Stray(o, key) => {
                write!(
                    f,
                    "origin {o} goes back, out of sight, to a set without {}",
                    kid(key)
                )
            }
            Self::Clock(r, Fault::None) => write!(f, "the clock of {} is set right", name(r)),
            Self::Clock(r, Fault::Ahead) => write!(f, "the clock of {} leaps forward", name(r)),
            Self::Clock(r, Fault::Back) => write!(f, "the clock of {} steps back", name(r)),
            Self::Reboot(r) => write!(f, "the machine of {} starts anew", name(r)),
            Self::Block(r, key) => {
                write!(
                    f,
                    "an operator revokes {} at {}: blocked",
                    kid(key),
                    name(r)
                )
            }
        }
    }
}
