//! Rules of the engine that can be turned off, to see whether anybody notices. Compiled for the simulator's mutation check
//! only.

use core::sync::atomic::{AtomicBool, Ordering};

/// One rule's switch, for the whole process.
#[derive(Debug)]
pub struct Switch(AtomicBool);

/// Compensations wait no more for those of the steps that depend on theirs.
pub static UNDO_IN_ANY_ORDER: Switch = Switch(AtomicBool::new(false));

/// An intent of an earlier epoch counts as not called.
pub static FORGET_WHAT_THE_DEAD_CALLED: Switch = Switch(AtomicBool::new(false));

/// Steps that were announced ahead to a process that died count as not called.
pub static FORGET_WHAT_WENT_AHEAD: Switch = Switch(AtomicBool::new(false));

/// A choreographed saga goes on enabling steps after its first failure, and their owners act.
pub static ENABLE_AFTER_FAILURE: Switch = Switch(AtomicBool::new(false));

impl Switch {
    pub fn turn(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
