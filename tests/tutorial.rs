//! docs/EVENTS.md has a tutorial. It works as it is written.

use std::process::{Command, Stdio};

use crate::harness::{Folder, Sqlite, deployment::Deployment};

const PAGE: &str = include_str!("../docs/EVENTS.md");

/// The tutorial's blocks of code, in order, each with its language.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let (_, rest) = PAGE.split_once("## A consumer in ten minutes").expect("the page has the tutorial");
    let (tutorial, _) = rest.split_once("\n## ").expect("something comes after it");
    let mut blocks = Vec::new();
    let mut rest = tutorial;
    while let Some((_, opened)) = rest.split_once("```") {
        let (language, code) = opened.split_once('\n').expect("a block begins with its language");
        let (code, after) = code.split_once("```").expect("a block ends");
        blocks.push((language, code));
        rest = after;
    }
    blocks
}

#[tokio::test]
async fn a_consumer_is_made_from_nothing_as_the_page_says() {
    let world = Deployment::start(Sqlite).await;
    let folder = Folder::new();
    let mut script = String::from("set -eu\n");
    for (language, code) in blocks() {
        match language {
            "sh" => script += code,
            "python" => script += &format!("cat > consumer.py <<'PROGRAM'\n{code}PROGRAM\n"),
            other => panic!("a block is of `{other}`, which cannot be run"),
        }
        script += "echo\n";
    }
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(folder.path()).env("SKALD", &world.skald.client.url);
    shell.stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || shell.output()).await.expect("it does not panic");
    let ended = ended.expect("there is a shell");
    let (printed, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{printed}\n{errors}");
    // Before more was added, after it, and after everything came once more.
    let counts: Vec<&str> = printed.lines().filter(|line| line.starts_with("p-")).collect();
    assert_eq!(counts, ["p-1 2", "p-3 1", "p-1 7", "p-3 1", "p-1 7", "p-3 1"], "{printed}\n{errors}");
    let settled = r#""ahead":0,"in_hand":0,"retrying":0,"waiting":0,"parked":0"#;
    assert!(printed.contains(settled), "{printed}");
}
