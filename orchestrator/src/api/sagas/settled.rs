//! Waiting for a saga: until it has ended or is parked, whoever drives it.

use std::time::Duration;

use skald_core::ids::SagaId;

use crate::{app::App, engine::is_settled};

/// How often a saga that another replica may be moving on is looked at: soon at first, as most end soon.
const LOOK_FIRST: Duration = Duration::from_millis(25);
const LOOK_LAST: Duration = Duration::from_millis(500);

/// Waits at most so long; less if the server stops, or cannot look.
pub async fn wait(app: &App, saga: SagaId, time_max: Duration) {
    // Whether it is settled or the time is over, whoever waited looks for himself.
    let _ = tokio::time::timeout(time_max, settled(app, saga)).await;
}

async fn settled(app: &App, saga: SagaId) {
    let mut progress = app.engine().watch(saga).await;
    let mut closing = app.closing();
    let mut pause = LOOK_FIRST;
    loop {
        match app.row(saga).await {
            Ok(row) if !is_settled(row.status) => {}
            Ok(_) | Err(_) => return,
        }
        tokio::select! {
            Ok(()) = progress.changed() => {}
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOK_LAST),
            _ = closing.wait_for(|closing| *closing) => return,
        }
    }
}
