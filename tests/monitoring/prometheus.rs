//! A Prometheus with the configuration that is shipped, but for where things are and how often it looks.

use std::{fs, process::Command};

use reqwest::Url;
use serde_json::{Value, json};

use super::expressions::{Expression, yaml};
use crate::harness::{Client, Folder, SOON, cluster::free_port, eventually, met, process::Process, workspace};

/// Whom to scrape, by job: base URLs.
pub struct Targets<'t> {
    pub skald: Vec<&'t str>,
    pub participants: Vec<&'t str>,
    pub workers: Vec<&'t str>,
}

pub struct Prometheus {
    client: Client,
    // Before its folder, so that it is gone when that is removed.
    _process: Process,
    _folder: Folder,
}

impl Prometheus {
    pub async fn start(targets: &Targets<'_>) -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let config = folder.path().join("prometheus.yml");
        // JSON is YAML.
        fs::write(&config, configuration(targets, port).to_string()).expect("the folder is ours");
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(&config).arg("--storage.tsdb.path").arg(folder.path().join("prometheus"));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let process = Process::start("prometheus", &mut command, folder.path());
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        eventually("Prometheus is ready", SOON, async || {
            let answer = client.try_get("/-/ready").await.map_err(|error| format!("{error}\n{}", process.log()))?;
            met(answer.status == 200, || answer.text)
        })
        .await;
        Self { client, _process: process, _folder: folder }
    }

    /// How many series it has as of now.
    pub async fn query(&self, expression: &Expression) -> usize {
        let url = format!("{}/api/v1/query", self.client.url);
        let url = Url::parse_with_params(&url, [("query", &expression.text)]).expect("it is a URL");
        let answer = self.client.get(&format!("{}?{}", url.path(), url.query().expect("it was given one"))).await;
        assert_eq!(answer.status, 200, "{expression}: {}", answer.text);
        // Not a number is what a share of nothing is.
        let is_number = |sample: &&Value| sample["value"][1] != "NaN";
        let result = answer.body["data"]["result"].as_array().expect("the result is a list");
        result.iter().filter(is_number).count()
    }
}

fn configuration(targets: &Targets<'_>, port: u16) -> Value {
    let mut config = yaml("monitoring/prometheus/prometheus.yml");
    config["global"] = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
    config["rule_files"] = json!([workspace().join("monitoring/prometheus/rules/*.yml")]);
    config["alerting"] = json!({});
    let own = format!("http://127.0.0.1:{port}");
    let jobs = config["scrape_configs"].as_array().expect("there are jobs").clone();
    let jobs = jobs.into_iter().filter_map(|job| {
        let urls = match job["job_name"].as_str().expect("a job has a name") {
            "skald" => &targets.skald,
            "participants" => &targets.participants,
            "workers" => &targets.workers,
            "prometheus" => &vec![&*own],
            _ => return None,
        };
        let addresses: Vec<&str> = urls.iter().map(|url| url.trim_start_matches("http://")).collect();
        Some(json!({"job_name": job["job_name"], "static_configs": [{"targets": addresses}]}))
    });
    config["scrape_configs"] = jobs.collect();
    config
}
