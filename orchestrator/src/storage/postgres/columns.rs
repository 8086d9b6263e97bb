//! A batch as the columns that the commit statement unnests: one array per column, so that a batch of any size is the
//! same statement.

use std::borrow::Cow;

use skald_core::{
    shard::batch::{APPENDED, Append, AppendedEvent, Batch, Origin, Transition},
    state::SagaRow,
    time::Timestamp,
};
use sqlx::{Arguments as _, error::BoxDynError, postgres::PgArguments, types::Uuid};

use super::{
    super::{
        log::category,
        runs::{Run, runs},
        wellformed,
    },
    commit::{COMMIT, COMMIT_WITH_ALL, Statement},
};

/// The statement that writes a batch, with its parameters in its order.
pub fn statement(batch: &Batch) -> Result<Statement, BoxDynError> {
    let mut fences = Fences::with_capacity(batch.fences.len());
    let creating = batch.transitions.iter().filter(|transition| transition.creates()).count();
    let mut created = Created::with_capacity(creating);
    let mut updated = Updated::with_capacity(batch.transitions.len() - creating);
    let mut keys = StartKeys::with_capacity(0);
    let mut events = Events::with_capacity(batch.event_count());
    let with_all = wellformed::is_from_outside(batch) || wellformed::is_sealed(batch);
    let mut outside = Outside::with_capacity(if with_all { batch.event_count() } else { 0 });
    let mut begun = Begun::with_capacity(0);
    let mut continued = Continued::with_capacity(0);
    let mut sealed = Sealed::with_capacity(0);
    for fence in &batch.fences {
        fences.shard.push(i32::from(fence.shard.0));
        fences.epoch.push(fence.epoch.0);
        fences.events.push(0);
    }
    for transition in &batch.transitions {
        let fence = wellformed::fence_index(batch, transition.shard).ok_or("a transition without a fence")?;
        if transition.creates() {
            created.push(fence, transition)?;
            keys.push(fence, transition)?;
        } else {
            updated.push(fence, transition)?;
        }
        sealed.push(transition);
        for run in runs(transition) {
            fences.events[fence] += i64::try_from(run.events.len())?;
            if with_all {
                outside.push(&run.last().origin);
            }
            events.push(fence, fences.events[fence], transition, run)?;
        }
    }
    for append in &batch.appends {
        let fence = wellformed::fence_index(batch, append.shard).ok_or("an append without a fence")?;
        if append.version_before == 0 {
            begun.push(fence, append)?;
        } else {
            continued.push(fence, append)?;
        }
        for event in &append.events {
            fences.events[fence] += 1;
            events.push_appended(fence, fences.events[fence], append, event)?;
            outside.push_appended(event)?;
        }
    }
    let mut arguments = PgArguments::default();
    fences.add_to(&mut arguments)?;
    created.add_to(&mut arguments)?;
    updated.add_to(&mut arguments)?;
    keys.add_to(&mut arguments)?;
    events.add_to(&mut arguments)?;
    if !with_all {
        return Ok(Statement { text: COMMIT, arguments });
    }
    outside.add_to(&mut arguments)?;
    begun.add_to(&mut arguments)?;
    continued.add_to(&mut arguments)?;
    sealed.add_to(&mut arguments)?;
    Ok(Statement { text: COMMIT_WITH_ALL, arguments })
}

/// Declares a struct of columns, and how they become parameters in the order of declaration.
macro_rules! columns {
    ($name:ident $(<$life:lifetime>)? { $($column:ident : $type:ty),* $(,)? }) => {
        struct $name $(<$life>)? { $($column: Vec<$type>),* }

        impl $(<$life>)? $name $(<$life>)? {
            fn with_capacity(rows: usize) -> Self {
                Self { $($column: Vec::with_capacity(rows)),* }
            }

            fn add_to(self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
                $(arguments.add(self.$column)?;)*
                Ok(())
            }
        }
    };
}

columns!(Fences { shard: i32, epoch: i64, events: i64 });

