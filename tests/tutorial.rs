//! docs/EVENTS.md has a tutorial. It works as it is written.

use std::process::Stdio;

use tokio::process::Command;

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
