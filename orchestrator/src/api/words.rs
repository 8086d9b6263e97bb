//! The API's words for states and times. They are the core's, written so that a client's generator makes one type of
//! each; the matches are exhaustive, so a new word of the core is a decision here.

use serde::{Deserialize, Serialize, Serializer};
use skald_core::{event, ids, state, time::Timestamp};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

use crate::rfc3339;

/// Declares an enum of the API that mirrors one of the core.
macro_rules! mirrored {
    ($(#[$doc:meta])* $name:ident of $core:ty { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl From<$core> for $name {
            fn from(word: $core) -> Self {
                match word { $(<$core>::$variant => Self::$variant),+ }
            }
        }

        impl From<$name> for $core {
            fn from(word: $name) -> Self {
                match word { $($name::$variant => Self::$variant),+ }
            }
        }
    };
}

mirrored! {
    /// Where a saga stands. `completed`, `compensated` and `abandoned` are final.
    SagaStatus of state::Status {
        Running,
        Compensating,
        /// Needs an operator.
        Parked,
        Completed,
        /// Every effect is undone; possibly none existed.
        Compensated,
        /// Closed by an operator, or with a compensation skipped by one.
        Abandoned,
    }
}

mirrored! {
    /// How a saga is driven.
    SagaMode of event::Mode { Orchestrated, Choreographed }
}

mirrored! {
    /// Where a step stands.
    StepStatus of state::StepStatus {
        Pending,
        Running,
        /// The action's outcome is in doubt; its status call is being asked.
        Checking,
        Succeeded,
        Rejected,
        Unknown,
        Skipped,
        Compensating,
        Compensated,
        CompensationSkipped,
    }
}

mirrored! {
    /// How an action ended: `rejected` had no effect, `unknown` may have had it.
    StepOutcome of state::Outcome { Succeeded, Rejected, Unknown }
}

mirrored! {
    /// The forward call of a step, or the one that undoes it.
    StepOperation of ids::Operation { Action, Compensation }
}

/// A point in time, in microseconds: RFC 3339, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub Timestamp);

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl Moment {
    fn text(self) -> rfc3339::Text {
        // Engine time is far from where the calendar ends; past it, the epoch.
        rfc3339::micros(self.0).or_else(|| rfc3339::micros(Timestamp::default())).expect("the epoch has a text")
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

// By hand, so that it is an inline string and no named type in generated clients.
impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2026-05-01T12:00:00.123456Z"])
            .into()
    }
}

impl ToSchema for Moment {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_api_are_those_of_the_core() {
        for status in state::Status::ALL {
            assert_eq!(serde_json::to_value(SagaStatus::from(status)).unwrap(), status.as_str());
        }
        for status in [state::StepStatus::CompensationSkipped, state::StepStatus::Checking] {
            assert_eq!(serde_json::to_value(StepStatus::from(status)).unwrap(), status.as_str());
        }
    }

    #[test]
    fn a_moment_is_written_in_utc_with_microseconds() {
        let moment = |micros| Moment(Timestamp::from_micros(micros)).to_string();
        assert_eq!(moment(1_777_636_800_000_001), "2026-05-01T12:00:00.000001Z");
        assert_eq!(moment(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(moment(i64::MAX), moment(0));
    }
}
