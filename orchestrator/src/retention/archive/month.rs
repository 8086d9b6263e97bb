//! Months of the calendar, UTC.

use std::fmt;

use chrono::{DateTime, Datelike as _, Months, TimeZone as _, Utc};
use skald_core::{
    ids::{SagaId, Shard},
    time::Timestamp,
};

/// A month of a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i32,
    month: u32,
}

impl Month {
    /// In which a moment lies.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let at = DateTime::from_timestamp_micros(at.as_micros()).unwrap_or_default();
        Self { year: at.year(), month: at.month() }
    }

    /// In which a stream began.
    #[must_use]
    pub fn of_stream(id: SagaId) -> Self {
        Self::of(began_at(id))
    }

    /// Its first moment.
    #[must_use]
    pub fn begin(self) -> Timestamp {
        Timestamp::from_micros(self.first_day().timestamp_micros())
    }

    #[must_use]
    pub fn next(self) -> Self {
        let next = self.first_day() + Months::new(1);
        Self { year: next.year(), month: next.month() }
    }

    /// The name of a part of the archive.
    #[must_use]
    pub fn part(self, number: u32) -> String {
        format!("{self}.{number:04}")
    }

    /// The number of a part of this month.
    #[must_use]
    pub fn number_of(self, part: &str) -> Option<u32> {
        part.strip_prefix(&self.to_string())?.strip_prefix('.')?.parse().ok()
    }

    fn first_day(self) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(self.year, self.month, 1, 0, 0, 0).single().expect("a month has a first day")
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// When a stream began, as its id tells.
#[must_use]
pub fn began_at(id: SagaId) -> Timestamp {
    let millis = i64::try_from(id.as_uuid().as_u128() >> 80).unwrap_or(i64::MAX / 1000);
    Timestamp::from_micros(millis.saturating_mul(1000))
}

/// No stream that began at this moment or later has a smaller id.
#[must_use]
pub fn id_floor(at: Timestamp) -> SagaId {
    let first = SagaId::new(at, [0; 10], Shard(0), 1).as_uuid().as_u128();
    SagaId::from_uuid(uuid::Uuid::from_u128(first >> 80 << 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let december: Timestamp = "2024-12-31T23:59:59.999999Z".parse().unwrap();
        let month = Month::of(december);
        assert_eq!((month.to_string(), month.part(7)), ("2024-12".to_owned(), "2024-12.0007".to_owned()));
        assert_eq!((month.number_of("2024-12.0007"), month.number_of("2024-11.0007")), (Some(7), None));
        assert_eq!(month.next().begin(), "2025-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(Month::of(month.next().begin()), month.next());
        let floor = id_floor(month.next().begin());
        for (at, shard) in [(december, 3), (month.begin(), 0)] {
            let id = SagaId::new(at, [255; 10], Shard(shard), 4);
            assert_eq!(Month::of_stream(id), month);
            assert!(id < floor);
        }
        assert!(SagaId::new(month.next().begin(), [0; 10], Shard(0), 4) > floor);
    }
}
