//! Notification: customers are told once, by mail where there is a server and an address.

use std::sync::atomic::Ordering;

use rstest::rstest;
use serde_json::{Value, json};
use skald_kit::{Db, DbOptions, params};
use skald_participants::WorkerKind;

use super::{Bus, Working, checkout, failed_checkout, go_on, input, saga, smtp_server::SmtpServer};
use crate::support::{Backend, eventually};

/// Kinds and statuses, oldest first, once there are so many.
async fn told(notification: &Working, query: &str, count: usize) -> Vec<(String, String)> {
    let text = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
    eventually(&format!("{count} messages of {query}"), async || {
        let mut items = notification.items(&format!("/notifications?{query}")).await;
        items.reverse();
        let told: Vec<_> = items.iter().map(|message| (text(message, "kind"), text(message, "status"))).collect();
        (told.len() >= count && told.iter().all(|(_, status)| status != "pending")).then_some(told)
    })
    .await
}

fn pairs(told: &[(&str, &str)]) -> Vec<(String, String)> {
    told.iter().map(|(kind, status)| ((*kind).to_owned(), (*status).to_owned())).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_mail_server_messages_go_to_the_table(
    #[values(Bus::Http, Bus::Redis)] bus: Bus,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let notification = Working::start(WorkerKind::Notification, bus, backend, None).await;
    let good = checkout(&notification.store, "c-1", Some("ann@example.org"));
    let bad = failed_checkout(&notification.store, "c-2", None);
    assert_eq!(told(&notification, &format!("saga={good}"), 1).await, pairs(&[("order_confirmed", "recorded")]));
    let of_bad = told(&notification, "customer=c-2", 2).await;
    assert_eq!(of_bad, pairs(&[("payment_refunded", "recorded"), ("order_failed", "recorded")]));
    let failed = &notification.items(&format!("/notifications?saga={bad}&kind=order_failed")).await[0];
    assert!(failed["body"].as_str().unwrap().contains("c-9 may not order"), "{failed}");
    let confirmed = &notification.items("/notifications?customer=c-1").await[0];
    assert_eq!((&confirmed["email"], &confirmed["sent_at"]), (&json!("ann@example.org"), &Value::Null));
    assert!(confirmed["body"].as_str().unwrap().contains("39.98"), "{confirmed}");
    let answer = notification.send(reqwest::Method::GET, "/notifications?custumer=c-1").await;
    assert_eq!(answer.code(), "invalid_query");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_is_sent_once_though_the_server_puts_it_off_and_events_come_again(
    #[values(Bus::Http, Bus::Redis)] bus: Bus,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (server, url) = SmtpServer::start().await;
    server.put_off.store(1, Ordering::SeqCst);
    let mut notification = Working::start(WorkerKind::Notification, bus, backend, Some(url)).await;
    let good = checkout(&notification.store, "c-1", Some("ann@example.org"));
    notification.store.lose_next_answers(1);
    let lost = checkout(&notification.store, "c-1", Some("nobody@example.org"));
    let quiet = checkout(&notification.store, "c-1", None);
    let odd = checkout(&notification.store, "c-1", Some("not an address"));
    for (saga, status) in [(good, "sent"), (lost, "failed"), (quiet, "recorded"), (odd, "failed")] {
        let told = told(&notification, &format!("saga={saga}"), 1).await;
        assert_eq!(told, pairs(&[("order_confirmed", status)]), "{saga}");
    }
    // The same news under another event: a group that began anew, or a saga that went on after all.
    notification = notification.restart().await;
    let again = json!({"output": {"total": 1}});
    go_on(&notification.store, good, "checkout", &[("SagaCompleted", "CheckoutSucceeded", again)]);
    let last = failed_checkout(&notification.store, "c-3", Some("bob@example.org"));
    assert_eq!(told(&notification, &format!("saga={last}"), 2).await[1].1, "sent");
    let mails = server.mails();
    let to = |name: &str| mails.iter().filter(|mail| mail.contains(&format!("To: {name}@example.org"))).count();
    assert_eq!((to("ann"), to("bob"), mails.len()), (1, 2, 3), "{mails:?}");
    let ann = mails.iter().find(|mail| mail.contains("To: ann")).unwrap();
    for part in ["Subject: Your order is confirmed", "From: Shop <shop@example.org>", "39.98"] {
        assert!(ann.contains(part), "{ann}");
    }
    assert!(ann.contains(&format!("Message-ID: <{good}.order_confirmed@skald>")), "{ann}");
    let metrics = notification.send(reqwest::Method::GET, "/metrics").await.body;
    let sent = r#"notifications_total{kind="payment_refunded",service="notification",status="sent"} 1"#;
    assert!(metrics.as_str().unwrap().contains(sent), "{metrics}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_sealed_is_opened_to_send_and_kept_nowhere(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (server, url) = SmtpServer::start().await;
    let notification = Working::start(WorkerKind::Notification, Bus::Http, backend, Some(url)).await;
    let sealed = |name: &str| format!("~skald.sealed.1.key.{name}~");
    for name in ["ann", "nobody"] {
        notification.store.data().opened.insert(sealed(name), format!("{name}@example.org"));
    }
    let known = checkout(&notification.store, "c-1", Some(&sealed("ann")));
    let erased = checkout(&notification.store, "c-2", Some(&sealed("bob")));
    let refused = checkout(&notification.store, "c-3", Some(&sealed("nobody")));
    let mut errors = Vec::new();
    for (saga, status) in [(known, "sent"), (erased, "failed"), (refused, "failed")] {
        let told = told(&notification, &format!("saga={saga}"), 1).await;
        assert_eq!(told, pairs(&[("order_confirmed", status)]), "{saga}");
        let shown = &notification.items(&format!("/notifications?saga={saga}")).await[0];
        assert_eq!(shown["email"], "[personal]");
        errors.push(shown["error"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!((&*errors[0], &*errors[1]), ("", "the address was erased"));
    assert!(errors[2].contains("no such person <[personal]>"), "{errors:?}");
    assert!(server.mails()[0].contains("To: ann@example.org") && server.mails().len() == 1);
    // A reason may repeat the address.
    let failure =
        json!({"step": "confirm_order", "code": "blocked", "reason": format!("{} is blocked", sealed("ann"))});
    let events = [
        ("SagaStarted", "CheckoutInitiated", input("c-4", Some(&sealed("ann")))),
        ("SagaFailed", "SagaFailed", failure),
        ("SagaCompensated", "CheckoutFailed", json!({})),
    ];
    let failed = saga(&notification.store, "checkout", &events);
    assert_eq!(told(&notification, &format!("saga={failed}"), 1).await, pairs(&[("order_failed", "sent")]));
    assert!(!server.mails()[1].contains("skald.sealed"), "{:?}", server.mails());
    let db = Db::connect(&notification.database.url, &DbOptions::default()).await.unwrap();
    for row in db.rows("SELECT email, body, error FROM notifications", params![]).await.unwrap() {
        let texts = ["email", "body", "error"].map(|column| row.get::<Option<String>>(column).unwrap());
        assert!(texts.iter().flatten().all(|text| !text.contains("@example.org")), "{texts:?}");
    }
}
