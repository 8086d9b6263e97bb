//! Points in time and spans of it, as plain numbers: core never asks what time it is.

use alloc::{format, string::String};
use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Microseconds since the Unix epoch, by the database's clock where it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    #[must_use]
    pub const fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add_unsigned(span.0.saturating_mul(1000)))
    }

    /// The whole milliseconds from `self` until `later`, rounded up; zero if `later` has passed.
    #[must_use]
    pub const fn until(self, later: Self) -> Millis {
        let micros = later.0.saturating_sub(self.0);
        if micros <= 0 { Millis(0) } else { Millis((micros as u64).div_ceil(1000)) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: write it by RFC 3339, such as 2026-01-31T12:00:00.000001Z")]
pub struct BadTime(pub String);

/// By RFC 3339, to the microsecond; what is finer is cut off.
impl FromStr for Timestamp {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        rfc3339_micros(text).map(Self).ok_or_else(|| BadTime(text.chars().take(40).collect()))
    }
}

fn rfc3339_micros(text: &str) -> Option<i64> {
    let number = |text: &str, from: usize, digits: usize| -> Option<i64> {
        let part = text.get(from..from + digits)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let is = |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|byte| allowed.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(text, 0, 4)?, number(text, 5, 2)?, number(text, 8, 2)?);
    let (hour, minute, second) = (number(text, 11, 2)?, number(text, 14, 2)?, number(text, 17, 2)?);
    let rest = text.get(19..)?;
    let fraction =
        rest.strip_prefix('.').map_or("", |rest| &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()]);
    let zone = if rest.starts_with('.') { rest.get(1 + fraction.len()..)? } else { rest };
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = number(zone, 1, 2)? * 60 + number(zone, 4, 2)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let possible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !possible || rest.starts_with('.') && fraction.is_empty() {
        return None;
    }
    let micros =
        (0..6).fold(0, |sum, at| sum * 10 + i64::from(fraction.as_bytes().get(at).map_or(0, |digit| digit - b'0')));
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset;
    Some((minutes * 60 + second) * 1_000_000 + micros)
}

/// Days since the Unix epoch of a date of the Gregorian calendar (Howard Hinnant, `chrono`-Compatible Low-Level Date
/// Algorithms).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A span in milliseconds. In definitions it is written `200ms`, `5s`, `2m`, `24h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// The longest span a definition may name: 366 days.
pub const SPAN_MS_MAX: u64 = 366 * 24 * 3600 * 1000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write a whole number and a unit, such as 200ms, 5s, 2m, 24h or 7d (at most 366d)")]
pub struct BadDuration(pub String);

impl FromStr for Millis {
    type Err = BadDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadDuration(text.chars().take(40).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            _ => return Err(bad()),
        };
        let span = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)?;
        if span > SPAN_MS_MAX { Err(bad()) } else { Ok(Self(span)) }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if self.0 > 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{self}"))
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn times_are_read_by_rfc_3339() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500_000),
            ("2027-01-15T08:00:00.000001Z", 1_800_000_000_000_001),
            ("2027-01-15t10:30:00.000001999+02:30", 1_800_000_000_000_001),
            ("2027-01-15 07:59:00-00:01", 1_800_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp::from_micros(micros)), "{text}");
        }
        for text in [
            "",
            "2027-01-15",
            "2027-13-15T08:00:00Z",
            "2027-01-15T08:00:00",
            "2027-01-15T08:00:00.Z",
            "2027-01-15T8:00:00Z",
            "é027-01-15T08:00:00Z",
            "2027-01-15T08:00:00+0200",
            "2027-01-15T24:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_written_the_same() {
        for text in ["0ms", "200ms", "5s", "90s", "2m", "24h", "7d", "366d"] {
            let span: Millis = text.parse().unwrap();
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "5", "s", "-1s", "1.5s", "5 s", "5S", "367d", "99999999999999999999s", "5ss"] {
            assert!(text.parse::<Millis>().is_err(), "{text}");
        }
    }
}