columns!(Created<'a> {
    fence: i32,
    id: Uuid,
    definition: &'a str,
    definition_version: i64,
    mode: &'static str,
    status: &'static str,
    state: &'a str,
    version: i64,
    correlation_id: &'a str,
    failure: Option<String>,
    created_at_us: i64,
    updated_at_us: i64,
    ended_at_us: Option<i64>,
    deadline_at_us: Option<i64>,
    wake_at_us: Option<i64>,
});

impl<'a> Created<'a> {
    fn push(&mut self, fence: usize, transition: &'a Transition) -> Result<(), BoxDynError> {
        let row = &transition.row;
        self.fence.push(i32::try_from(fence + 1)?);
        self.id.push(row.id.as_uuid());
        self.definition.push(&row.definition);
        self.definition_version.push(i64::from(row.definition_version));
        self.mode.push(row.mode.as_str());
        self.status.push(row.status.as_str());
        self.state.push(&row.state);
        self.version.push(i64::try_from(row.version)?);
        self.correlation_id.push(&row.correlation_id);
        self.failure.push(failure(row)?);
        self.created_at_us.push(row.created_at.as_micros());
        self.updated_at_us.push(row.updated_at.as_micros());
        self.ended_at_us.push(row.ended_at.map(Timestamp::as_micros));
        self.deadline_at_us.push(row.deadline_at.map(Timestamp::as_micros));
        self.wake_at_us.push(row.wake_at.map(Timestamp::as_micros));
        Ok(())
    }
}

// What never changes is not among them.
columns!(Updated<'a> {
    fence: i32,
    id: Uuid,
    version_before: i64,
    status: &'static str,
    state: &'a str,
    version: i64,
    failure: Option<String>,
    updated_at_us: i64,
    ended_at_us: Option<i64>,
    deadline_at_us: Option<i64>,
    wake_at_us: Option<i64>,
});

impl<'a> Updated<'a> {
    fn push(&mut self, fence: usize, transition: &'a Transition) -> Result<(), BoxDynError> {
        let row = &transition.row;
        self.fence.push(i32::try_from(fence + 1)?);
        self.id.push(row.id.as_uuid());
        self.version_before.push(i64::try_from(transition.events[0].version)? - 1);
        self.status.push(row.status.as_str());
        self.state.push(&row.state);
        self.version.push(i64::try_from(row.version)?);
        self.failure.push(failure(row)?);
        self.updated_at_us.push(row.updated_at.as_micros());
        self.ended_at_us.push(row.ended_at.map(Timestamp::as_micros));
        self.deadline_at_us.push(row.deadline_at.map(Timestamp::as_micros));
        self.wake_at_us.push(row.wake_at.map(Timestamp::as_micros));
        Ok(())
    }
}

fn failure(row: &SagaRow) -> Result<Option<String>, BoxDynError> {
    Ok(row.failure.as_ref().map(serde_json::to_string).transpose()?)
}

columns!(StartKeys<'a> { fence: i32, definition: &'a str, key: &'a str, saga: Uuid, fingerprint: &'a [u8] });

impl<'a> StartKeys<'a> {
    fn push(&mut self, fence: usize, transition: &'a Transition) -> Result<(), BoxDynError> {
        if let Some(key) = &transition.start_key {
            self.fence.push(i32::try_from(fence + 1)?);
            self.definition.push(&key.definition);
            self.key.push(key.key.as_str());
            self.saga.push(transition.row.id.as_uuid());
            self.fingerprint.push(&key.fingerprint);
        }
        Ok(())
    }
}

columns!(Events<'a> {
    fence: i32,
    nth: i64,
    stream: Uuid,
    version: i64,
    events: i16,
    kind: Cow<'a, str>,
    type_name: Option<Cow<'a, str>>,
    occurred_at_us: i64,
    actor: Option<&'a str>,
    data: Cow<'a, str>,
    schema_version: i16,
    schema_versions: Option<String>,
});

