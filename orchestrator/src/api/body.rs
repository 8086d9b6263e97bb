//! Reading a request's body: bounded in size, time and depth, of a type that can be read, and strict about its JSON.

use std::time::Duration;

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    error::PayloadError,
    http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::LocalBoxFuture};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use skald_core::json::{DEPTH_MAX, Document, Limits, parse_strict};

use super::problem::{Code, FieldProblem, Problem};
use crate::app::App;

/// The whole body must be here by then: a client that trickles it does not hold the connection for longer.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A body as it came, with its media type.
#[derive(Debug)]
pub struct Received {
    pub bytes: Bytes,
    /// Without parameters, in lower case; None when the client did not say.
    pub media_type: Option<String>,
}

/// A JSON body that was checked.
#[derive(Debug)]
pub struct JsonBody(pub Document);

/// A JSON body of a known form.
#[derive(Debug)]
pub struct Form<T>(pub T);

impl FromRequest for Received {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, payload) = (req.clone(), payload.take());
        let bytes_max = req.app_data::<web::Data<App>>().map_or(0, |app| app.body_bytes_max());
        Box::pin(async move { Ok(receive(&req, payload, bytes_max).await?) })
    }
}

impl FromRequest for JsonBody {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let received = Received::from_request(req, payload);
        Box::pin(async move { Ok(Self(received.await?.json()?)) })
    }
}

impl Received {
    /// The body, which must be JSON.
    ///
    /// # Errors
    ///
    /// When it is not, or not such as can be kept.
    pub fn json(self) -> Result<Document, Problem> {
        if let Some(kind) = &self.media_type
            && !is_json(kind)
        {
            let reason = "must be application/json";
            return Err(Problem::in_field(Code::UnsupportedMediaType, "Content-Type", reason));
        }
        let limits = Limits { bytes_max: usize::MAX, depth_max: DEPTH_MAX };
        let value = parse_strict(&self.bytes, limits)
            .map_err(|problem| Problem::in_field(Code::InvalidJson, problem.place, problem.reason))?;
        let text = std::str::from_utf8(&self.bytes).expect("what was parsed is UTF-8");
        let raw = RawValue::from_string(text.trim_ascii().to_owned())
            .map_err(|error| Problem::in_field(Code::InvalidJson, "", error.to_string()))?;
        Ok(Document::new(raw, value))
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Form<T> {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = JsonBody::from_request(req, payload);
        Box::pin(async move { Ok(Self(form(body.await?.0.into_parts().1)?)) })
    }
}

/// Reads a body of at most so many bytes.
///
/// # Errors
///
/// When it is larger, encoded, broken off, or too slow.
pub async fn receive(req: &HttpRequest, mut payload: Payload, bytes_max: usize) -> Result<Received, Problem> {
    let media_type = media_type(req)?;
    let declared = req.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let read = async {
        let mut bytes = BytesMut::with_capacity(declared.unwrap_or(0));
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| broken_off(&error))?;
            if bytes.len() + chunk.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    let bytes = tokio::time::timeout(BODY_TIME_MAX, read)
        .await
        .map_err(|_| Problem::new(Code::RequestTimeout, "The body took too long to arrive."))??;
    Ok(Received { bytes, media_type })
}

fn media_type(req: &HttpRequest) -> Result<Option<String>, Problem> {
    let refused = |name: &str, reason: &str| Problem::in_field(Code::UnsupportedMediaType, name, reason);
    if let Some(encoding) = req.headers().get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(refused("Content-Encoding", "must not be used: the body cannot be decoded"));
    }
    let Some(value) = req.headers().get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| refused("Content-Type", "is not a media type"))?;
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let utf8 = value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8");
        if name.trim().eq_ignore_ascii_case("charset") && !utf8 {
            return Err(refused("Content-Type", "must have no other charset than utf-8"));
        }
    }
    Ok(Some(essence.trim().to_ascii_lowercase()))
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("The body must not be larger than {bytes_max} bytes."))
}

fn broken_off(error: &PayloadError) -> Problem {
    Problem::new(Code::BadRequest, "The body did not arrive whole.").caused_by(error.to_string())
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Reads a value as `T`.
///
/// # Errors
///
/// The first mistake, with its place.
pub fn form<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut place = String::new();
        for segment in error.path() {
            match segment {
                serde_path_to_error::Segment::Seq { index } => place.push_str(&format!("/{index}")),
                serde_path_to_error::Segment::Map { key } => push_key(&mut place, key),
                serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => {}
            }
        }
        let reason = error.inner().to_string();
        // A missing field has no path of its own, only a name in the text.
        if let Some(field) = reason.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            push_key(&mut place, field);
            return Problem::at(Code::InvalidBody, vec![FieldProblem::new(place, "is required, and missing")]);
        }
        Problem::at(Code::InvalidBody, vec![FieldProblem::new(place, reason)])
    })
}

fn push_key(place: &mut String, key: &str) {
    place.push('/');
    place.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

/// For an optional field: to be absent is to leave it out, and `null` is a value like any other. Where anything may be
/// given, it is taken as such; elsewhere it is of the wrong type, as the specification says.
///
/// # Errors
///
/// When the value cannot be read.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Sample {
        reason: String,
        #[serde(default, deserialize_with = "given")]
        output: Option<Value>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Inner {
        limit: Vec<u32>,
    }

    #[test]
    fn every_mistake_in_a_form_is_told_with_its_place() {
        for (value, place) in [
            (json!({}), "/reason"),
            (json!({"reason": 1}), "/reason"),
            (json!({"reason": "x", "reasn": 1}), "/reasn"),
            (json!({"reason": "x", "inner": {"limit": [1, "2"]}}), "/inner/limit/1"),
            (json!({"reason": "x", "inner": {"limit": [-1]}}), "/inner/limit/0"),
            (json!({"reason": "x", "inner": {}}), "/inner/limit"),
            (json!({"reason": "x", "inner": {"limit": [], "a/b": 1}}), "/inner/a~1b"),
            (json!(["x"]), ""),
            (json!("x"), ""),
        ] {
            let problem = form::<Sample>(value.clone()).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidBody);
            assert!(format!("{problem:?}").contains(&format!("place: \"{place}\"")), "{value}: {problem:?}");
        }
    }

    #[test]
    fn a_null_output_is_an_output() {
        let sample: Sample = form(json!({"reason": "x", "output": null})).unwrap();
        assert_eq!(sample.output, Some(Value::Null));
        let sample: Sample = form(json!({"reason": "x"})).unwrap();
        assert_eq!(sample.output, None);
    }

    #[test]
    fn an_input_keeps_its_bytes_but_not_the_blanks_around_it() {
        let received = |text: &str| Received { bytes: Bytes::copy_from_slice(text.as_bytes()), media_type: None };
        let body = received(" \n{\"b\": 1.50,  \"a\":2}\r\n").json().unwrap();
        assert_eq!(body.text().get(), "{\"b\": 1.50,  \"a\":2}");
        assert_eq!(received("").json().unwrap_err().code(), Code::InvalidJson);
    }
}
