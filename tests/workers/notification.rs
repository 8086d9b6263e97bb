//! Notification: customers are told once, by mail where there is a server and an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use rstest::rstest;
use serde_json::{Value, json};

use super::{CAUGHT_UP_MAX, MODES, settled, text};
use crate::{
    choreography::{Bus, World},
    harness::{Backend, Postgres, Sqlite, eventually, met, order, participants::Service},
    smtp_server::SmtpServer,
};

/// Who died with a message in hand has it for 30 s.
const TOLD_MAX: Duration = Duration::from_secs(90);

/// Messages by order and kind.
type Told = BTreeMap<(String, String), Value>;

/// An order of each mode with an address; gives the sagas, ended.
async fn orders(world: &World, status: &str) -> Vec<String> {
    let mut sagas = Vec::new();
    for mode in MODES {
        let mut input = order("c-1");
        input["email"] = json!(format!("{mode}@example.org"));
        let saga = world.run("checkout", mode, &input).await;
        assert_eq!(saga["status"], status, "{saga}");
        sagas.push(text(&saga, "id").to_owned());
    }
    sagas
}

/// Orders that fail after they were paid.
async fn failed_orders(world: &World) -> Vec<String> {
    world.all.shop.orders.faults(json!({"*": {"refuse": 1.0}})).await;
    let sagas = orders(world, "compensated").await;
    world.all.shop.orders.faults(json!({})).await;
    sagas
}

/// The messages once there are these and none is on its way; each is there once.
async fn told(notification: &Service, expected: &BTreeSet<(String, String)>) -> Told {
    let key = |message: &Value| (text(message, "saga").to_owned(), text(message, "kind").to_owned());
    let messages = eventually("customers are told", TOLD_MAX, async || {
        let messages = notification.client.all("/notifications").await;
        let none_pending = messages.iter().all(|message| message["status"] != "pending");
        met(messages.len() >= expected.len() && none_pending, || format!("{messages:#?}"))?;
        Ok(messages)
    })
    .await;
    assert_eq!(messages.len(), expected.len(), "{messages:#?}");
    let told: Told = messages.into_iter().map(|message| (key(&message), message)).collect();
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), *expected);
    told
}

fn expected(confirmed: &[String], failed: &[String]) -> BTreeSet<(String, String)> {
    let of =
        |sagas: &[String], kind: &str| sagas.iter().map(|saga| (saga.clone(), kind.to_owned())).collect::<Vec<_>>();
    [of(confirmed, "order_confirmed"), of(failed, "order_failed"), of(failed, "payment_refunded")]
        .concat()
        .into_iter()
        .collect()
}

#[rstest]
#[case(Sqlite, Bus::Streams)]
#[case(Postgres, Bus::Skald)]
#[tokio::test(flavor = "multi_thread")]
async fn without_a_mail_server_each_message_is_in_the_table_once_11(#[case] backend: Backend, #[case] bus: Bus) {
    let world = World::start(backend, bus).await;
    let mut notification = world.worker("notification", &[], backend).await;
    let mut confirmed = orders(&world, "completed").await;
    notification.restart().await;
    let failed = failed_orders(&world).await;
    notification.kill();
    confirmed.extend(orders(&world, "completed").await);
    notification.restart().await;
    let expected = expected(&confirmed, &failed);
    let messages = told(&notification, &expected).await;
    assert!(messages.values().all(|message| message["status"] == "recorded"), "{messages:#?}");

    if bus == Bus::Skald {
        let again = json!({"group": "notification"});
        let replayed = world.all.skald.client.post("/events/replay", &again).await.expect(200);
        assert!(replayed["events"].as_u64() > Some(0), "{replayed}");
        eventually("all is handled again", CAUGHT_UP_MAX, async || settled(&world, "notification").await).await;
        told(&notification, &expected).await;
    }
}

#[rstest]
#[case(Sqlite, Bus::Skald)]
#[case(Postgres, Bus::Streams)]
#[tokio::test(flavor = "multi_thread")]
async fn each_mail_goes_out_once_but_for_one_that_was_sent_when_its_sender_died(
    #[case] backend: Backend,
    #[case] bus: Bus,
) {
    let world = World::start(backend, bus).await;
    let (server, url) = SmtpServer::start().await;
    let flags = [format!("--smtp={url}"), "--smtp-from=Shop <shop@example.org>".to_owned()];
    let mut notification = world.worker("notification", &flags, backend).await;
    server.unanswered.store(1, Ordering::SeqCst);
    let mut confirmed = orders(&world, "completed").await;
    eventually("a mail is being sent", CAUGHT_UP_MAX, async || met(!server.mails().is_empty(), String::new)).await;
    notification.kill();
    let before = ids(&server.mails());
    let failed = failed_orders(&world).await;
    notification.restart().await;
    confirmed.extend(orders(&world, "completed").await);

    let expected = expected(&confirmed, &failed);
    let messages = told(&notification, &expected).await;
    assert!(messages.values().all(|message| message["status"] == "sent"), "{messages:#?}");
    let sent = ids(&server.mails());
    let meant: BTreeSet<String> = expected.iter().map(|(saga, kind)| format!("<{saga}.{kind}@skald>")).collect();
    assert_eq!(sent.keys().cloned().collect::<BTreeSet<_>>(), meant);
    for (id, times) in sent {
        assert!(times == 1 || times == 2 && before.contains_key(&id), "{id} was sent {times} times");
    }
}

/// How often each message was taken.
fn ids(mails: &[String]) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for mail in mails {
        let id = mail.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("each has an id");
        *ids.entry(id.to_owned()).or_default() += 1;
    }
    ids
}