impl<'a> Events<'a> {
    fn push(&mut self, fence: usize, nth: i64, of: &'a Transition, run: Run<'a>) -> Result<(), BoxDynError> {
        let last = run.last();
        self.fence.push(i32::try_from(fence + 1)?);
        self.nth.push(nth);
        self.stream.push(of.row.id.as_uuid());
        self.version.push(i64::try_from(last.version)?);
        self.events.push(i16::try_from(run.events.len())?);
        self.kind.push(run.kind);
        self.type_name.push(run.type_name);
        self.occurred_at_us.push(last.occurred_at.as_micros());
        self.actor.push(last.actor.as_deref());
        self.data.push(run.data.into());
        self.schema_version.push(i16::try_from(run.schema_version)?);
        self.schema_versions.push(run.schema_versions);
        Ok(())
    }

    fn push_appended(
        &mut self,
        fence: usize,
        nth: i64,
        to: &'a Append,
        event: &'a AppendedEvent,
    ) -> Result<(), BoxDynError> {
        self.fence.push(i32::try_from(fence + 1)?);
        self.nth.push(nth);
        self.stream.push(to.stream.as_uuid());
        self.version.push(i64::try_from(event.version)?);
        self.events.push(1);
        self.kind.push(APPENDED.into());
        self.type_name.push(Some((&*event.type_name).into()));
        self.occurred_at_us.push(event.occurred_at.as_micros());
        self.actor.push(event.actor.as_deref());
        self.data.push(event.data.get().into());
        self.schema_version.push(i16::try_from(event.schema_version)?);
        self.schema_versions.push(None);
        Ok(())
    }
}

// What only events from outside have; of as many rows as the events.
columns!(Outside<'a> {
    event_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
    causation_id: Option<&'a str>,
});

impl<'a> Outside<'a> {
    fn push(&mut self, origin: &'a Origin) {
        self.event_id.push(origin.event_id.as_deref());
        self.correlation_id.push(None);
        self.causation_id.push(origin.causation_id.as_deref());
    }

    fn push_appended(&mut self, event: &'a AppendedEvent) -> Result<(), BoxDynError> {
        self.event_id.push(Some(&event.event_id));
        self.correlation_id.push(event.correlation_id.as_deref());
        self.causation_id.push(event.causation_id.as_deref());
        Ok(())
    }
}

columns!(Begun<'a> {
    fence: i32,
    id: Uuid,
    name: &'a str,
    category: &'a str,
    version: i64,
    updated_at_us: i64,
});

impl<'a> Begun<'a> {
    fn push(&mut self, fence: usize, append: &'a Append) -> Result<(), BoxDynError> {
        let last = last(append)?;
        self.fence.push(i32::try_from(fence + 1)?);
        self.id.push(append.stream.as_uuid());
        self.name.push(&append.name);
        self.category.push(category(&append.name));
        self.version.push(i64::try_from(last.version)?);
        self.updated_at_us.push(last.occurred_at.as_micros());
        Ok(())
    }
}

columns!(Continued<'a> {
    fence: i32,
    id: Uuid,
    name: &'a str,
    version_before: i64,
    version: i64,
    updated_at_us: i64,
});

impl<'a> Continued<'a> {
    fn push(&mut self, fence: usize, append: &'a Append) -> Result<(), BoxDynError> {
        let last = last(append)?;
        self.fence.push(i32::try_from(fence + 1)?);
        self.id.push(append.stream.as_uuid());
        self.name.push(&append.name);
        self.version_before.push(i64::try_from(append.version_before)?);
        self.version.push(i64::try_from(last.version)?);
        self.updated_at_us.push(last.occurred_at.as_micros());
        Ok(())
    }
}

fn last(append: &Append) -> Result<&AppendedEvent, BoxDynError> {
    append.events.last().ok_or_else(|| "an append without events".into())
}

columns!(Sealed<'a> { key_id: &'a str, saga: Uuid });

impl<'a> Sealed<'a> {
    fn push(&mut self, transition: &'a Transition) {
        if let Some(key) = &transition.sealed_under {
            self.key_id.push(key);
            self.saga.push(transition.row.id.as_uuid());
        }
    }
}
