//! Parameters of the query and of the path: each is read by its name, what is left over is refused by its name.

use std::{fmt::Display, str::FromStr};

use actix_web::{HttpRequest, web};
use serde::Deserialize;
use skald_core::{event::Mode, ids::SagaId, state::Status, time::Timestamp};

use super::problem::{Code, FieldProblem, Problem};

/// Items of a page when the client does not say.
pub const LIMIT_DEFAULT: u32 = 50;
/// Items of a page at most.
pub const LIMIT_MAX: u32 = 250;
/// No parameter is longer.
const CHARS_MAX: usize = 1024;

/// The query's parameters, as they are taken out one by one. Every problem is collected; [`Params::finish`] tells.
#[derive(Debug)]
pub struct Params {
    pairs: Vec<(String, String)>,
    problems: Vec<FieldProblem>,
}

impl Params {
    #[must_use]
    pub fn of(req: &HttpRequest) -> Self {
        // Reading pairs of strings cannot fail: whatever the bytes are, they decode to something.
        let pairs = web::Query::<Vec<(String, String)>>::from_query(req.query_string());
        Self { pairs: pairs.map(web::Query::into_inner).unwrap_or_default(), problems: Vec::new() }
    }

    /// The parameter's text, if it is given once and holds nothing that cannot be stored.
    fn text(&mut self, name: &str) -> Option<String> {
        let mut values: Vec<String> = Vec::new();
        self.pairs.retain_mut(|(key, value)| {
            let wanted = key == name;
            if wanted {
                values.push(std::mem::take(value));
            }
            !wanted
        });
        let reason = match values.as_slice() {
            [] => return None,
            [text] if text.len() > CHARS_MAX => format!("is longer than {CHARS_MAX} bytes"),
            [text] if text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) => {
                "holds a character that cannot be accepted".to_owned()
            }
            [_] => return values.pop(),
            _ => "is given more than once".to_owned(),
        };
        self.refuse(name, reason);
        None
    }

    /// A parameter of any type that reads itself; None when it is absent or refused.
    pub fn take<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: Display,
    {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// Several values in one parameter, separated by commas.
    pub fn take_list<T: FromStr>(&mut self, name: &str) -> Vec<T>
    where
        T::Err: Display,
    {
        let Some(text) = self.text(name) else { return Vec::new() };
        let mut found = Vec::new();
        for part in text.split(',') {
            match part.trim().parse::<T>() {
                Ok(value) => found.push(value),
                Err(error) => self.refuse(name, error.to_string()),
            }
        }
        found
    }

    /// `version`: of a definition, from 1.
    pub fn version(&mut self) -> Option<u32> {
        let version = self.take::<u32>("version");
        if version == Some(0) {
            self.refuse("version", "must be at least 1");
        }
        version
    }

    /// The version of an event that was seen.
    pub fn version_seen(&mut self, name: &str) -> Option<u64> {
        let version = self.take::<u64>(name);
        if version.is_some_and(|version| i64::try_from(version).is_err()) {
            self.refuse(name, "is larger than any version");
        }
        version
    }

    /// A parameter that may be given without a value.
    pub fn take_flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("false") => false,
            Some("" | "true") => true,
            Some(_) => {
                self.refuse(name, "must be true or false, or given without a value");
                false
            }
        }
    }

    /// `limit`: how many items at most.
    pub fn limit(&mut self) -> u32 {
        match self.take::<u32>("limit") {
            Some(limit @ 1..=LIMIT_MAX) => limit,
            Some(_) => {
                self.refuse("limit", format!("must be from 1 to {LIMIT_MAX}"));
                LIMIT_DEFAULT
            }
            None => LIMIT_DEFAULT,
        }
    }

    pub fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        self.problems.push(FieldProblem::new(name, reason));
    }

    /// To be called when every known parameter was taken.
    ///
    /// # Errors
    ///
    /// When a parameter was refused, or is not known.
    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in &self.pairs {
            let name: String = name.chars().take(64).collect();
            self.problems.push(FieldProblem::new(name, "is not a parameter of this call"));
        }
        if self.problems.is_empty() { Ok(()) } else { Err(Problem::at(Code::InvalidParameter, self.problems)) }
    }
}

