//! `skald healthcheck`: asks the server of this configuration how it is, for images that have no shell.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    cli::HealthcheckArgs,
    config::{Config, Flags},
    http_client,
};

/// Whoever asks asks again.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(args: &HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let config = super::load(&args.file, Flags { listen: args.listen, ..Flags::default() })?;
    let url = url(&config, if args.live { "/livez" } else { "/readyz" });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask(&url))?;
    Ok(ExitCode::SUCCESS)
}

/// Who listens on every address is asked on this machine's own.
fn url(config: &Config, path: &str) -> String {
    let listen = config.server.listen;
    let here: IpAddr = match listen {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let ip = if listen.ip().is_unspecified() { here } else { listen.ip() };
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{path}", SocketAddr::new(ip, listen.port()))
}

async fn ask(url: &str) -> anyhow::Result<()> {
    // A certificate names the server as others know it, not as this machine does.
    let client = http_client::builder().no_proxy().timeout(PATIENCE).tls_danger_accept_invalid_certs(true).build()?;
    let answer = client.get(url).send().await.with_context(|| format!("no answer from {url}"))?;
    let status = answer.status();
    if !status.is_success() {
        bail!("{url} answers {status}: {}", answer.text().await.unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "http://127.0.0.1:8080/livez"),
            ("[::]:8080", "http://[::1]:8080/livez"),
            ("192.0.2.7:80", "http://192.0.2.7:80/livez"),
        ] {
            let mut config = Config::default();
            config.server.listen = listen.parse().unwrap();
            assert_eq!(url(&config, "/livez"), asked);
            config.server.tls = Some(Tls::default());
            assert_eq!(url(&config, "/livez"), asked.replace("http:", "https:"));
        }
    }
}
