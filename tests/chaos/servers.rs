//! The lane in which servers die: replicas are killed and stopped, also in the middle of a commit, and PostgreSQL crashes.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::{
    observer::{Observer, Owned},
    plan::{Fault, Kind, LEASE},
    report::Findings,
    world::{Network, Servers},
};
use crate::harness::{
    cluster::Cluster,
    eventually,
    proxy::trap::{Sprung, TrapKind, Verdict},
};

/// For a shard to have an owner that can be hit.
const OWNER_WITHIN: Duration = Duration::from_secs(60);
/// For an owner to make a commit, before another one is chosen.
const COMMIT_WITHIN: Duration = Duration::from_secs(4);
const TAKEOVER_MAX: Duration = Duration::from_secs(60);
/// What the stop of a replica lasts beyond its lease, at least.
const BEYOND_LEASE: Duration = Duration::from_secs(1);
const VERDICT_WITHIN: Duration = Duration::from_secs(20);
const SQLSTATE_FENCED: &str = "SK001";

/// What the lane works on.
#[derive(Debug)]
pub struct Lane<'a> {
    pub servers: &'a mut Servers,
    pub cluster: &'a mut Cluster,
    pub network: &'a Network,
    pub observer: &'a Observer,
    pub findings: &'a Findings,
}

/// A replica that is to be hit, and what it owns.
#[derive(Debug)]
struct Victim {
    replica: usize,
    owned: Owned,
    /// A commit of its that is on its way.
    commit: Option<Sprung>,
}

impl Lane<'_> {
    /// # Errors
    ///
    /// Says why the fault had no effect, or not the one that was planned.
    pub async fn make(&mut self, fault: &Fault) -> Result<(), String> {
        match fault.kind {
            Kind::Kill => self.kill(fault, None).await,
            Kind::KillBeforeCommitArrives => self.kill(fault, Some(TrapKind::HoldRequest)).await,
            Kind::KillBeforeCommitIsAnswered => self.kill(fault, Some(TrapKind::HoldReply)).await,
            Kind::Stop => self.stop(fault, None).await,
            Kind::StopBeforeCommitArrives => self.stop(fault, Some(TrapKind::HoldRequest)).await,
            Kind::StopBeforeCommitIsAnswered => self.stop(fault, Some(TrapKind::HoldReply)).await,
            Kind::DatabaseRestart => self.restart_database().await,
            spell => unreachable!("{spell:?} belongs to the other lane"),
        }
    }

    /// A replica that owns shards and, if asked for, has a commit under way that is held.
    async fn victim(&self, fault: &Fault, trap: Option<TrapKind>) -> Result<Victim, String> {
        let begun = Instant::now();
        loop {
            let choose = async || self.owner(fault).ok_or_else(|| "no replica owns a shard".to_owned());
            let (replica, owned) = eventually("a replica owns shards", OWNER_WITHIN, choose).await;
            let Some(kind) = trap else { return Ok(Victim { replica, owned, commit: None }) };
            let Some(commit) = self.network.databases[replica].arm(kind).sprung(COMMIT_WITHIN).await else {
                // It may have lost its shards, or its way to the database.
                if begun.elapsed() > OWNER_WITHIN {
                    return Err(format!("no replica made a commit within {OWNER_WITHIN:?}"));
                }
                continue;
            };
            if let Some(owned) = self.observer.owned_by(&self.servers.0[replica].client.url) {
                return Ok(Victim { replica, owned, commit: Some(commit) });
            }
        }
    }

    fn owner(&self, fault: &Fault) -> Option<(usize, Owned)> {
        let urls = self.servers.0.iter().map(|replica| replica.client.url.as_str()).enumerate();
        let mut owners: Vec<_> =
            urls.filter_map(|(replica, url)| Some((replica, self.observer.owned_by(url)?))).collect();
        let nth = fault.target as usize % owners.len().max(1);
        (!owners.is_empty()).then(|| owners.swap_remove(nth))
    }

    /// Kills a replica, and starts it again when it has been down for the fault's pause.
    async fn kill(&mut self, fault: &Fault, trap: Option<TrapKind>) -> Result<(), String> {
        let Victim { replica, owned, commit } = self.victim(fault, trap).await?;
        let skald = &mut self.servers.0[replica];
        skald.kill();
        let since = Instant::now();
        let revived = async {
            tokio::time::sleep(fault.pause).await;
            skald.revive().await
        };
        let (taken_over, failed_starts) = tokio::join!(self.observer.taken_over(&owned, since, TAKEOVER_MAX), revived);
        self.findings.failed_starts(failed_starts);
        self.findings.taken_over(fault.kind, taken_over?);
        if let Some(commit) = commit {
            self.judge(trap, commit.verdict(VERDICT_WITHIN).await, &format!("the killed replica {replica}"));
        }
        Ok(())
    }

    /// Stops a replica until others have its shards and its lease is long over, and lets it go on.
    async fn stop(&mut self, fault: &Fault, trap: Option<TrapKind>) -> Result<(), String> {
        let Victim { replica, owned, commit } = self.victim(fault, trap).await?;
        let skald = &self.servers.0[replica];
        skald.process.signal("STOP");
        let since = Instant::now();
        let taken_over = self.observer.taken_over(&owned, since, TAKEOVER_MAX).await;
        tokio::time::sleep((LEASE + BEYOND_LEASE).saturating_sub(since.elapsed())).await;
        if let Some(commit) = commit {
            self.judge(trap, commit.verdict(VERDICT_WITHIN).await, &format!("the stopped replica {replica}"));
        }
        skald.process.signal("CONT");
        self.findings.taken_over(fault.kind, taken_over?);
        eventually(&format!("replica {replica} answers again"), OWNER_WITHIN, async || {
            skald.client.try_get("/livez").await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Ok(())
    }

    /// What the database said to a commit that it got after its sender had lost the shards.
    fn judge(&self, trap: Option<TrapKind>, verdict: Verdict, whose: &str) {
        match (trap, verdict) {
            (Some(TrapKind::HoldRequest), Verdict::Refused(code)) if code == SQLSTATE_FENCED => self.findings.fenced(),
            (Some(TrapKind::HoldRequest), Verdict::Done) => {
                self.findings.violation(format!("9: a commit of {whose} was carried out after the takeover"));
            }
            _ => {}
        }
    }

    async fn restart_database(&mut self) -> Result<(), String> {
        let before = self.started_at().await;
        self.cluster.crash_and_restart().await;
        let after = self.started_at().await;
        if before == after { Err(format!("the server has been up since {before}")) } else { Ok(()) }
    }

    async fn started_at(&self) -> String {
        let mut connection = PgConnection::connect(&self.cluster.url()).await.expect("the server takes connections");
        let started = sqlx::query_scalar("SELECT pg_postmaster_start_time()::text").fetch_one(&mut connection).await;
        started.expect("everyone may ask that")
    }
}
