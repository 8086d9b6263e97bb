//! The binary: starts, says where it listens, stops on SIGTERM, and says in one line why it can't start.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
};

fn participant(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skald-participant"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn it_prints_its_address_serves_and_ends_well_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("orders.db").display());
    let mut child = participant(&["orders", "--listen", "127.0.0.1:0", "--database-url", &url]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("orders listening on ").unwrap().to_owned();
    // The client wants it even where there is no TLS; errs when another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status = runtime.block_on(async { reqwest::get(format!("{address}/livez")).await.unwrap().status() });
    assert_eq!(status, 200);
    let listen = address.trim_start_matches("http://");
    let healthcheck = ["orders", "--healthcheck", "--listen", listen, "--database-url", &url];
    assert!(participant(&healthcheck).status().unwrap().success());
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(child.wait().unwrap().success());
    assert_eq!(participant(&healthcheck).status().unwrap().code(), Some(1), "nobody listens any more");
}

#[test]
fn what_keeps_it_from_starting_is_one_line_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    std::fs::write(
        folder.path().join("text.db"),
        "this is no database, but long enough to look like a file of one".repeat(20),
    )
    .unwrap();
    for (arguments, words) in [
        (vec!["sales", "--listen", &busy, "--database-url", &file("a.db")], "cannot listen on 127.0.0.1:"),
        (vec!["sales", "--database-url", "mysql://x"], "database URL must begin with"),
        (vec!["views", "--database-url", &file("a.db")], "views needs --skald-url"),
        (vec!["audit", "--database-url", &file("a.db"), "--skald-url", "ftp://x"], "`ftp://x` is not a URL"),
        (
            vec!["notification", "--database-url", &file("a.db"), "--skald-url", "http://x", "--smtp", "pop://x"],
            "the mail server's URL",
        ),
        (vec!["sales", "--database-url", &file("missing/a.db")], "unable to open database file"),
        (vec!["sales", "--database-url", &file("text.db")], "file is not a database"),
        (vec!["sales", "--database-url", "postgres://127.0.0.1:1/x"], "Connection refused"),
    ] {
        let output = participant(&arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words) && stderr.trim().lines().count() == 1, "{arguments:?}: {stderr}");
    }
}
