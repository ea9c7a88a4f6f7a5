//! What goes over the wire comes back.

use super::*;

#[test]
fn dates_survive_the_wire() {
    for ms in [0, 1, 999, 1000, 1_700_000_000_123, -1, -1000, -1001] {
        let at = Time::from_millis(ms);
        assert_eq!(time(timestamp(at)), Some(at), "{ms}");
    }
    for (seconds, nanos) in [(0, -1_000_000), (0, 1_000_000_000), (i64::MAX, 0)] {
        assert_eq!(time(prost_types::Timestamp { seconds, nanos }), None);
    }
}
