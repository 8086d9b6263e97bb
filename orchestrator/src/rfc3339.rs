//! Engine times as text (RFC 3339, UTC).
//!
//! The calendar is chrono's. Its formatting goes through a description of the format and onto the heap, twenty times per
//! checkout.

use std::ops::Deref;

use chrono::{DateTime, Datelike as _, Timelike as _};
use skald_core::time::Timestamp;

/// A moment's text.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    bytes: [u8; FORM.len()],
    length: usize,
}

const FORM: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";
/// Up to the point.
const WHOLE: usize = 20;

/// With six digits behind the point; None outside of the years 0 to 9999.
#[must_use]
pub fn micros(at: Timestamp) -> Option<Text> {
    let time = DateTime::from_timestamp_micros(at.as_micros())?.naive_utc();
    let year = u32::try_from(time.year()).ok().filter(|year| *year <= 9999)?;
    let mut bytes = *FORM;
    let fields = [
        (0..4, year),
        (5..7, time.month()),
        (8..10, time.day()),
        (11..13, time.hour()),
        (14..16, time.minute()),
        (17..19, time.second()),
        (WHOLE..26, time.nanosecond() / 1000),
    ];
    for (place, mut number) in fields {
        for digit in bytes[place].iter_mut().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
        }
    }
    Some(Text { bytes, length: FORM.len() })
}

/// With three digits behind the point; None outside of the years 0 to 9999.
#[must_use]
pub fn millis(at: Timestamp) -> Option<Text> {
    let Text { mut bytes, .. } = micros(at)?;
    bytes[WHOLE + 3] = b'Z';
    Some(Text { bytes, length: WHOLE + 4 })
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("made of ASCII")
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn outside_of_the_years_that_it_can_say_there_is_no_text() {
        let at = |text: &str| Timestamp::from_micros(text.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_micros());
        assert_eq!(&*micros(at("9999-12-31T23:59:59.999999Z")).unwrap(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(&*millis(at("0000-01-01T00:00:00Z")).unwrap(), "0000-01-01T00:00:00.000Z");
        for beyond in [at("+10000-01-01T00:00:00Z"), at("-0001-12-31T23:59:59Z"), Timestamp::from_micros(i64::MAX)] {
            assert!(micros(beyond).is_none() && millis(beyond).is_none());
        }
    }

    proptest! {
        #[test]
        fn the_text_is_what_chrono_writes(at in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
            let time = DateTime::from_timestamp_micros(at).unwrap();
            let at = Timestamp::from_micros(at);
            prop_assert_eq!(&*micros(at).unwrap(), time.to_rfc3339_opts(SecondsFormat::Micros, true));
            prop_assert_eq!(&*millis(at).unwrap(), time.to_rfc3339_opts(SecondsFormat::Millis, true));
        }
    }
}
