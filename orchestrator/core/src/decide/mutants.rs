//! Rules of the machine that can be turned off, to see whether anybody notices. Compiled for the simulator's mutation
//! check only.

use core::sync::atomic::{AtomicBool, Ordering};

static ANY_ORDER: AtomicBool = AtomicBool::new(false);

/// Whether compensations wait no more for those of the steps that depend on theirs.
pub fn undo_in_any_order(any: bool) {
    ANY_ORDER.store(any, Ordering::Relaxed);
}

pub(super) fn undoes_in_any_order() -> bool {
    ANY_ORDER.load(Ordering::Relaxed)
}
