//! The lane in which the network and the participants fail, each for a spell.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{
    observer::Observer,
    plan::{Fault, Kind},
    world::{Network, make_slow},
};
use crate::harness::{
    Client, eventually, met,
    participants::{Service, Shop},
    proxy::{
        Proxy, Seen, Weather,
        trap::{TrapKind, Verdict},
    },
};

/// For a spell to hit something.
const HIT_WITHIN: Duration = Duration::from_secs(30);
/// For a request to come along, before another way is chosen.
const REQUEST_WITHIN: Duration = Duration::from_secs(3);
const REQUEST_TRIES: usize = 8;
const VERDICT_WITHIN: Duration = Duration::from_secs(10);
const SESSIONS_END_WITHIN: Duration = Duration::from_millis(20);
const SLOW_MS: std::ops::Range<u64> = 20..120;

/// What the lane works on.
#[derive(Debug)]
pub struct Lane<'a> {
    pub shop: &'a mut Shop,
    pub network: &'a Network,
    pub observer: &'a Observer,
    pub replicas: &'a [Client],
}

impl Lane<'_> {
    /// # Errors
    ///
    /// Says why the fault had no effect, or not the one that was planned.
    pub async fn make(&mut self, fault: &Fault) -> Result<(), String> {
        let slow = Weather::Slow(Duration::from_millis(SLOW_MS.start + fault.target % (SLOW_MS.end - SLOW_MS.start)));
        let participant = &self.network.participants[fault.target as usize % self.network.participants.len()];
        match fault.kind {
            Kind::DatabaseReset => reset(|| self.database(fault)).await,
            Kind::DatabaseSilent => {
                spell(self.database(fault), Weather::Silent, fault.pause, |seen| seen.silenced).await
            }
            Kind::DatabaseSlow => spell(self.database(fault), slow, fault.pause, |seen| seen.delayed).await,
            Kind::CommitLost => lose(|| self.database(fault), TrapKind::DropRequest, Verdict::None).await,
            Kind::CommitReplyLost => lose(|| self.database(fault), TrapKind::DropReply, Verdict::Done).await,
            Kind::ParticipantReset => reset(|| participant).await,
            Kind::ParticipantSilent => spell(participant, Weather::Silent, fault.pause, |seen| seen.silenced).await,
            Kind::ParticipantSlow => spell(participant, slow, fault.pause, |seen| seen.delayed).await,
            Kind::ParticipantReplyLost => lose(|| participant, TrapKind::DropReply, Verdict::Done).await,
            Kind::ParticipantKill => self.kill_participant(fault).await,
            Kind::ParticipantErrors => self.make_errors(fault).await,
            server => unreachable!("{server:?} belongs to the other lane"),
        }
    }

    /// The way to the database of a replica that owns shards, at this moment.
    fn database(&self, fault: &Fault) -> &Proxy {
        &self.network.databases[self.owner(fault)]
    }

    /// A replica that owns shards, or any while none does.
    fn owner(&self, fault: &Fault) -> usize {
        let owns = |replica: &usize| self.observer.owned_by(&self.replicas[*replica].url).is_some();
        let owners: Vec<usize> = (0..self.replicas.len()).filter(owns).collect();
        let target = fault.target as usize;
        owners.get(target % owners.len().max(1)).copied().unwrap_or(target % self.replicas.len())
    }

    fn participant(&mut self, fault: &Fault) -> &mut Service {
        match fault.target % 3 {
            0 => &mut self.shop.catalog,
            1 => &mut self.shop.sales,
            _ => &mut self.shop.orders,
        }
    }

    async fn kill_participant(&mut self, fault: &Fault) -> Result<(), String> {
        let service = self.participant(fault);
        service.kill();
        sleep(fault.pause).await;
        service.revive().await;
        make_slow(service).await;
        Ok(())
    }

    async fn make_errors(&mut self, fault: &Fault) -> Result<(), String> {
        let service = self.participant(fault);
        let made = async |service: &Service| {
            let text = service.client.get("/metrics").await.text;
            let lines = text.lines().filter(|line| line.starts_with("participant_faults_total"));
            let of_errors = lines.filter(|line| !line.contains("\"delay\""));
            of_errors.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        let before = made(service).await;
        let errors = json!({
            "delay": {"rate": 0.3, "ms": 250},
            "error_500": 0.15,
            "unavailable": {"rate": 0.1, "retry_after_s": 1},
            "lose_reply": 0.15,
            "duplicate": 0.2,
            "refuse": 0.05,
            "hang": 0.05,
        });
        service.faults(json!({"*": errors})).await;
        sleep(fault.pause).await;
        let hit = eventually_hit(async || {
            let now = made(service).await;
            met(now > before, || format!("{now} faults made"))
        })
        .await;
        make_slow(service).await;
        hit
    }
}

/// Resets what `proxy` carries, until there was something.
async fn reset<'a>(proxy: impl Fn() -> &'a Proxy) -> Result<(), String> {
    eventually_hit(async || {
        let proxy = proxy();
        let before = proxy.seen().reset;
        proxy.reset_all();
        // Sessions count themselves as they end.
        sleep(SESSIONS_END_WITHIN).await;
        met(proxy.seen().reset > before, || format!("{:?}", proxy.seen()))
    })
    .await
}

/// Has the weather be so until it has hit something, and at least for `lasts`.
async fn spell(proxy: &Proxy, weather: Weather, lasts: Duration, count: impl Fn(Seen) -> u64) -> Result<(), String> {
    let before = count(proxy.seen());
    proxy.weather(weather);
    sleep(lasts).await;
    let hit = hit(proxy, before, count).await;
    proxy.weather(Weather::Clear);
    hit
}

async fn hit(proxy: &Proxy, before: u64, count: impl Fn(Seen) -> u64) -> Result<(), String> {
    eventually_hit(async || met(count(proxy.seen()) > before, || format!("{:?}", proxy.seen()))).await
}

/// [`eventually`], but what hits nothing is a fault that was not made, and no reason to end the run.
async fn eventually_hit(look: impl AsyncFn() -> Result<(), String>) -> Result<(), String> {
    let mut last = String::new();
    let looking = eventually("a fault hits something", HIT_WITHIN * 2, async || {
        let seen = look().await;
        if let Err(text) = &seen {
            last.clone_from(text);
        }
        seen
    });
    let timely = tokio::time::timeout(HIT_WITHIN, looking).await;
    timely.map_err(|_| format!("it hit nothing within {HIT_WITHIN:?}: {last}"))
}

/// Loses the next request or its answer.
async fn lose<'a>(proxy: impl Fn() -> &'a Proxy, kind: TrapKind, expected: Verdict) -> Result<(), String> {
    let mut sprung = None;
    for _ in 0..REQUEST_TRIES {
        sprung = proxy().arm(kind).sprung(REQUEST_WITHIN).await;
        if sprung.is_some() {
            break;
        }
    }
    let sprung = sprung.ok_or_else(|| format!("no request came within {REQUEST_TRIES} times {REQUEST_WITHIN:?}"))?;
    let verdict = sprung.verdict(VERDICT_WITHIN).await;
    if verdict == expected { Ok(()) } else { Err(format!("the server said {verdict:?}")) }
}
