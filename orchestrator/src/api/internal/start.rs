//! `POST /internal/sagas`: a start that another replica received and does not own the shard of.

use actix_web::{HttpRequest, HttpResponse, web};
use skald_core::{shard::writer::Refusal, state::SagaRow};

use super::{
    super::{
        params::Params,
        problem::{Code, Problem},
    },
    FromReplica, answered, wait,
};
use crate::{app::App, forward::message::StartMessage};

pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    FromReplica(message): FromReplica<StartMessage>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let definition = match app.definition(&message.definition, Some(message.version)).await {
        Ok(definition) => definition,
        // It was registered a moment ago, elsewhere. The sender tries again.
        Err(problem) if problem.code() == Code::DefinitionNotFound => {
            return Ok(answered::<SagaRow>(&Err(Refusal::NotOwner)));
        }
        Err(problem) => return Err(problem),
    };
    if definition.hash != message.hash {
        let reason = format!("definition {} version {} differs between replicas", message.definition, message.version);
        return Ok(answered::<SagaRow>(&Err(Refusal::Stuck(reason))));
    }
    let wait = wait(&app, message.wait_ms);
    Ok(answered(&app.engine().start(message.request(definition), wait).await))
}
