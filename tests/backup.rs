//! Backups, as docs/OPERATIONS.md says to make them: taken while Skald runs, restored elsewhere, and carried on from.

use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Deployment, Postgres, SOON, Skald, Sqlite,
    database::Database,
    order, postgres_binaries,
    process::{Ended, Process},
    skald::program,
};

async fn run(command: &mut Command, world: &Deployment) -> Ended {
    let ended = Process::run("command", command, &world.skald.setup().folder).await;
    assert!(ended.status.success(), "{ended:?}");
    ended
}

/// A program of PostgreSQL's: beside the server, or in PATH where installations part the two.
fn postgres_program(name: &str) -> Command {
    let beside = postgres_binaries::find().expect("the tests have PostgreSQL").join(name);
    Command::new(if beside.is_file() { beside } else { name.into() })
}

/// What is in the database now, in another one.
async fn back_up_and_restore(world: &Deployment, backend: Backend) -> Database {
    let folder = &world.skald.setup().folder;
    match backend {
        Sqlite => {
            let copy = folder.join("restored.db");
            world.database.tamper(&format!("VACUUM INTO '{}'", copy.display())).await;
            Database::Sqlite(copy)
        }
        Postgres => {
            let dump = folder.join("skald.dump");
            let mut dumping = postgres_program("pg_dump");
            run(dumping.args(["--format", "custom", "--file"]).arg(&dump).arg(world.database.url()), world).await;
            let restored = Database::create(Postgres, folder, "restored").await;
            let mut restoring = postgres_program("pg_restore");
            restoring.args(["--exit-on-error", "--no-owner", "--dbname", &restored.url()]).arg(&dump);
            run(&mut restoring, world).await;
            restored
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_while_it_ran_is_carried_on_after_a_restore(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut world = Deployment::start(backend).await;
    let done = world.skald.run("checkout", &order("c-1")).await;
    world.shop.orders.faults(json!({"orders": {"unavailable": {"rate": 1.0, "retry_after_s": 1}}})).await;
    let unfinished = world.skald.begun("checkout", &order("c-2")).await;
    let confirming = |saga: &Value| saga["state"] == "ORDER_CONFIRMING";
    world.skald.until(&unfinished, "at the pivot", SOON, confirming).await;

    let restored = back_up_and_restore(&world, backend).await;
    let after = world.skald.begun("checkout", &order("c-3")).await;
    world.skald.kill();
    world.shop.heal().await;
    let setup = world.skald.setup().clone();
    let skald = Skald::start(crate::harness::skald::Setup { database_url: restored.url(), ..setup }).await;
    assert_eq!(skald.saga(done["id"].as_str().expect("it has an id")).await["output"], done["output"]);
    assert_eq!(skald.ended(&unfinished).await["status"], "completed");
    let effects = world.shop.orders.effects_of(&unfinished).await;
    assert_eq!(effects, ["confirm_order:action"], "once, although two have called");
    skald.client.get(&format!("/sagas/{after}")).await.expect(404);
    assert_eq!(skald.run("checkout", &order("c-4")).await["status"], "completed");
    run(program().args(["verify", "--database-url", &restored.url()]), &world).await;
}
