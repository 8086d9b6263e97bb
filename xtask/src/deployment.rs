//! `cargo xtask deployment`: checks what Skald is deployed with, as far as that goes without a container engine and a
//! cluster: `docker-compose.yml` by its specification, the Helm chart by Helm and by Kubernetes' schemas.
//!
//! The tools are compiled from Go's module proxy and installed from PyPI, into `target/deployment`. Where there is no Go, the
//! checks that need it are left out, which is said.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    python,
    run::{check, command, output, root, skipped, succeeds},
};

const COMPOSE_FILE: &str = "docker-compose.yml";
const COMPOSE_READER: &str = "github.com/compose-spec/compose-go/v2/cmd@v2.9.0";
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.19.0";
const CHART: &str = "deploy/helm/skald";
/// The values that a user must give, and nothing else.
const LEAST: [&str; 2] = ["--set", "existingSecret.name=skald"];
const EVERYTHING: [&str; 2] = ["--values", "deploy/helm/skald/ci/everything.yaml"];
/// The oldest that the chart allows, and a newer one.
const KUBERNETES_VERSIONS: [&str; 2] = ["1.25", "1.34"];

/// # Errors
///
/// Something does not hold, or a tool cannot be installed.
pub fn run() -> Result<()> {
    let has_go = succeeds(command("go").arg("version"));
    compose(has_go)?;
    match helm(has_go)? {
        Some(helm) => chart(&helm),
        None => {
            skipped("the check of the Helm chart", "there is neither helm nor go in PATH");
            Ok(())
        }
    }
}

fn compose(has_go: bool) -> Result<()> {
    if succeeds(command("docker").args(["compose", "version"])) {
        return check(command("docker").args(["compose", "--file", COMPOSE_FILE, "config", "--quiet"]));
    }
    if !has_go {
        skipped("the check of docker-compose.yml", "there is neither docker compose nor go in PATH");
        return Ok(());
    }
    // What .env gives is text wherever it is put in, so the file is checked as it is.
    output(command("go").args(["run", COMPOSE_READER, "-no-interpolation", COMPOSE_FILE])).map(drop)
}

/// Helm's program: the one in PATH, or one that is compiled for this, once.
fn helm(has_go: bool) -> Result<Option<PathBuf>> {
    if succeeds(command("helm").args(["version", "--short"])) {
        return Ok(Some("helm".into()));
    }
    if !has_go {
        return Ok(None);
    }
    let helm = folder().join("bin/helm");
    if !helm.exists() {
        check(command("go").args(["install", HELM]).env("GOBIN", folder().join("bin")).env_remove("GOFLAGS"))?;
    }
    Ok(Some(helm))
}

fn chart(helm: &Path) -> Result<()> {
    let environment = python::environment(&folder().join("venv"), &root().join("xtask/deployment/requirements.txt"))?;
    for kubernetes in KUBERNETES_VERSIONS {
        let version = format!("{kubernetes}.0");
        let helm = |subcommand: &[&str]| {
            let mut helm = command(helm);
            helm.args(subcommand).args(["--kube-version", &version]);
            helm
        };
        for values in [LEAST, EVERYTHING] {
            check(helm(&["lint", "--strict", CHART]).args(values))?;
            let manifests = output(helm(&["template", "skald", CHART]).args(values))?;
            let file = folder().join("manifests.yaml");
            fs::write(&file, manifests).with_context(|| file.display().to_string())?;
            // Of what is no part of Kubernetes, the ServiceMonitor, it says that it has no schema.
            let validate = environment.join("bin/kubernetes-validate");
            check(command(validate).args(["--strict", "--quiet", "--kubernetes-version", kubernetes]).arg(file))?;
        }
        ensure!(
            !succeeds(&mut helm(&["template", "skald", CHART])),
            "the chart must ask for the secret with the database's URL"
        );
    }
    Ok(())
}

fn folder() -> PathBuf {
    root().join("target/deployment")
}
