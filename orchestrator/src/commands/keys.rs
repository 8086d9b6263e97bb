//! `skald keys`: makes, lists, revokes and replaces clients' keys, in the database.
//!
//! A key's text is printed once, on standard output and alone there, and kept nowhere; everything else goes to standard
//! error.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use skald_core::time::Timestamp;

use super::service::open_store;
use crate::{
    access::key::KeyText,
    api::Moment,
    audit::{self, Act},
    cli::{ByArgs, CreateKeyArgs, DatabaseArgs, KeysAction, KeysArgs, RevokeKeyArgs, RotateKeyArgs},
    storage::{
        Storage,
        access::{ApiKey, AuditEntry, AuditOutcome},
    },
};

pub fn run(args: &KeysArgs) -> anyhow::Result<ExitCode> {
    let runtime = super::runtime()?;
    match &args.action {
        KeysAction::Create(args) => runtime.block_on(create(args))?,
        KeysAction::List(args) => runtime.block_on(list(&args.database, args.json))?,
        KeysAction::Revoke(args) => runtime.block_on(revoke(args))?,
        KeysAction::Rotate(args) => runtime.block_on(rotate(args))?,
        KeysAction::Generate => println!("{}", new_key().reveal()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: &CreateKeyArgs) -> anyhow::Result<()> {
    let given = args.from_file.as_deref().map(read_key).transpose()?;
    let text = given.clone().unwrap_or_else(new_key);
    let (store, now) = open(&args.database).await?;
    let key = ApiKey {
        id: text.id().to_owned(),
        hash: text.hash(),
        name: args.name.clone(),
        role: args.role.to_string(),
        created_at: now,
        expires_at: args.expires_in.map(|span| now.plus(span)),
        revoked_at: None,
    };
    if store.add_api_key(&key, &entry(now, "key.create", &key.id, &args.by)).await? {
        eprintln!("key {} of {} ({}) is good{}", key.id, key.name, key.role, until(key.expires_at));
        show(&text, given.is_some());
        return Ok(());
    }
    let there = find(&*store, &key.id).await?;
    ensure!(there.hash == key.hash, "the id {} is that of another key: generate a new one", key.id);
    ensure!(
        (&there.name, &there.role) == (&key.name, &key.role),
        "key {} is there, as {} ({}): a key keeps its name and role",
        key.id,
        there.name,
        there.role
    );
    ensure!(state(&there, now) == "good", "key {} is there, and {}", key.id, state(&there, now));
    eprintln!("key {} is there already; nothing was changed", key.id);
    Ok(())
}

async fn list(database: &DatabaseArgs, as_json: bool) -> anyhow::Result<()> {
    let (store, now) = open(database).await?;
    let keys = store.api_keys().await?;
    if as_json {
        let item = |key: &ApiKey| {
            json!({
                "id": key.id, "name": key.name, "role": key.role, "state": state(key, now),
                "created_at": Moment(key.created_at), "expires_at": key.expires_at.map(Moment),
                "revoked_at": key.revoked_at.map(Moment),
            })
        };
        println!("{}", json!({"items": keys.iter().map(item).collect::<Vec<_>>()}));
        return Ok(());
    }
    println!("{:<12}  {:<8}  {:<8}  {:<20}  {:<20}  NAME", "ID", "ROLE", "STATE", "CREATED", "EXPIRES");
    for key in &keys {
        let short = |at: Timestamp| format!("{}Z", &Moment(at).to_string()[..19]);
        let expires = key.expires_at.map_or_else(|| "never".to_owned(), short);
        let (created, state) = (short(key.created_at), state(key, now));
        println!("{:<12}  {:<8}  {state:<8}  {created:<20}  {expires:<20}  {}", key.id, key.role, key.name);
    }
    Ok(())
}

async fn revoke(args: &RevokeKeyArgs) -> anyhow::Result<()> {
    let (store, now) = open(&args.database).await?;
    if store.revoke_api_key(&args.id, &entry(now, "key.revoke", &args.id, &args.by)).await? {
        eprintln!("key {} is revoked; servers know within seconds", args.id);
    } else {
        find(&*store, &args.id).await?;
        eprintln!("key {} was revoked already; nothing was changed", args.id);
    }
    Ok(())
}

async fn rotate(args: &RotateKeyArgs) -> anyhow::Result<()> {
    let given = args.from_file.as_deref().map(read_key).transpose()?;
    let text = given.clone().unwrap_or_else(new_key);
    let (store, now) = open(&args.database).await?;
    let old = find(&*store, &args.id).await?;
    ensure!(
        state(&old, now) == "good",
        "key {} is {}: make a new one with `skald keys create`",
        old.id,
        state(&old, now)
    );
    if let Ok(there) = find(&*store, text.id()).await {
        bail!("the new key, {}, is there already, as {}", there.id, there.name);
    }
    let ends = now.plus(args.overlap);
    let successor = ApiKey {
        id: text.id().to_owned(),
        hash: text.hash(),
        created_at: now,
        // Good for as long as the one before was meant to be.
        expires_at: old.expires_at.map(|at| now.plus(old.created_at.until(at))),
        ..old.clone()
    };
    let entry = entry(now, "key.rotate", &old.id, &args.by);
    let rotated = store.rotate_api_key(&old.id, ends, &successor, &entry).await?;
    ensure!(rotated, "key {} was changed just now: look at `skald keys list`", old.id);
    let old_ends = old.expires_at.map_or(ends, |at| at.min(ends));
    eprintln!("key {} replaces {}, which is good{}", successor.id, old.id, until(Some(old_ends)));
    show(&text, given.is_some());
    Ok(())
}

async fn open(database: &DatabaseArgs) -> anyhow::Result<(Arc<dyn Storage>, Timestamp)> {
    let config = super::load(&database.file, database.flags())?;
    let store = open_store(&config).await?;
    let now = store.now().await?;
    Ok((store, now))
}

async fn find(store: &dyn Storage, id: &str) -> anyhow::Result<ApiKey> {
    let found = store.api_keys().await?.into_iter().find(|key| key.id == id);
    found.with_context(|| format!("there is no key {id}: see `skald keys list`"))
}

fn new_key() -> KeyText {
    KeyText::new(rand::random(), rand::random())
}

fn read_key(path: &Path) -> anyhow::Result<KeyText> {
    let place = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {place}"))?;
    text.trim().parse().with_context(|| format!("{place} holds no key"))
}

/// On standard output, unless it was taken from where it can be read.
fn show(text: &KeyText, was_given: bool) {
    if !was_given {
        println!("{}", text.reveal());
    }
}

fn state(key: &ApiKey, now: Timestamp) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else {
        "good"
    }
}

fn until(expires_at: Option<Timestamp>) -> String {
    expires_at.map_or_else(String::new, |at| format!(" until {}", Moment(at)))
}

/// A key's change is one entry, since it is written with it.
fn entry(at: Timestamp, action: &str, id: &str, by: &ByArgs) -> AuditEntry {
    let user = || ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let act = Act {
        actor: by.actor.clone().or_else(user),
        credential: Some("command line".to_owned()),
        action: action.to_owned(),
        target: format!("/keys/{id}"),
        reason: by.reason.clone(),
        request_id: uuid::Uuid::new_v4().to_string(),
        correlation_id: None,
    };
    audit::entry(&act, at, AuditOutcome::Done, None, 1)
}
