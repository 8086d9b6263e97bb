//! What the event store shows of the log beyond sagas: names of streams, places in the log, states by replay.

pub mod position;
pub mod reduce;
pub mod stream_name;
