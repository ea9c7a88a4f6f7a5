//! The small worlds that are explored, each wholly.

use sealkeeper::jose::{Algorithm, KeyType};
use sealkeeper::keyring::{HardLimit, ONLY_GROUP, Plan, Timing};
use sealkeeper::time::Span;

use super::record::{Mask, UNIT};

/// What a world is made of, and what the agents in it are told.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) name: &'static str,
    /// What the agents are configured with.
    pub(crate) plan: Plan,
    /// How long things really take.
    pub(crate) world: World,
    pub(crate) replicas: usize,
    /// The agent whose clock is fast by the skew. The other's is that of the
    /// verifiers.
    pub(crate) fast: usize,
    /// How many keys the device ever makes. The next one is asked for and does
    /// not come.
    pub(crate) keys: usize,
    /// The agents that lose sight of the store, and whose processes die and
    /// start.
    pub(crate) absent: Mask,
    /// The first agent does at once what there is to do, and no time passes
    /// before; the other one has what is left. Otherwise all of them are as
    /// slow as they like.
    pub(crate) prompt: bool,
    /// A write takes its time, and its answer may not arrive.
    pub(crate) slow_writes: bool,
    /// An origin goes back to an older set.
    pub(crate) regressions: bool,
    /// An origin goes back and comes again while nobody looks for longer than a
    /// patience.
    pub(crate) gaps: bool,
    /// Somebody moves the clocks.
    pub(crate) clocks: bool,
    /// How late a rotation is told from later still. It decides nothing, and so
    /// none elsewhere.
    pub(crate) late: Span,
    /// What an operator may order, each at most once.
    pub(crate) orders: &'static [Order],
    /// How many orders in all.
    pub(crate) budget: u32,
}

/// The truth, which no agent knows.
#[derive(Clone)]
pub(crate) struct World {
    /// In the world as it should be, what the plan says.
    pub(crate) timing: Timing,
    /// The store refuses a write that was made from an older record.
    pub(crate) compares: bool,
    /// Whoever does not hear of the store stops signing.
    pub(crate) leases: bool,
    /// Origins are asked; otherwise an agent takes its own set for what the
    /// public gets.
    pub(crate) observes: bool,
    /// Nothing is signed whose `exp` lies above the ceiling.
    pub(crate) ceilings: bool,
}

/// What an operator may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    Rotate,
    Force,
    Rollback,
    Revoke,
    Hold,
    Destroy,
    Init,
    Waive,
}

/// A schedule in units: the smallest in which each wait can be told from each
/// other one and from none.
fn timing(rotate_every: u32, rollback_window: u32) -> Timing {
    Timing {
        rotate_every: UNIT.times(rotate_every),
        verifier_cache: UNIT,
        propagation: UNIT,
        skew: UNIT,
        max_token_lifetime: UNIT,
        rollback_window: UNIT.times(rollback_window),
        adoption: UNIT,
        signing_deadline: UNIT,
        max_age: UNIT,
        cdn_stale: Span::ZERO,
        window: None,
        max_gap: Span::from_days(1),
        hard_limit: HardLimit::Page(UNIT),
    }
}

fn instance(name: &'static str, timing: Timing, origins: usize) -> Instance {
    let plan = Plan {
        timing,
        tracks: vec![(Algorithm::Ed25519, KeyType::Ed25519)],
        device: "hsm".to_owned(),
        group: ONLY_GROUP.to_owned(),
        origins: (0..origins).map(origin).collect(),
        two_people: false,
    };
    Instance {
        name,
        plan,
        world: World {
            timing,
            compares: true,
            leases: true,
            observes: true,
            ceilings: true,
        },
        replicas: 1,
        fast: 1,
        keys: 3,
        absent: 0,
        prompt: false,
        slow_writes: false,
        regressions: false,
        gaps: false,
        clocks: false,
        late: Span::ZERO,
        orders: &[],
        budget: 0,
    }
}

pub(crate) fn origin(o: usize) -> String {
    format!("origin {o}")
}

impl Instance {
    /// Two agents with clocks that differ by the whole skew, which lose sight
    /// of the store, die and start: two rotations by the calendar, as late as
    /// may be.
    pub(crate) fn fleet() -> Self {
        Self {
            replicas: 2,
            absent: 0b11,
            ..instance("a fleet", timing(7, 0), 1)
        }
    }

