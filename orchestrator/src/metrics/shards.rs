//! Several replicas: whose shards are whose, and requests sent to the owner.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{
    labels::label,
    register::{counter, counters, gauge},
};

#[derive(Debug)]
pub struct ShardMetrics {
    pub owned: IntGauge,
    pub takeovers: IntCounter,
    pub released: IntCounter,
    pub lost: IntCounter,
    pub renewal_failures: IntCounter,
    forwarded: [[IntCounter; ForwardedResult::ALL.len()]; ForwardedKind::ALL.len()],
}

impl ShardMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let r = registry;
        Self {
            owned: gauge(r, "shards_owned", "Shards this replica writes"),
            takeovers: counter(r, "shard_takeovers_total", "Shards taken from a replica that had not given them up"),
            released: counter(r, "shards_released_total", "Shards given up in good order"),
            lost: counter(
                r,
                "shards_lost_total",
                "Shards lost: not renewed in time, taken by another replica, or in doubt after a commit",
            ),
            renewal_failures: counter(r, "lease_renewal_failures_total", "Requests to keep leases that failed"),
            forwarded: forwarded(r),
        }
    }

    pub fn forwarded(&self, kind: ForwardedKind, result: ForwardedResult) {
        self.forwarded[kind as usize][result as usize].inc();
    }
}

fn forwarded(registry: &Registry) -> [[IntCounter; ForwardedResult::ALL.len()]; ForwardedKind::ALL.len()] {
    let help = "Requests sent to the owner of a shard";
    let counters = counters(registry, "forwarded_requests_total", help, &["kind", "result"]);
    ForwardedKind::ALL
        .map(|kind| ForwardedResult::ALL.map(|result| counters.with_label_values(&[kind.as_str(), result.as_str()])))
}

label! {
    /// What is sent to the owner of a shard.
    ForwardedKind { Start = "start", Operator = "operator", Callback = "callback", Report = "report", Append = "append" }
}

label! {
    /// What the owner said.
    ForwardedResult {
        Accepted = "accepted",
        Refused = "refused",
        /// It does not own the shard, or not any more.
        NotOwner = "not_owner",
        /// It was not carried out.
        Unreached = "unreached",
        /// It may have been carried out.
        Unknown = "unknown",
    }
}
