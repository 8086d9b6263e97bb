//! Reading the request headers of the contract, each with its own rules. What is refused is refused by name.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH};

use super::problem::{Code, Problem};
use crate::events::position::Place;

/// A key names a start for its client, of at most this many characters.
pub const KEY_CHARS_MAX: usize = 255;
const CORRELATION_ID_CHARS_MAX: usize = 128;
pub const ACTOR_CHARS_MAX: usize = 128;

fn refused(name: &str, reason: &str) -> Problem {
    Problem::in_field(Code::InvalidHeader, name, reason)
}

/// The only value of a header, as text.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name);
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refused(name, "is given more than once"));
    }
    let text = first.to_str().map_err(|_| refused(name, "holds bytes that are not visible ASCII"))?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `X-Correlation-Id`: 1 to 128 visible ASCII characters.
///
/// # Errors
///
/// When it is anything else.
pub fn correlation_id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const NAME: &str = "X-Correlation-Id";
    let Some(id) = single(headers, NAME)? else { return Ok(None) };
    if id.is_empty() || id.len() > CORRELATION_ID_CHARS_MAX || !is_visible(id) {
        return Err(refused(NAME, "must be 1 to 128 visible ASCII characters"));
    }
    Ok(Some(id.to_owned()))
}

/// `traceparent` (W3C Trace Context), ignored when it is malformed, as the standard asks.
#[must_use]
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    const LEN: usize = 55;
    let text = single(headers, "traceparent").ok()??;
    let head = text.get(..LEN)?;
    let rest = &text[LEN..];
    let mut parts = head.split('-');
    let mut part = |len: usize| {
        let part = parts.next().filter(|part| part.len() == len)?;
        part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
    };
    let (version, trace, span, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let ends = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    (ends && version != "ff" && !zero(trace) && !zero(span)).then(|| head.to_owned())
}

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Whether there is an [`idempotency_key`], of whatever form.
pub fn has_idempotency_key(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}

/// `Idempotency-Key`: a quoted string (RFC 9651) or the bare characters; both forms of one key are the same key.
///
/// # Errors
///
/// When it is empty, too long, or neither form.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(text) = single(headers, IDEMPOTENCY_KEY)? else { return Ok(None) };
    let key = match text.strip_prefix('"') {
        Some(quoted) => {
            unquote(quoted).ok_or_else(|| refused(IDEMPOTENCY_KEY, "is not a well-formed quoted string"))?
        }
        None if is_visible(text) => text.to_owned(),
        None => {
            return Err(refused(
                IDEMPOTENCY_KEY,
                "must be visible ASCII characters, without blanks unless it is quoted",
            ));
        }
    };
    if key.is_empty() || key.len() > KEY_CHARS_MAX {
        return Err(refused(IDEMPOTENCY_KEY, "must have 1 to 255 characters"));
    }
    Ok(Some(key))
}

/// The rest of a quoted string after its opening quote; None unless it ends where the text ends.
fn unquote(text: &str) -> Option<String> {
    let mut key = String::with_capacity(text.len());
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => key.push(chars.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            plain @ ' '..='~' => key.push(plain),
            _ => return None,
        }
    }
}

/// What a client prefers about waiting (RFC 7240).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    pub wait: Option<Duration>,
    pub respond_async: bool,
}

/// Nobody is kept waiting for longer.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// `Prefer`. The first of equal preferences counts; unknown and malformed ones are ignored, as the standard asks.
#[must_use]
pub fn prefer(headers: &HeaderMap) -> Prefer {
    let mut prefer = Prefer::default();
    let values = headers.get_all("prefer").filter_map(|value| value.to_str().ok());
    for preference in values.flat_map(|value| value.split(',')) {
        let own = preference.split(';').next().unwrap_or_default();
        let (name, value) = own.split_once('=').unwrap_or((own, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("respond-async") {
            prefer.respond_async = true;
        } else if name.trim().eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
            prefer.wait = seconds(value).map(|wait| wait.min(WAIT_MAX));
        }
    }
    prefer
}

/// Digits only; a number too large to hold is as large as can be.
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

/// `If-Match` with one revision; None for `*` or none at all.
///
/// # Errors
///
/// When it is not one entity tag of a saga.
pub fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    const NAME: &str = "If-Match";
    let Some(text) = single(headers, IF_MATCH.as_str())? else { return Ok(None) };
    if text == "*" {
        return Ok(None);
    }
    let tag = text.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let revision = tag.and_then(|tag| tag.parse().ok().filter(|_| tag.bytes().all(|byte| byte.is_ascii_digit())));
    revision.map(Some).ok_or_else(|| refused(NAME, "must be one revision in quotes, as in the saga's ETag"))
}

/// Whether `If-None-Match` names this revision, or any (`*`). Weak tags match too; what is malformed does not.
#[must_use]
pub fn if_none_match(headers: &HeaderMap, revision: u64) -> bool {
    let own = etag(revision);
    let values = headers.get_all(IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag == own
    })
}

/// The entity tag of a saga at this revision.
#[must_use]
pub fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// `Last-Event-ID` of an event stream: the version of the last event seen.
///
/// # Errors
///
/// When it is not a whole number.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    const NAME: &str = "Last-Event-ID";
    match single(headers, NAME)? {
        None | Some("") => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(version) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(version.unsigned_abs())),
            _ => Err(refused(NAME, "must be the version of an event: a whole number")),
        },
    }
}

/// `Last-Event-ID` of the log's tail: a place in the log.
///
/// # Errors
///
/// When it is anything else.
pub fn last_place(headers: &HeaderMap) -> Result<Option<Place>, Problem> {
    const NAME: &str = "Last-Event-ID";
    match single(headers, NAME)? {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|reason: &str| refused(NAME, reason)),
    }
}

