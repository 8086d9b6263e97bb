//! Reading an answer's body: whole, within the cap, as JSON.

use bytes::{Bytes, BytesMut};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_ENCODING, HeaderMap},
};
use serde_json::Value;
use skald_core::classify::Body;
use skald_core::json::{DEPTH_MAX, Limits, parse_strict};

/// Reads the body of an answer. A body that is larger than `bytes_max`, compressed or not JSON is `Unusable`, which
/// says why; it is not read further than needed to know.
///
/// # Errors
///
/// When the connection ends before the body does: there is no whole answer.
pub async fn read(mut response: Response, bytes_max: usize) -> reqwest::Result<Body> {
    let too_large = || Body::Unusable(format!("larger than {bytes_max} bytes"));
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Body::Empty);
    }
    if let Some(encoding) = encoding(response.headers()) {
        return Ok(Body::Unusable(format!("compressed ({encoding}), which was not asked for")));
    }
    if response.content_length().is_some_and(|length| length > bytes_max as u64) {
        return Ok(too_large());
    }
    let Some(first) = response.chunk().await? else { return Ok(Body::Empty) };
    if first.len() > bytes_max {
        return Ok(too_large());
    }
    let Some(second) = response.chunk().await? else { return Ok(parse(&first)) };
    let mut whole = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        if whole.len() + chunk.len() > bytes_max {
            return Ok(too_large());
        }
        whole.extend_from_slice(&chunk);
        next = response.chunk().await?;
    }
    Ok(parse(&whole.freeze()))
}

/// The content encoding, if there is one.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_ENCODING)?;
    let text: String = String::from_utf8_lossy(value.as_bytes()).chars().take(20).collect();
    (!text.trim().is_empty() && !text.trim().eq_ignore_ascii_case("identity")).then_some(text)
}

fn parse(bytes: &Bytes) -> Body {
    if bytes.is_empty() {
        return Body::Empty;
    }
    match parse_body(bytes) {
        Ok(value) => Body::Json(value),
        Err(problem) => Body::Unusable(problem),
    }
}

/// Strict: what a participant says is stored, so it must be what every database can hold.
fn parse_body(bytes: &[u8]) -> Result<Value, String> {
    let limits = Limits { bytes_max: usize::MAX, depth_max: DEPTH_MAX };
    parse_strict(bytes, limits).map_err(|problem| match problem.place.as_str() {
        "" => format!("not JSON that can be kept: {}", problem.reason),
        place => format!("not JSON that can be kept: {place}: {}", problem.reason),
    })
}
