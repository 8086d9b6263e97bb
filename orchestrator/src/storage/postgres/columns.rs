//! A batch as the columns that the commit statement unnests: one array per column, so that a batch of any size is the
//! same statement.

use skald_core::{
    shard::batch::{Batch, NewEvent, Transition},
    time::Timestamp,
};
use sqlx::{Arguments as _, error::BoxDynError, postgres::PgArguments, types::Uuid};

use super::super::wellformed::fence_index;

/// The parameters of the commit statement, in its order.
pub fn arguments(batch: &Batch) -> Result<PgArguments, BoxDynError> {
    let mut fences = Fences::with_capacity(batch.fences.len());
    let mut sagas = Sagas::with_capacity(batch.transitions.len());
    let mut events = Events::with_capacity(batch.event_count());
    for fence in &batch.fences {
        fences.shard.push(i32::from(fence.shard.0));
        fences.epoch.push(fence.epoch.0);
        fences.events.push(0);
    }
    for transition in &batch.transitions {
        let fence = fence_index(batch, transition).ok_or("a transition without a fence")?;
        sagas.push(fence, transition)?;
        for event in &transition.events {
            fences.events[fence] += 1;
            events.push(fence, fences.events[fence], transition, event)?;
        }
    }
    let mut arguments = PgArguments::default();
    fences.add_to(&mut arguments)?;
    sagas.add_to(&mut arguments)?;
    events.add_to(&mut arguments)?;
    Ok(arguments)
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

columns!(Sagas<'a> {
    fence: i32,
    id: Uuid,
    version_before: i64,
    version: i64,
    status: &'static str,
    state: &'a str,
    updated_at_us: i64,
    ended_at_us: Option<i64>,
    deadline_at_us: Option<i64>,
    wake_at_us: Option<i64>,
    failure: Option<String>,
    definition: Option<&'a str>,
    definition_version: Option<i64>,
    mode: Option<&'static str>,
    correlation_id: Option<&'a str>,
    created_at_us: Option<i64>,
    key_definition: Option<&'a str>,
    key: Option<&'a str>,
    fingerprint: Option<&'a [u8]>,
});

impl<'a> Sagas<'a> {
    fn push(&mut self, fence: usize, transition: &'a Transition) -> Result<(), BoxDynError> {
        let row = &transition.row;
        // What never changes is sent with the transition that creates the saga, and only then.
        let created = transition.creates().then_some(row);
        let key = transition.start_key.as_ref();
        self.fence.push(i32::try_from(fence + 1)?);
        self.id.push(row.id.as_uuid());
        self.version_before.push(i64::try_from(transition.events[0].version)? - 1);
        self.version.push(i64::try_from(row.version)?);
        self.status.push(row.status.as_str());
        self.state.push(&row.state);
        self.updated_at_us.push(row.updated_at.as_micros());
        self.ended_at_us.push(row.ended_at.map(Timestamp::as_micros));
        self.deadline_at_us.push(row.deadline_at.map(Timestamp::as_micros));
        self.wake_at_us.push(row.wake_at.map(Timestamp::as_micros));
        self.failure.push(row.failure.as_ref().map(serde_json::to_string).transpose()?);
        self.definition.push(created.map(|row| &*row.definition));
        self.definition_version.push(created.map(|row| i64::from(row.definition_version)));
        self.mode.push(created.map(|row| row.mode.as_str()));
        self.correlation_id.push(created.map(|row| &*row.correlation_id));
        self.created_at_us.push(created.map(|row| row.created_at.as_micros()));
        self.key_definition.push(key.map(|key| &*key.definition));
        self.key.push(key.map(|key| key.key.as_str()));
        self.fingerprint.push(key.map(|key| key.fingerprint.as_slice()));
        Ok(())
    }
}

columns!(Events<'a> {
    fence: i32,
    nth: i64,
    stream: Uuid,
    version: i64,
    kind: &'static str,
    type_name: Option<&'a str>,
    occurred_at_us: i64,
    actor: Option<&'a str>,
    data: String,
});

impl<'a> Events<'a> {
    fn push(&mut self, fence: usize, nth: i64, of: &'a Transition, event: &'a NewEvent) -> Result<(), BoxDynError> {
        let kind = event.event.kind();
        self.fence.push(i32::try_from(fence + 1)?);
        self.nth.push(nth);
        self.stream.push(of.row.id.as_uuid());
        self.version.push(i64::try_from(event.version)?);
        self.kind.push(kind);
        self.type_name.push((*event.type_name != *kind).then_some(&*event.type_name));
        self.occurred_at_us.push(event.occurred_at.as_micros());
        self.actor.push(event.actor.as_deref());
        self.data.push(event.event.data());
        Ok(())
    }
}