/// `X-Actor`: who acts, 1 to 128 printable ASCII characters.
///
/// # Errors
///
/// When it is anything else.
pub fn actor(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const NAME: &str = "X-Actor";
    let Some(actor) = single(headers, NAME)? else { return Ok(None) };
    let printable = actor.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if actor.is_empty() || actor.len() > ACTOR_CHARS_MAX || !printable {
        return Err(refused(NAME, "must be 1 to 128 printable ASCII characters"));
    }
    Ok(Some(actor.to_owned()))
}

/// The token of a callback: `Saga-Callback-Token`, or `Authorization: Bearer`.
///
/// # Errors
///
/// When neither is there, or its value is not text.
pub fn callback_token(headers: &HeaderMap) -> Result<&str, Problem> {
    if let Some(token) = single(headers, "Saga-Callback-Token")? {
        return Ok(token);
    }
    let bearer = single(headers, "Authorization")?.and_then(|value| value.split_once(' '));
    match bearer {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Problem::in_field(
            Code::MissingToken,
            "Saga-Callback-Token",
            "is required: the token that the call to the participant carried",
        )),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn with(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        let key = |text: &str| idempotency_key(&with(&[("idempotency-key", text)]));
        for (text, expected) in
            [("abc", "abc"), ("\"abc\"", "abc"), ("\"a \\\"b\\\\\"", "a \"b\\"), ("a:b/c=", "a:b/c="), (" abc ", "abc")]
        {
            assert_eq!(key(text).unwrap().as_deref(), Some(expected), "{text}");
        }
        let long = "k".repeat(256);
        for bad in ["", "\"\"", "a b", "\"abc", "\"a\"b", "\"a\\n\"", "ключ", &long, "\"abc\";a=1"] {
            assert!(key(bad).is_err(), "{bad}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        assert!(idempotency_key(&with(&[("idempotency-key", "a"), ("idempotency-key", "b")])).is_err());
    }

    #[test]
    fn preferences_are_read_and_what_is_malformed_is_ignored() {
        let wait = |seconds| Prefer { wait: Some(Duration::from_secs(seconds)), respond_async: false };
        for (text, expected) in [
            ("wait=5", wait(5)),
            ("WAIT=\"5\"; q=1, wait=9", wait(5)),
            ("wait = 7", wait(7)),
            ("wait=0", wait(0)),
            ("wait=99999999999999999999999", wait(60)),
            ("respond-async", Prefer { wait: None, respond_async: true }),
            ("respond-async, wait=3", Prefer { respond_async: true, ..wait(3) }),
            ("wait=abc, wait=4", wait(4)),
            ("wait=-1", Prefer::default()),
            ("wait=1.5", Prefer::default()),
            ("wait", Prefer::default()),
            ("return=minimal,,;=", Prefer::default()),
            ("", Prefer::default()),
        ] {
            assert_eq!(prefer(&with(&[("prefer", text)])), expected, "{text}");
        }
        assert_eq!(prefer(&with(&[("prefer", "respond-async"), ("prefer", "wait=2")])).wait, wait(2).wait);
    }

    #[test]
    fn a_trace_context_is_taken_or_ignored() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = |text: &str| traceparent(&with(&[("traceparent", text)]));
        assert_eq!(read(good).as_deref(), Some(good));
        assert_eq!(read(&format!("cc{}-future", &good[2..])).as_deref(), Some(&*format!("cc{}", &good[2..])));
        let zero_trace = good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        for bad in
            ["", "00", &good[..54], &good.to_uppercase(), &format!("{good}-x"), &zero_trace, "ü", &"ü".repeat(40)]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&good.replacen("00", "ff", 1)), None);
    }

    #[test]
    fn a_revision_is_matched_as_an_entity_tag() {
        let read = |text: &str| if_match(&with(&[("if-match", text)]));
        assert_eq!(read("\"12\"").unwrap(), Some(12));
        assert_eq!(read("*").unwrap(), None);
        for bad in ["12", "W/\"12\"", "\"12\", \"13\"", "\"x\"", "\"+1\"", "", "\""] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let none = |text: &str| if_none_match(&with(&[("if-none-match", text)]), 3);
        assert!(none("\"3\"") && none("W/\"3\"") && none("\"1\", \"3\"") && none("*"));
        assert!(!none("3") && !none("\"30\"") && !none(""));
    }

    #[test]
    fn other_headers_are_refused_by_name() {
        assert!(
            correlation_id(&with(&[("x-correlation-id", "a b")])).unwrap_err().detail().contains("X-Correlation-Id")
        );
        assert!(correlation_id(&with(&[("x-correlation-id", &"x".repeat(129))])).is_err());
        assert_eq!(correlation_id(&with(&[("x-correlation-id", "ok-1")])).unwrap().as_deref(), Some("ok-1"));
        assert_eq!(actor(&with(&[("x-actor", "Jane Doe")])).unwrap().as_deref(), Some("Jane Doe"));
        assert!(actor(&with(&[("x-actor", "Jörg")])).is_err());
        assert_eq!(last_event_id(&with(&[("last-event-id", "7")])).unwrap(), Some(7));
        assert!(last_event_id(&with(&[("last-event-id", "+7")])).is_err());
        assert_eq!(callback_token(&with(&[("authorization", "bearer abc")])).unwrap(), "abc");
        assert_eq!(callback_token(&HeaderMap::new()).unwrap_err().code(), Code::MissingToken);
    }
}
