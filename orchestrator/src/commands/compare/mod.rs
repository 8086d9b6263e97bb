//! `skald compare`: the same workload in both modes against running servers.
//!
//! [`workload`] makes the orders, [`leg`] runs them, [`agreement`] holds the ends against each other, [`report`] says what
//! came of it. This file is the course of a comparison: look whether everything is there, warm up, let the modes take
//! turns, and leave the services' faults as they were, also when it is interrupted.

mod agreement;
mod faults;
mod http;
mod leg;
mod report;
mod server;
mod shop;
mod workload;

use std::{fs::File, io::Write as _, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use skald_core::event::Mode;

pub use self::faults::FaultMix;
use self::{
    http::Remote,
    leg::{Budget, End, Leg, Run, Sample},
    report::{Measured, Missing, ModeReport, Report, Settings},
    server::{Refused, Server, Traffic},
    shop::Shop,
    workload::Workload,
};
use crate::cli::CompareArgs;

const DISAGREE: u8 = 1;
const NOT_MEASURED: u8 = 2;

/// How long the first saga of a mode may take: it shows whether there is anybody who carries it out.
const FIRST_TIME_MAX: Duration = Duration::from_secs(30);
/// With a given duration, a round's orders begin this far from those of the round before.
const ROUND_STRIDE: u64 = 10_000_000;
/// Orders that are not measured have numbers that no round reaches.
const WARM_UP_FROM: u64 = 1 << 50;

pub fn run(args: &CompareArgs) -> ExitCode {
    match super::runtime().and_then(|runtime| runtime.block_on(compare(args))) {
        Ok(report) if !report.agreement.holds() => ExitCode::from(DISAGREE),
        Ok(report) if !report.missing.is_empty() => ExitCode::from(NOT_MEASURED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skald: {error:#}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

async fn compare(args: &CompareArgs) -> anyhow::Result<Report> {
    // Before minutes are spent on what cannot be kept.
    let json = args.json.as_deref().map(create).transpose()?;
    let html = args.html.as_deref().map(create).transpose()?;
    let comparison = Comparison::new(args)?;
    comparison.is_possible().await?;
    let earlier_faults = if args.faults.is_empty() { None } else { Some(comparison.shop.faults().await?) };
    let report = tokio::select! {
        report = comparison.run() => report,
        () = super::asked_to_stop() => Err(anyhow::anyhow!("interrupted: nothing is reported")),
    };
    comparison.bar.finish_and_clear();
    let restored = match earlier_faults {
        Some(earlier) => earlier.restore().await,
        None => Ok(()),
    };
    match report {
        Ok(report) => {
            print!("{}", report::table(&report));
            write(json, &report.json())?;
            write(html, &report::page(&report))?;
            restored.map(|()| report)
        }
        // The one error must not hide the other.
        Err(error) => Err(match restored {
            Ok(()) => error,
            Err(faults) => error.context(format!("{faults:#}")),
        }),
    }
}

fn create(path: &Path) -> anyhow::Result<(File, &Path)> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((file, path))
}

fn write(file: Option<(File, &Path)>, text: &str) -> anyhow::Result<()> {
    let Some((mut file, path)) = file else { return Ok(()) };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// What is compared, with all that it takes.
struct Comparison<'a> {
    args: &'a CompareArgs,
    /// Each once, in the order in which the first round runs them.
    modes: Vec<Mode>,
    server: Server,
    shop: Shop,
    workload: Workload,
    correlation_prefix: String,
    bar: ProgressBar,
}

impl<'a> Comparison<'a> {
    fn new(args: &'a CompareArgs) -> anyhow::Result<Self> {
        let client = http::client()?;
        let mut modes = Vec::new();
        for mode in &args.modes {
            if !modes.contains(mode) {
                modes.push(*mode);
            }
        }
        let bar = super::bar_on_terminal();
        if args.duration.is_none() {
            bar.set_length((args.sagas + args.warm_up) * modes.len() as u64);
            bar.set_style(style("{msg:34} [{bar:40}] {pos}/{len} ({eta})"));
        } else {
            bar.set_style(style("{msg:34} {spinner} {pos} sagas"));
        }
        Ok(Self {
            args,
            modes,
            server: Server {
                remote: Remote::new(&client, "Skald", "--url", &args.url).showing(args.key.read()?.as_ref())?,
                definition: args.definition.clone(),
            },
            shop: Shop {
                catalog: Remote::new(&client, "catalog", "--catalog", &args.catalog),
                sales: Remote::new(&client, "sales", "--sales", &args.sales),
                orders: Remote::new(&client, "orders", "--orders", &args.orders),
            },
            workload: Workload { seed: args.seed, declined_percent: args.declined },
            correlation_prefix: format!("compare-{:08x}", rand::random::<u32>()),
            bar,
        })
    }

    async fn is_possible(&self) -> anyhow::Result<()> {
        self.server.is_ready().await?;
        self.shop.is_there().await
    }

    async fn run(&self) -> anyhow::Result<Report> {
        self.bar.set_message("preparing");
        self.shop.prepare((self.args.sagas + self.args.warm_up) * self.modes.len() as u64).await?;
        let (mut modes, mut missing) = (Vec::new(), Vec::new());
        for mode in &self.modes {
            match self.warm_up(*mode).await {
                Ok(()) => modes.push((*mode, Vec::new())),
                Err(reason) => missing.push(Missing { mode: mode.as_str(), reason }),
            }
        }
        if modes.is_empty() {
            let reasons: Vec<String> =
                missing.iter().map(|missing| format!("{}: {}", missing.mode, missing.reason)).collect();
            bail!("no mode can be measured: {}", reasons.join("; "));
        }
        if !self.args.faults.is_empty() {
            self.shop.set_faults(&self.args.faults).await?;
        }
        self.take_turns(&mut modes).await?;
        let samples: Vec<(Mode, Vec<&Sample>)> = modes
            .iter()
            .map(|(mode, rounds)| {
                (*mode, rounds.iter().flat_map(|measured: &Measured| &measured.run.samples).collect())
            })
            .collect();
        let agreement = agreement::compare(&samples);
        let modes = modes.iter().map(|(mode, rounds)| ModeReport::of(mode.as_str(), rounds)).collect();
        Ok(Report::new(self.settings(), modes, missing, agreement))
    }

    /// Runs what is not measured. The error says why the mode cannot be.
    async fn warm_up(&self, mode: Mode) -> Result<(), String> {
        self.bar.set_message(format!("warming up, {}", mode.as_str()));
        let patience = Duration::from_millis(self.args.patience.0).min(FIRST_TIME_MAX);
        let first = Leg { patience, clients: 1, ..self.leg(mode, WARM_UP_FROM, Budget::Sagas(1)) };
        let first = first.run().await.map_err(|refused| self.explained(&refused))?;
        match first.samples.into_iter().next().map(|sample| sample.end) {
            Some(End::Ended(_)) => {}
            Some(End::Unanswered(why)) => return Err(why),
            Some(End::Parked) => return Err("its first saga needs an operator".to_owned()),
            Some(End::Unfinished) | None => {
                let hint = match mode {
                    Mode::Orchestrated => "can Skald reach its participants?",
                    Mode::Choreographed => "do the participants take part? They do when started with --skald-url",
                };
                return Err(format!("its first saga did not end within {} s; {hint}", patience.as_secs()));
            }
        }
        let rest = self.leg(mode, WARM_UP_FROM + 1, Budget::Sagas(self.args.warm_up - 1));
        rest.run().await.map(drop).map_err(|refused| self.explained(&refused))
    }

    fn explained(&self, refused: &Refused) -> String {
        let definition = &self.args.definition;
        match refused.status.as_u16() {
            404 => format!("{refused} Register it with PUT {}/definitions/{definition}.", self.server.remote.url()),
            _ => refused.to_string(),
        }
    }

    /// Runs round after round. Every other one begins with the other mode, so that none always goes first.
    async fn take_turns(&self, modes: &mut [(Mode, Vec<Measured>)]) -> anyhow::Result<()> {
        let alone = self.server.is_alone().await?;
        let rounds = self.rounds();
        for round in 0..rounds {
            let mut turns: Vec<usize> = (0..modes.len()).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for turn in turns {
                let (mode, measured) = &mut modes[turn];
                self.bar.set_message(format!("round {} of {rounds}, {}", round + 1, mode.as_str()));
                let leg = self.leg(*mode, self.first_order(round), self.budget(round));
                measured.push(self.measure(leg, alone).await?);
            }
        }
        Ok(())
    }

    async fn measure(&self, leg: Leg, alone: bool) -> anyhow::Result<Measured> {
        let before = (self.shop.operations().await?, self.traffic(alone).await?);
        let mode = leg.mode.as_str();
        let run: Run = leg.run().await.map_err(|refused| anyhow::anyhow!("{mode}: {}", self.explained(&refused)))?;
        let after = (self.shop.operations().await?, self.traffic(alone).await?);
        let traffic = after.1.zip(before.1).map(|(after, before)| after - before);
        Ok(Measured { run, operations: after.0 - before.0, traffic })
    }

    async fn traffic(&self, alone: bool) -> anyhow::Result<Option<Traffic>> {
        Ok(if alone { Some(self.server.traffic().await?) } else { None })
    }

    fn leg(&self, mode: Mode, from: u64, budget: Budget) -> Leg {
        Leg {
            server: self.server.clone(),
            workload: self.workload,
            mode,
            from,
            budget,
            clients: self.args.clients,
            patience: Duration::from_millis(self.args.patience.0),
            run: self.correlation_prefix.clone(),
            bar: self.bar.clone(),
        }
    }

    /// One round's orders follow on those of the one before, as far as it is known how many those are.
    fn first_order(&self, round: u32) -> u64 {
        match self.args.duration {
            Some(_) => u64::from(round) * ROUND_STRIDE,
            None => (0..round).map(|earlier| self.sagas(earlier)).sum(),
        }
    }

    /// None without a saga.
    fn rounds(&self) -> u32 {
        match self.args.duration {
            Some(_) => self.args.rounds,
            None => u32::try_from(self.args.sagas).unwrap_or(u32::MAX).min(self.args.rounds),
        }
    }

    /// A round's part of the whole.
    fn budget(&self, round: u32) -> Budget {
        match self.args.duration {
            Some(duration) => Budget::Time(Duration::from_millis(duration.0) / self.rounds()),
            None => Budget::Sagas(self.sagas(round)),
        }
    }

    /// The first rounds have one saga more where it does not come out even.
    fn sagas(&self, round: u32) -> u64 {
        let (sagas, rounds) = (self.args.sagas, u64::from(self.rounds()));
        sagas / rounds + u64::from(u64::from(round) < sagas % rounds)
    }

    fn settings(&self) -> Settings {
        let args = self.args;
        Settings {
            url: self.server.remote.url().to_owned(),
            definition: args.definition.clone(),
            clients: args.clients,
            sagas: args.duration.is_none().then_some(args.sagas),
            duration_ms: args.duration.map(|duration| duration.0),
            rounds: self.rounds(),
            warm_up: args.warm_up,
            declined_percent: args.declined,
            seed: args.seed,
            faults: args.faults.to_string(),
            fault_settings: args.faults.settings(),
            correlation_prefix: self.correlation_prefix.clone(),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well formed")
}
