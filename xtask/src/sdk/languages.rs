//! Each client's own tests, and its example against a real server.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{folder, tools};
use crate::{
    dev_server::DevServer,
    python,
    run::{cargo, check, command, root, skipped, succeeds},
};

/// One client.
struct Language {
    name: &'static str,
    /// Where the client runs only if this does; the others must run everywhere.
    optional: Option<(&'static str, &'static str)>,
    /// Builds it and runs its own tests.
    test: fn(&Path) -> Result<()>,
    /// The program that runs a checkout at `SKALD_URL`.
    example: fn(&Path) -> Result<Command>,
}

const LANGUAGES: [Language; 5] = [
    Language { name: "typescript", optional: None, test: test_typescript, example: typescript_example },
    Language { name: "python", optional: None, test: test_python, example: python_example },
    Language { name: "rust", optional: None, test: test_rust, example: rust_example },
    Language { name: "go", optional: Some(("go", "version")), test: test_go, example: go_example },
    Language { name: "java", optional: Some(("mvn", "--version")), test: test_java, example: java_example },
];

/// # Errors
///
/// A test fails, an example does not complete its checkout, or a toolchain that must be there is not.
pub fn test_all() -> Result<()> {
    let mut server = DevServer::start(&folder().join("data"))?;
    for language in LANGUAGES {
        let client = root().join("sdks").join(language.name);
        if let Some((program, version)) = language.optional
            && !succeeds(command(program).arg(version))
        {
            skipped(&format!("the client in {}", language.name), &format!("`{program}` is missing"));
            continue;
        }
        eprintln!("-- the client in {}", language.name);
        (language.test)(&client).with_context(|| format!("the tests of the client in {}", language.name))?;
        let mut example = (language.example)(&client)?;
        check(example.env("SKALD_URL", &server.url)).with_context(|| format!("the example in {}", language.name))?;
        ensure!(server.is_running()?, "the server ended meanwhile; its messages are above");
    }
    Ok(())
}

fn test_typescript(client: &Path) -> Result<()> {
    tools::npm_install(client)?;
    check(command("npm").args(["--silent", "test"]).current_dir(client))
}

fn typescript_example(client: &Path) -> Result<Command> {
    let mut node = command("node");
    node.arg("dist/examples/checkout.js").current_dir(client);
    Ok(node)
}

fn test_python(client: &Path) -> Result<()> {
    check(python_at(client)?.args([
        "-m",
        "unittest",
        "discover",
        "--start-directory",
        "tests",
        "--top-level-directory",
        ".",
    ]))
}

fn python_example(client: &Path) -> Result<Command> {
    let mut python = python_at(client)?;
    python.args(["-m", "examples.checkout"]);
    Ok(python)
}

fn python_at(client: &Path) -> Result<Command> {
    let environment = python::environment(&folder().join("python"), &client.join("requirements.txt"))?;
    let mut python = command(environment.join("bin/python"));
    python.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(client);
    Ok(python)
}

fn test_rust(_: &Path) -> Result<()> {
    check(cargo().args(["test", "--locked", "--package", "skald-client", "--all-targets"]))
}

fn rust_example(_: &Path) -> Result<Command> {
    let mut run = cargo();
    run.args(["run", "--locked", "--package", "skald-client", "--example", "checkout"]);
    Ok(run)
}

fn test_go(client: &Path) -> Result<()> {
    check(command("go").args(["vet", "."]).current_dir(client))?;
    check(command("go").args(["test", "./..."]).current_dir(client))
}

fn go_example(client: &Path) -> Result<Command> {
    let mut go = command("go");
    go.args(["run", "./examples/checkout"]).current_dir(client);
    Ok(go)
}

fn test_java(client: &Path) -> Result<()> {
    check(command("mvn").args(["--batch-mode", "--quiet", "verify"]).current_dir(client))
}

/// Java runs a single file as it is, given the classes it uses.
fn java_example(client: &Path) -> Result<Command> {
    let classes = [client.join("target/classes"), client.join("target/dependencies/*")];
    let mut java = command(java_home().join("java"));
    java.arg("--class-path").arg(env::join_paths(classes)?).arg("examples/Checkout.java").current_dir(client);
    Ok(java)
}

/// Maven takes the Java that `JAVA_HOME` names, if it does.
fn java_home() -> PathBuf {
    env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin")).unwrap_or_default()
}
