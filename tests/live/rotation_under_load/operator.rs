//! The operator: looks at the keys, and gives orders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost_types::Timestamp;
use sealkeeper::api::v1::key_admin_client::KeyAdminClient;
use sealkeeper::api::v1::{
    ConfirmClockRequest, Key, ListKeysRequest, Order, Phase, RollbackKeyRequest, RotateKeyRequest,
};
use sealkeeper::time::Time;
use tokio::time::{MissedTickBehavior, interval};
use tonic::Status;
use tonic::transport::Channel;

use super::Scene;

#[derive(Clone)]
pub(super) struct Operator {
    admin: KeyAdminClient<Channel>,
}

impl Operator {
    pub(super) fn new(admin: KeyAdminClient<Channel>) -> Self {
        Self { admin }
    }

    /// Vouches for a clock that was put right.
    pub(super) async fn confirm_clock(&mut self, reading: Time) -> Result<(), Status> {
        let request = ConfirmClockRequest {
            order: order("confirm"),
            reading: Some(Timestamp {
                seconds: reading.as_secs(),
                nanos: 0,
            }),
            ..Default::default()
        };
        self.admin.confirm_clock(request).await.map(drop)
    }

    pub(super) async fn rotate(&mut self) -> Result<(), Status> {
        let request = RotateKeyRequest {
            order: order("rotate"),
            ..Default::default()
        };
        self.admin.rotate_key(request).await.map(drop)
    }

    pub(super) async fn rollback(&mut self, kid: &str) -> Result<(), Status> {
        let request = RollbackKeyRequest {
            order: order("rollback"),
            kid: kid.to_owned(),
        };
        self.admin.rollback_key(request).await.map(drop)
    }

    /// Whether every origin shows the key that is active next.
    pub(super) async fn standby_is_observed(&mut self) -> bool {
        let keys = self.keys().await;
        let mut standbys = keys.iter().filter(|key| key.phase() == Phase::Published);
        standbys.any(|key| key.observed.is_some())
    }

    /// Until when a rollback to a retiring key is possible, as the agent says.
    pub(super) async fn destroys(&mut self, kid: &str) -> Option<Time> {
        let keys = self.keys().await;
        let key = keys.iter().find(|key| key.kid == kid)?;
        time(key.private_destroyed.as_ref()?)
    }

    /// None from a daemon that is away.
    async fn keys(&mut self) -> Vec<Key> {
        let listing = self.admin.list_keys(ListKeysRequest::default()).await;
        let sets = listing.map(|listing| listing.into_inner().key_sets);
        sets.ok()
            .and_then(|mut sets| sets.pop())
            .map(|set| set.keys)
            .unwrap_or_default()
    }
}

/// Asks for the keys again and again, and returns when each was first
/// retired, by the agent's own word and clock.
pub(super) async fn listen(mut operator: Operator, scene: Arc<Scene>) -> BTreeMap<String, Time> {
    let mut retired = BTreeMap::new();
    let mut pace = interval(Duration::from_millis(200));
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while scene.watching.load(Ordering::Relaxed) {
        pace.tick().await;
        for key in operator.keys().await {
            if let Some(since) = key.retiring_since.as_ref().and_then(time) {
                retired.entry(key.kid).or_insert(since);
            }
        }
    }
    retired
}

fn order(request_id: &str) -> Option<Order> {
    Some(Order {
        request_id: request_id.to_owned(),
        key_set: "main".to_owned(),
        expected_version: String::new(),
    })
}

fn time(stamp: &Timestamp) -> Option<Time> {
    let millis = stamp.seconds.checked_mul(1000)? + i64::from(stamp.nanos) / 1_000_000;
    Some(Time::from_millis(millis))
}
