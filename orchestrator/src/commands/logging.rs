//! Structured logs on standard error.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// What clients send that is not HTTP is their mistake, and the HTTP library logs each as an error of ours. `log.level` can
/// name the target to see it.
const QUIET: &str = "actix_http=off";

pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{}", log.level))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    match log.format {
        LogFormat::Text => subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
