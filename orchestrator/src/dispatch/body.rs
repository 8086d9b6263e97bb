//! Reading an answer's body: whole, within the cap, as JSON.

use http::{HeaderMap, Response, StatusCode, header::CONTENT_ENCODING};
use hyper::body::Incoming;
use serde_json::Value;
use skald_core::classify::Body;
use skald_core::json::{DEPTH_MAX, Limits, parse_strict};

use super::http::{Failure, whole};

/// Reads the body of an answer. A body that is larger than `bytes_max`, compressed or not JSON is `Unusable`, which
/// says why; it is not read further than needed to know.
///
/// # Errors
///
/// When the connection ends before the body does: there is no whole answer.
pub async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Body, Failure> {
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Body::Empty);
    }
    if let Some(encoding) = encoding(response.headers()) {
        return Ok(Body::Unusable(format!("compressed ({encoding}), which was not asked for")));
    }
    let body = whole(response, bytes_max).await?;
    Ok(body.map_or_else(|| Body::Unusable(format!("larger than {bytes_max} bytes")), |bytes| parse(&bytes)))
}

/// The content encoding, if there is one.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_ENCODING)?;
    let text: String = String::from_utf8_lossy(value.as_bytes()).chars().take(20).collect();
    (!text.trim().is_empty() && !text.trim().eq_ignore_ascii_case("identity")).then_some(text)
}

fn parse(bytes: &[u8]) -> Body {
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
