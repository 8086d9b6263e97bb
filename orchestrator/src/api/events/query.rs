//! What events are asked for: the filter that all calls share, and where to begin.

use std::{str::FromStr, sync::Arc, time::Duration};

use skald_core::{ids::SagaId, time::Millis};

use super::super::{
    params::{ModeParam, Params, TimeParam},
    problem::{Code, Problem},
};
use crate::{
    app::App,
    events::{position::Place, stream_name::StreamName},
    storage::log::LogFilter,
};

/// Nobody is kept waiting longer.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    Place(Place),
    /// Only what comes from now on.
    End,
}

impl FromStr for After {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "end" => Ok(Self::End),
            place => place.parse().map(Self::Place),
        }
    }
}

/// What a query says of the events to show.
#[derive(Debug)]
pub struct Wanted {
    filter: LogFilter,
    stream: Option<StreamName>,
}

/// `type, kind, definition, category, mode, stream, correlation_id, actor, since, until`.
pub fn wanted(params: &mut Params) -> Wanted {
    let stream = params.take::<StreamName>("stream");
    let filter = LogFilter {
        types: words(params, "type"),
        kinds: words(params, "kind"),
        definitions: words(params, "definition"),
        categories: words(params, "category"),
        mode: params.take::<ModeParam>("mode").map(|mode| mode.0),
        stream: None,
        correlation_id: params.take("correlation_id"),
        actor: params.take("actor"),
        since: params.take::<TimeParam>("since").map(|time| time.0),
        until: params.take::<TimeParam>("until").map(|time| time.0),
    };
    Wanted { filter, stream }
}

impl Wanted {
    /// The filter, with the stream as the log knows it.
    ///
    /// # Errors
    ///
    /// When there is no such stream, or the database does not answer.
    pub async fn resolve(self, app: &App) -> Result<LogFilter, Problem> {
        let mut filter = self.filter;
        if let Some(stream) = &self.stream {
            filter.stream = Some(id_of(app, stream).await?.ok_or_else(|| no_such_stream(stream))?);
        }
        Ok(filter)
    }
}

/// A stream's id in the log; None when there is no stream of that name. A saga's is its own, whether or not it exists.
///
/// # Errors
///
/// When the database does not answer.
pub async fn id_of(app: &App, stream: &StreamName) -> Result<Option<SagaId>, Problem> {
    match stream {
        StreamName::Saga(saga) => Ok(Some(*saga)),
        StreamName::Other(name) => {
            let name = Arc::clone(name);
            let head = app.read_log(move |log| async move { log.stream_head(&name).await }).await?;
            Ok(head.map(|head| head.id))
        }
    }
}

#[must_use]
pub fn no_such_stream(stream: &StreamName) -> Problem {
    Problem::new(Code::StreamNotFound, format!("There is no stream {stream}."))
}

fn words(params: &mut Params, name: &str) -> Vec<String> {
    params.take_list(name)
}

/// `wait`: how long to wait at the end of the log, such as `10s`; not at all if left out.
pub fn wait(params: &mut Params) -> Duration {
    let wait = params.take::<Millis>("wait").map_or(Duration::ZERO, |wait| Duration::from_millis(wait.0));
    wait.min(WAIT_MAX)
}

/// The stream of a path.
///
/// # Errors
///
/// When it is no name of a stream.
pub fn stream(text: &str) -> Result<StreamName, Problem> {
    text.parse().map_err(|reason: &str| Problem::in_field(Code::InvalidParameter, "id", reason))
}

/// A text that is shared.
#[must_use]
pub fn shared(text: Option<String>) -> Option<Arc<str>> {
    text.map(Arc::from)
}
