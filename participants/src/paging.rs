//! Lists: `limit` (50, at most 250) and an opaque `cursor` that holds the last item's sort key.

use serde_json::{Value, json};
use skald_kit::Problem;

use crate::codes;

const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 250;

/// # Errors
/// The limit is not within 1..=250.
pub(crate) fn limit(given: Option<i64>) -> Result<i64, Problem> {
    let limit = given.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("limit: {limit} is not within 1..={LIMIT_MAX}");
    Err(Problem::new(codes::INVALID_QUERY, detail).with("field", "limit"))
}

/// Reads a cursor made of `N` texts; without one, the texts that sort before all others.
///
/// # Errors
/// The cursor is not one that [`page`] gave.
pub(crate) fn cursor<const N: usize>(given: Option<&str>) -> Result<[String; N], Problem> {
    let Some(given) = given else { return Ok(std::array::from_fn(|_| String::new())) };
    let nibbles: Option<Vec<u8>> =
        given.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let nibbles = nibbles.filter(|nibbles| nibbles.len() % 2 == 0).ok_or_else(no_cursor)?;
    let bytes = nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let text = String::from_utf8(bytes).map_err(|_| no_cursor())?;
    let parts: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if parts.iter().any(|part| part.chars().any(char::is_control)) {
        return Err(no_cursor());
    }
    parts.try_into().map_err(|_| no_cursor())
}

/// A cursor that [`page`] has not given.
pub(crate) fn no_cursor() -> Problem {
    Problem::new(codes::INVALID_CURSOR, "cursor: not one that was given out").with("field", "cursor")
}

/// A page of a list. `rows` must have been asked for with `limit + 1`, so that the last page is known.
pub(crate) fn page<T, const N: usize>(
    mut rows: Vec<T>,
    limit: i64,
    sort_key: impl Fn(&T) -> [&str; N],
    item: impl Fn(&T) -> Value,
) -> Value {
    let next_cursor = next_cursor(&mut rows, limit, sort_key);
    json!({ "items": rows.iter().map(item).collect::<Vec<_>>(), "next_cursor": next_cursor })
}

/// Cuts `rows`, of which `limit + 1` were asked for, and gives the cursor that leads to the others.
pub(crate) fn next_cursor<T, const N: usize>(
    rows: &mut Vec<T>,
    limit: i64,
    sort_key: impl Fn(&T) -> [&str; N],
) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more).map(|last| encode(&sort_key(last).join("\n")))
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_to_the_next_page_and_the_last_page_has_none() {
        let list = |rows: &[&'static str]| page(rows.to_vec(), 2, |row| ["s-ü", row], |row| json!(row));
        let first = list(&["a", "b", "c"]);
        assert_eq!(first["items"], json!(["a", "b"]));
        let next: [String; 2] = cursor(first["next_cursor"].as_str()).unwrap();
        assert_eq!(next, ["s-ü", "b"]);
        assert_eq!(list(&["c"])["next_cursor"], Value::Null);
    }

    #[test]
    fn a_made_up_cursor_is_refused() {
        for given in ["x", "0", "610a62", "ff", "6100"] {
            assert!(cursor::<1>(Some(given)).is_err(), "{given}");
        }
    }
}