/// The saga's id in a path.
///
/// # Errors
///
/// When it is not a UUID.
pub fn saga_id(text: &str) -> Result<SagaId, Problem> {
    text.parse().map_err(|_| Problem::in_field(Code::InvalidParameter, "id", "must be a UUID, the id of a saga"))
}

/// A status as a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusParam(pub Status);

impl FromStr for StatusParam {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Status::ALL.into_iter().find(|status| status.as_str() == text);
        let names = || Status::ALL.map(Status::as_str).join(", ");
        found.map(Self).ok_or_else(|| format!("must be one or several of {}", names()))
    }
}

/// A mode as a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeParam(pub Mode);

impl FromStr for ModeParam {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "orchestrated" => Ok(Self(Mode::Orchestrated)),
            "choreographed" => Ok(Self(Mode::Choreographed)),
            _ => Err("must be orchestrated or choreographed"),
        }
    }
}

/// A point in time as a parameter: RFC 3339, with any offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeParam(pub Timestamp);

impl TryFrom<String> for TimeParam {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for TimeParam {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A plus that was not escaped arrives as a blank.
        let text = text.replacen(' ', "+", 1);
        let time = chrono::DateTime::parse_from_rfc3339(&text)
            .map_err(|_| "must be an RFC 3339 time such as 2026-05-01T12:00:00Z")?;
        Ok(Self(Timestamp::from_micros(time.timestamp_micros())))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn of(query: &str) -> Params {
        Params::of(&TestRequest::with_uri(&format!("/x?{query}")).to_http_request())
    }

    fn places(params: Params) -> String {
        params.finish().unwrap_err().detail().to_owned()
    }

    #[test]
    fn a_parameter_is_taken_once_and_the_rest_is_refused_by_name() {
        let mut params = of("limit=7&status=running,parked&mode=orchestrated");
        assert_eq!(params.limit(), 7);
        let statuses: Vec<StatusParam> = params.take_list("status");
        assert_eq!(statuses, [StatusParam(Status::Running), StatusParam(Status::Parked)]);
        assert_eq!(params.take::<ModeParam>("mode"), Some(ModeParam(Mode::Orchestrated)));
        params.finish().unwrap();
        assert!(places(of("limt=7")).contains("limt: is not a parameter"));
    }

    #[test]
    fn bad_values_are_refused_by_the_name_of_their_parameter() {
        for query in ["limit=0", "limit=251", "limit=-1", "limit=abc", "limit=", "limit=1&limit=2", "limit=1%00"] {
            let mut params = of(query);
            params.limit();
            assert!(places(params).starts_with("limit: "), "{query}");
        }
        let mut params = of("status=running,nope&mode=both&created_after=yesterday&state=%FF&definition=a%0Ab");
        params.take_list::<StatusParam>("status");
        params.take::<ModeParam>("mode");
        params.take::<TimeParam>("created_after");
        params.take::<String>("state");
        params.take::<String>("definition");
        let problem = params.finish().unwrap_err();
        let body = format!("{problem:?}");
        for place in ["status", "mode", "created_after", "state", "definition"] {
            assert!(body.contains(&format!("place: \"{place}\"")), "{place}: {body}");
        }
    }

    #[test]
    fn a_time_with_an_unescaped_plus_is_understood() {
        let expected: TimeParam = "2026-05-01T10:00:00Z".parse().unwrap();
        assert_eq!("2026-05-01T12:00:00 02:00".parse(), Ok(expected));
        assert_eq!("2026-05-01T12:00:00+02:00".parse(), Ok(expected));
    }
}
