//! The servers beside Skald, each as a process of its own on a free port.

use actix_web::{
    App, HttpServer,
    web::{self, Data},
};
use anyhow::Result;

use crate::{
    front,
    participants::{self, Answers, Dependency},
    services::Services,
};

const ANY_PORT: &str = "127.0.0.1:0";

pub async fn participants() -> Result<()> {
    let answers = Data::new(Answers::new());
    let dependency = Data::new(Dependency::default());
    let server = HttpServer::new(move || {
        App::new().app_data(answers.clone()).app_data(dependency.clone()).configure(participants::routes)
    });
    let server = server.bind(ANY_PORT)?;
    announce("participants", &server.addrs());
    Ok(server.run().await?)
}

pub async fn front(participants: &str) -> Result<()> {
    let services = Data::new(Services::at(participants)?);
    let server = HttpServer::new(move || {
        App::new().app_data(services.clone()).route(front::PATH, web::post().to(front::checkout))
    });
    let server = server.bind(ANY_PORT)?;
    announce("front", &server.addrs());
    Ok(server.run().await?)
}

/// The connections that come before the server runs wait for it.
fn announce(name: &str, addresses: &[std::net::SocketAddr]) {
    for address in addresses {
        println!("{name} listening on http://{address}");
    }
}