    /// Two agents that hear of everything, and are late.
    pub(crate) fn late_fleet() -> Self {
        let fleet = Self::fleet();
        Self {
            name: "a late fleet",
            absent: 0,
            late: fleet.plan.timing.pre_publish(),
            ..fleet
        }
    }

    /// The same with writes that take their time, and of whose arrival the
    /// agents may never hear.
    pub(crate) fn slow_writes() -> Self {
        Self {
            name: "slow writes",
            slow_writes: true,
            ..Self::fleet()
        }
    }

    /// One agent and two origins, which lag, fall silent, and go back to an
    /// older set.
    pub(crate) fn origins() -> Self {
        Self {
            regressions: true,
            ..instance("two origins", timing(7, 0), 2)
        }
    }

    /// One agent, two origins that lag and fall silent, and an operator who has
    /// nobody wait for one of them, for a while.
    pub(crate) fn waived() -> Self {
        Self {
            keys: 2,
            orders: &[Order::Waive],
            budget: 1,
            ..instance("an origin waived", timing(7, 0), 2)
        }
    }

    /// One agent and an origin that falls silent, as the agent does itself, and
    /// meanwhile goes back to an older set.
    /// Verifiers keep sets for longer than an activation takes to be heard of:
    /// else that alone would hide what nobody saw.
    pub(crate) fn out_of_sight() -> Self {
        let timing = Timing {
            verifier_cache: UNIT.times(3),
            ..timing(10, 0)
        };
        Self {
            absent: 0b1,
            gaps: true,
            ..instance("out of sight", timing, 1)
        }
    }

    /// One agent on a machine whose clock leaps and steps back, which dies and
    /// starts, and sometimes the machine with it.
    pub(crate) fn clocks() -> Self {
        Self {
            absent: 0b1,
            clocks: true,
            keys: 2,
            ..instance("clocks that leap", timing(7, 0), 1)
        }
    }

    /// One agent, which gets two orders.
    pub(crate) fn operator() -> Self {
        Self {
            prompt: true,
            orders: &[
                Order::Rotate,
                Order::Force,
                Order::Rollback,
                Order::Revoke,
                Order::Hold,
                Order::Destroy,
                Order::Init,
            ],
            budget: 2,
            ..instance("an operator", timing(7, 3), 1)
        }
    }

    /// One agent and an order, where nobody goes back and the set is smaller.
    pub(crate) fn no_way_back() -> Self {
        Self {
            prompt: true,
            orders: &[Order::Rotate, Order::Revoke, Order::Hold, Order::Destroy],
            budget: 1,
            ..instance("no way back", timing(7, 0), 1)
        }
    }

    /// One agent that stops signing with a key that is too old.
    pub(crate) fn hard_limit() -> Self {
        let timing = Timing {
            hard_limit: HardLimit::Stop(UNIT),
            ..timing(7, 0)
        };
        Self {
            keys: 2,
            ..instance("a hard limit", timing, 1)
        }
    }

    /// A fleet that hears of everything, with a network in front of it that
    /// keeps the set longer than verifiers are said to.
    pub(crate) fn stale_network() -> Self {
        let timing = Timing {
            cdn_stale: UNIT,
            ..timing(7, 0)
        };
        Self {
            replicas: 2,
            ..instance("a stale network", timing, 1)
        }
    }

    /// Two agents, one of which loses sight of the store, and an order to
    /// either.
    pub(crate) fn operated_fleet() -> Self {
        Self {
            name: "an operated fleet",
            replicas: 2,
            fast: 0,
            absent: 0b10,
            budget: 1,
            ..Self::operator()
        }
    }

    /// The same with a rollback that is overtaken, and the faster clock at the
    /// agent that does not hear of it.
    pub(crate) fn overtaken() -> Self {
        Self {
            name: "a rollback overtaken",
            keys: 2,
            fast: 1,
            orders: &[Order::Rollback, Order::Hold],
            budget: 2,
            ..Self::operated_fleet()
        }
    }

    pub(crate) fn origin_mask(&self) -> Mask {
        (1 << self.plan.origins.len()) - 1
    }
}
