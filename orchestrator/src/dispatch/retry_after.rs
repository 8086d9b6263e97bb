//! `Retry-After`: seconds, or a date.

use std::time::SystemTime;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use skald_core::time::{Millis, SPAN_MS_MAX, Timestamp};

/// How long from now the participant asks to wait; None if it does not, or not in a way that can be read.
///
/// A date is compared with the answer's own `Date`, so that the participant's clock may be wrong; without one, with `now`.
#[must_use]
pub fn read(headers: &HeaderMap, now: Timestamp) -> Option<Millis> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Millis(seconds.saturating_mul(1000).min(SPAN_MS_MAX)));
    }
    let at = timestamp(httpdate::parse_http_date(text).ok()?)?;
    let sent = headers.get(DATE).and_then(|date| timestamp(httpdate::parse_http_date(date.to_str().ok()?).ok()?));
    Some(sent.unwrap_or(now).until(at).min(Millis(SPAN_MS_MAX)))
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).ok()?))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
    const NOON_MICROS: i64 = 784_123_200_000_000;

    #[test]
    fn seconds_and_dates_are_read() {
        for (retry_after, date, wait) in [
            ("0", None, Some(0)),
            ("120", None, Some(120_000)),
            (" 7 ", Some(NOON), Some(7_000)),
            ("99999999999999999999", None, Some(SPAN_MS_MAX)),
            ("Sun, 06 Nov 1994 12:01:30 GMT", None, Some(90_000)),
            ("Sun, 06 Nov 1994 11:00:00 GMT", None, Some(0)),
            ("Sun, 06 Nov 1994 13:00:10 GMT", Some("Sun, 06 Nov 1994 13:00:00 GMT"), Some(10_000)),
            ("Sunday, 06-Nov-94 12:00:01 GMT", Some(NOON), Some(1_000)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some("nonsense"), Some(SPAN_MS_MAX)),
            ("", None, None),
            ("soon", None, None),
            ("-1", None, None),
            ("1.5", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(retry_after).unwrap());
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_str(date).unwrap());
            }
            let read = read(&headers, Timestamp::from_micros(NOON_MICROS));
            assert_eq!(read, wait.map(Millis), "{retry_after} {date:?}");
        }
        assert_eq!(read(&HeaderMap::new(), Timestamp::from_micros(0)), None);
    }
}
