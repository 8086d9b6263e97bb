//! Running other programs from the root of the workspace.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in a folder of the workspace")
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program without standard input, so that none waits for an answer that nobody gives.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs it with its output shown.
///
/// # Errors
///
/// It cannot be started, or ends with another exit code than 0.
pub fn check(command: &mut Command) -> Result<()> {
    let status = announced(command).status().with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Whether it runs and ends well; its output is thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs it and gives its standard output.
///
/// # Errors
///
/// It cannot be started, ends with another exit code than 0, or prints something else than text.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(output.status.success(), "{} failed: {}", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("the output of {}", shown(command)))
}

/// Says, so that nobody overlooks it, what was not done and why.
pub fn skipped(what: &str, why: &str) {
    let bar = "!".repeat(100);
    eprintln!("{bar}\n! SKIPPED: {what}. {why}.\n{bar}");
}

/// Runs it with its output shown, and hands each line of its standard output to `line`. Answers whether it ended well.
///
/// # Errors
///
/// It cannot be started or read from.
pub fn watch(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child =
        announced(command).stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", shown(command)))?;
    let mut output = BufReader::new(child.stdout.take().expect("standard output was piped"));
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes)? > 0 {
        std::io::stdout().write_all(&bytes)?;
        line(&String::from_utf8_lossy(&bytes));
        bytes.clear();
    }
    Ok(child.wait()?.success())
}

fn announced(command: &mut Command) -> &mut Command {
    eprintln!("+ {}", shown(command));
    command
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
