//! docs/API.md explains by examples. They run as they are written, in one shell, and answer with the codes that are shown.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    command_line::dev,
    harness::{Client, Folder, cluster::free_port, eventually, met, process::Process},
};

const PAGE: &str = include_str!("../docs/API.md");
/// Between what the examples print.
const MARK: &str = "=== the next example ===";

/// An example, and what the page says of it up to the next one.
struct Example {
    script: String,
    said: String,
}

fn examples() -> Vec<Example> {
    // Behind it are no more examples, but one of every error.
    let (page, _) = PAGE.split_once("\n## Errors").expect("the page ends with the errors");
    let with_script = page.split("```sh\n").skip(1).map(|part| {
        let (script, said) = part.split_once("```\n").expect("a block ends");
        Example { script: script.to_owned(), said: said.to_owned() }
    });
    with_script.collect()
}

/// Every `"code": "X"`, of problems and of sagas that failed.
fn codes(text: &str) -> BTreeSet<String> {
    let text = text.replace("\"code\": \"", "\"code\":\"");
    let behind = text.split("\"code\":\"").skip(1);
    behind.filter_map(|rest| rest.split_once('"').map(|(code, _)| code.to_owned())).collect()
}

#[tokio::test]
async fn the_examples_of_the_api_work_as_they_are_written() {
    let (folder, port) = (Folder::new(), free_port());
    let mut process = Process::start("dev", &mut dev(&folder.path().join("data"), port), folder.path());
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    eventually("skald dev is ready", Duration::from_secs(30), async || {
        let answer = client.try_get("/readyz").await.map_err(|error| error.to_string())?;
        met(answer.status == 200, || answer.text)
    })
    .await;
    let examples = examples();
    assert!(examples.len() > 20, "the page is made of examples");
    let script: String = examples.iter().map(|example| format!("{}echo; echo '{MARK}'\n", example.script)).collect();
    let script = format!("set -u\n{}", script.replace("http://127.0.0.1:8080", &client.url));
    let mut shell = Command::new("timeout");
    shell.args(["120", "bash", "-c", &script]).current_dir(folder.path()).stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || shell.output()).await.expect("it does not panic");
    let ended = ended.expect("there is a shell");
    let (printed, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && errors.is_empty(), "{printed}\n{errors}");
    let printed: Vec<&str> = printed.split(MARK).collect();
    for (example, printed) in examples.iter().zip(&printed) {
        assert_eq!(codes(printed), codes(&example.said), "\n{}\nprinted\n{printed}", example.script);
    }
    assert!(process.exited().is_none());
    process.terminate(Duration::from_secs(40)).await;
}
