//! What participants derive, as tables; and as a property that honest participants, whatever they learn late or twice,
//! bring every saga to the end that an orchestrator would have brought it to.

mod duties;
mod play;
mod property;
