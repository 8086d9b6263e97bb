//! Webhooks and the attempts to deliver to them.

use skald_core::time::{Millis, Timestamp};
use sqlx::types::Uuid;

use super::{
    super::webhooks::{Attempt, Disabled, SagaNews, Terms, Webhook},
    fixture::Database,
};

fn webhook(number: u128) -> Webhook {
    let terms = Terms {
        url: format!("https://{number}.example/hook"),
        events: vec![SagaNews::Parked],
        definitions: vec!["checkout".to_owned()],
        secrets: 1,
        former_until: None,
        disabled: None,
    };
    Webhook { id: Uuid::from_u128(number), created_at: Timestamp::from_micros(7), terms }
}

fn attempt(webhook: u128, number: u32) -> Attempt {
    Attempt {
        webhook: Uuid::from_u128(webhook),
        message: "m".to_owned(),
        type_name: "saga.parked".to_owned(),
        number,
        at: Timestamp::from_micros(i64::from(number)),
        duration: Millis(3),
        http_status: (number > 1).then_some(204),
        error: (number == 1).then(|| "connection refused".to_owned()),
    }
}

pub async fn webhooks_are_added_changed_and_removed(database: &Database) {
    let (store, other) = (database.migrated(1).await, database.open(1).await);
    store.add_webhook(&webhook(2)).await.unwrap();
    store.add_webhook(&webhook(1)).await.unwrap();
    assert!(store.add_webhook(&webhook(1)).await.is_err(), "its id is taken");
    assert_eq!(other.webhooks().await.unwrap(), [webhook(1), webhook(2)]);
    let mut changed = webhook(2);
    changed.terms.disabled = Some(Disabled { at: Timestamp::from_micros(9), reason: "410 Gone".to_owned() });
    assert!(store.change_webhook(changed.id, &changed.terms).await.unwrap());
    assert!(!store.change_webhook(Uuid::from_u128(3), &changed.terms).await.unwrap());
    assert!(store.remove_webhook(webhook(1).id).await.unwrap());
    assert!(!store.remove_webhook(webhook(1).id).await.unwrap());
    assert_eq!(other.webhooks().await.unwrap(), [changed]);
}

pub async fn attempts_are_listed_latest_first_and_forgotten(database: &Database) {
    let store = database.migrated(1).await;
    store.add_webhook(&webhook(1)).await.unwrap();
    for number in 1..=3 {
        store.note_attempt(&attempt(1, number)).await.unwrap();
        store.note_attempt(&attempt(2, number)).await.unwrap();
    }
    let id = webhook(1).id;
    let page = store.attempts(id, None, 2).await.unwrap();
    let of = |page: &[(i64, Attempt)]| page.iter().map(|(_, attempt)| attempt.clone()).collect::<Vec<_>>();
    assert_eq!(of(&page), [attempt(1, 3), attempt(1, 2)]);
    let rest = store.attempts(id, Some(page[1].0), 2).await.unwrap();
    assert_eq!(of(&rest), [attempt(1, 1)]);
    store.forget_attempts(Timestamp::from_micros(3)).await.unwrap();
    assert_eq!(of(&store.attempts(id, None, 9).await.unwrap()), [attempt(1, 3)]);
    store.remove_webhook(id).await.unwrap();
    assert_eq!(store.attempts(id, None, 9).await.unwrap(), []);
    assert_eq!(store.attempts(Uuid::from_u128(2), None, 9).await.unwrap().len(), 1);
}
