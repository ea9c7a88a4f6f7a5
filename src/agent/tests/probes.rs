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
    let moment = signers.moment(now, &writer.reader.timing);
    let ceiling = signers.view.signer(None, moment).unwrap().exp_ceiling;
    // The writer does not come round: the ceiling stays where it is.
    let lifetime = writer.reader.rules.default_lifetime();
    bench.clock.advance((ceiling - lifetime).since(now.wall));
    // Nothing else is asked of the device, which this house does not have.
    assert_eq!(reason(), "DEVICE_ABSENT");
    bench.clock.advance(Span::from_secs(1));
    assert_eq!(reason(), "CEILING_REACHED");
}
