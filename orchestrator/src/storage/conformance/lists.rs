//! Lists: filters and pages, against a filter written down here once more.

use std::collections::BTreeMap;

use skald_core::{
    event::Mode,
    ids::SagaId,
    state::{SagaRow, Status},
    time::{Millis, Timestamp},
};

use super::{
    super::{SagaFilter, Store, Tally},
    fixture::{Database, LEASE},
    sample::{START, Saga, batch, owner},
};

/// Sagas of every kind, several of them created in the same millisecond. Newest first.
async fn seed(store: &dyn Store) -> Vec<SagaRow> {
    let owned = store.take_shards(&owner("a"), None, LEASE).await.unwrap();
    let mut sagas = Vec::new();
    for number in 0..60_u64 {
        let created_at = START.plus(Millis(number / 4 * 1000));
        let mut saga = Saga::at(created_at, number, 0, 1);
        saga.row.definition = ["checkout", "refund"][usize::from(number % 5 == 0)].into();
        saga.row.mode = if number % 7 == 0 { Mode::Choreographed } else { Mode::Orchestrated };
        saga.row.correlation_id = format!("correlation-{}", number % 10).into();
        sagas.push(saga);
    }
    store.commit(&batch(&owned, sagas.iter_mut().map(Saga::create).collect())).await.unwrap();
    let moved = sagas.iter_mut().enumerate().map(|(number, saga)| match number % 6 {
        0 => saga.complete(),
        1 => saga.park(),
        2 => saga.fail(),
        3 => saga.end(Status::Abandoned),
        4 => saga.end(Status::Compensated),
        _ => saga.step(),
    });
    store.commit(&batch(&owned, moved.collect())).await.unwrap();
    let mut rows: Vec<SagaRow> = sagas.into_iter().map(|saga| saga.row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    rows
}

fn selects(filter: &SagaFilter, row: &SagaRow) -> bool {
    (filter.statuses.is_empty() || filter.statuses.contains(&row.status))
        && filter.definition.as_ref().is_none_or(|definition| **definition == *row.definition)
        && filter.mode.is_none_or(|mode| mode == row.mode)
        && filter.state.as_ref().is_none_or(|state| *state == row.state && row.ended_at.is_none())
        && filter.correlation_id.as_ref().is_none_or(|id| **id == *row.correlation_id)
        && filter.created_after.is_none_or(|after| row.created_at > after)
        && filter.created_before.is_none_or(|before| row.created_at < before)
        && filter.before.is_none_or(|before| row.id < before)
}

async fn check(store: &dyn Store, rows: &[SagaRow], filter: &SagaFilter) -> usize {
    let expected: Vec<&SagaRow> = rows.iter().filter(|row| selects(filter, row)).take(filter.limit as usize).collect();
    let found = store.list(filter).await.unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    found.len()
}

fn any() -> SagaFilter {
    SagaFilter { limit: 100, ..SagaFilter::default() }
}

fn second(second: u64) -> Timestamp {
    START.plus(Millis(second * 1000))
}

pub async fn each_filter_selects(database: &Database) {
    let store = database.migrated(1).await;
    let rows = seed(&*store).await;
    let mut filters = vec![(any(), 60), (SagaFilter { limit: 7, ..any() }, 7), (SagaFilter { limit: 0, ..any() }, 0)];
    filters.extend(Status::ALL.map(|status| (SagaFilter { statuses: vec![status], ..any() }, 10)));
    filters.extend([
        (SagaFilter { statuses: vec![Status::Parked, Status::Completed, Status::Parked], ..any() }, 20),
        (SagaFilter { statuses: Status::ALL.to_vec(), limit: 13, ..any() }, 13),
        (SagaFilter { definition: Some("refund".to_owned()), ..any() }, 12),
        (SagaFilter { definition: Some("nothing".to_owned()), ..any() }, 0),
        (SagaFilter { mode: Some(Mode::Choreographed), ..any() }, 9),
        (SagaFilter { mode: Some(Mode::Orchestrated), ..any() }, 51),
        (SagaFilter { state: Some("PARKED".to_owned()), ..any() }, 10),
        (SagaFilter { state: Some("COMPLETED".to_owned()), ..any() }, 0),
        (SagaFilter { correlation_id: Some("correlation-3".to_owned()), ..any() }, 6),
        (SagaFilter { created_after: Some(second(10)), ..any() }, 16),
        (SagaFilter { created_after: Some(Timestamp::from_micros(second(10).as_micros() - 1)), ..any() }, 20),
        (SagaFilter { created_before: Some(second(10)), ..any() }, 40),
        (SagaFilter { created_before: Some(Timestamp::from_micros(-1)), ..any() }, 0),
        (SagaFilter { created_after: Some(Timestamp::from_micros(i64::MAX)), ..any() }, 0),
        (SagaFilter { before: Some(rows[40].id), ..any() }, 19),
    ]);
    for (filter, count) in filters {
        assert_eq!(check(&*store, &rows, &filter).await, count, "{filter:?}");
    }
}

pub async fn filters_combine(database: &Database) {
    let store = database.migrated(1).await;
    let rows = seed(&*store).await;
    let statuses = [vec![], vec![Status::Parked], vec![Status::Running, Status::Completed, Status::Abandoned]];
    for statuses in statuses {
        for definition in [None, Some("checkout".to_owned())] {
            for state in [None, Some("PARKED".to_owned()), Some("STOCK_RESERVING".to_owned())] {
                for created_after in [None, Some(second(4))] {
                    let mode = definition.is_some().then_some(Mode::Orchestrated);
                    let created_before = state.is_some().then(|| second(12));
                    let filter = SagaFilter {
                        statuses: statuses.clone(),
                        definition: definition.clone(),
                        mode,
                        state: state.clone(),
                        created_after,
                        created_before,
                        before: Some(rows[3].id),
                        limit: 5,
                        correlation_id: None,
                    };
                    check(&*store, &rows, &filter).await;
                }
            }
        }
    }
}

pub async fn pages_neither_repeat_nor_skip(database: &Database) {
    let store = database.migrated(1).await;
    let rows = seed(&*store).await;
    for statuses in [vec![], vec![Status::Parked, Status::Completed, Status::Running]] {
        let mut filter = SagaFilter { statuses, limit: 7, ..any() };
        let expected: Vec<SagaId> = rows.iter().filter(|row| selects(&filter, row)).map(|row| row.id).collect();
        let mut found = Vec::new();
        loop {
            let page = store.list(&filter).await.unwrap();
            found.extend(page.iter().map(|row| row.id));
            match page.last() {
                Some(last) => filter.before = Some(last.id),
                None => break,
            }
        }
        assert_eq!(found, expected);
    }
}

pub async fn unfinished_sagas_are_counted_by_kind(database: &Database) {
    let store = database.migrated(1).await;
    let rows = seed(&*store).await;
    let deadlines: Vec<Timestamp> = rows.iter().filter_map(|row| row.deadline_at).collect();
    let (first, last) = (*deadlines.iter().min().unwrap(), *deadlines.iter().max().unwrap());
    for now in [first, second(7).plus(Millis(120_000)), last.plus(Millis(1))] {
        let mut expected = BTreeMap::<[String; 3], (u64, u64)>::new();
        for row in rows.iter().filter(|row| row.ended_at.is_none()) {
            let kind = [&*row.definition, row.mode.as_str(), row.status.as_str()].map(str::to_owned);
            let (sagas, overdue) = expected.entry(kind).or_default();
            *sagas += 1;
            *overdue += u64::from(row.deadline_at.is_some_and(|deadline| deadline < now));
        }
        let tallies = store.tally(now).await.unwrap();
        let kind = |tally: &Tally| [&*tally.definition, tally.mode.as_str(), tally.status.as_str()].map(str::to_owned);
        let found: BTreeMap<_, _> = tallies.iter().map(|tally| (kind(tally), (tally.sagas, tally.overdue))).collect();
        assert_eq!((found.len(), &found), (tallies.len(), &expected));
        let overdue: u64 = tallies.iter().map(|tally| tally.overdue).sum();
        let unfinished: u64 = tallies.iter().map(|tally| tally.sagas).sum();
        assert_eq!(unfinished, 30);
        assert_eq!((overdue == 0, overdue == unfinished), (now == first, now > last), "{tallies:?}");
    }
}
