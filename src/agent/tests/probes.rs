//! What probes and caches are told while things are not as they should be.

use super::*;
use crate::agent::readiness::Watched as _;

/// Found by review: it said ready while every request for a token of the
/// default lifetime was refused.
#[tokio::test]
async fn readiness_is_what_a_token_of_the_default_lifetime_would_get() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let (agent, _inbox) = agent(&writer);
    let reason = || agent.readiness()[0].signing.clone().unwrap_err().reason;
    let signers = writer.reader.signers().unwrap();
    let now = bench.clock.read();
    let moment = signers.moment(now, &writer.reader.terms().timing);
    let ceiling = signers.view.signer(None, moment).unwrap().exp_ceiling;
    // The writer does not come round: the ceiling stays where it is.
    let lifetime = writer.reader.terms().rules.default_lifetime();
    bench.clock.advance((ceiling - lifetime).since(now.wall));
    // Nothing else is asked of the device, which this house does not have.
    assert_eq!(reason(), "DEVICE_ABSENT");
    bench.clock.advance(Span::from_secs(1));
    assert_eq!(reason(), "CEILING_REACHED");
}

/// Found by review: a clock that nobody believed said when caches end, and
/// while it was ahead of a removal, none could keep the set.
#[tokio::test]
async fn caches_end_by_the_judged_time() {
    let bench = Bench::begun().await;
    let mut writer = bench.writer().await;
    writer.settle().await;
    let now = bench.clock.read().wall;
    let (to, at) = (writer.active(), now + Span::from_secs(20));
    let held = &mut writer.held.as_mut().unwrap().record.set;
    // As after a rotation whose key leaves in 20 seconds.
    let id = held.by_kid(&to).unwrap().id;
    let key = held.keys.get_mut(&id).unwrap();
    key.exp_ceiling = Some(at - writer.plan.timing.skew);
    let long_ago = now - Span::from_days(30);
    key.phase = Phase::Retiring {
        since: long_ago,
        last_sign: long_ago,
    };
    let held = writer.held.clone().unwrap();
    writer.show(&held).await;
    let published = || writer.reader.published(bench.clock.read()).unwrap();
    let max_age = writer.plan.timing.max_age.to_duration();
    assert_eq!(published().max_age, Duration::from_secs(20));
    bench.clock.set_wall(now + Span::from_days(1));
    assert_eq!(published().max_age, Duration::from_secs(20));
    bench.clock.advance(Span::from_secs(20));
    assert_eq!(published().max_age, max_age);
}
