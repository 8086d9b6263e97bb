//! `POST /internal/sagas/{id}/inputs`: an operator's command, a callback or participants' reports that another replica received.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{
        params::{Params, saga_id},
        problem::Problem,
    },
    FromReplica, answered,
};
use crate::{app::App, forward::message::InputMessage};

pub async fn handle(
    app: web::Data<App>,
    req: HttpRequest,
    id: web::Path<String>,
    FromReplica(message): FromReplica<InputMessage>,
) -> Result<HttpResponse, Problem> {
    Params::of(&req).finish()?;
    let saga = saga_id(&id)?;
    let answer = match message {
        InputMessage::Operator(command) => app.engine().operate(saga, command).await,
        InputMessage::Callback(callback) => app.engine().callback(saga, callback).await,
        InputMessage::Reported(reported) => app.engine().report(saga, reported).await,
    };
    Ok(answered(&answer))
}
