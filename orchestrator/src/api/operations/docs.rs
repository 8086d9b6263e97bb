//! `GET /docs/`: the specification to read and to try. Everything it needs is in this program.

use std::sync::{Arc, LazyLock};

use actix_web::{HttpResponse, http::header, web};
use utoipa_swagger_ui::Config;

use super::super::problem::{Code, Problem};

/// Nothing is loaded from elsewhere, and browsers are told so. Styles and small images are part of the page itself.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'";

/// "none": there is no validator to send the specification to.
static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json").validator_url("none").deep_linking(true)));

/// Relative links need the slash at the end.
pub async fn redirect() -> HttpResponse {
    HttpResponse::Found().insert_header(("Location", "/docs/")).finish()
}

pub async fn handle(file: web::Path<String>) -> Result<HttpResponse, Problem> {
    let found = utoipa_swagger_ui::serve(&file, Arc::clone(&CONFIG)).map_err(Problem::internal)?;
    let file = found.ok_or_else(|| Problem::new(Code::NotFound, "There is no such file."))?;
    let mut response = HttpResponse::Ok();
    response.content_type(file.content_type).insert_header((header::CONTENT_SECURITY_POLICY, POLICY));
    Ok(response.body(file.bytes.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::TestServer;

    #[actix_web::test]
    async fn the_pages_need_nothing_from_elsewhere() {
        let server = TestServer::start().await;
        assert_eq!(server.get("/").await.header("location"), "/docs/");
        assert_eq!(server.get("/docs").await.header("location"), "/docs/");
        let page = server.get("/docs/").await;
        assert!(page.header("content-type").starts_with("text/html"), "{}", page.text);
        assert!(page.header("content-security-policy").contains("default-src 'self'"));
        assert!(!page.text.contains("://"), "{}", page.text);
        let files: Vec<&str> =
            page.text.split('"').filter(|part| part.ends_with(".js") || part.ends_with(".css")).collect();
        assert!(files.len() >= 3, "{files:?}");
        for file in files {
            assert_eq!(server.get(&format!("/docs/{}", file.trim_start_matches("./"))).await.status, 200, "{file}");
        }
        let start = server.get("/docs/swagger-initializer.js").await;
        assert!(start.text.contains("/openapi.json") && !start.text.contains("://"), "{}", start.text);
        server.get("/docs/../secret").await.problem(404, "not_found");
        server.get("/docs/none.js").await.problem(404, "not_found");
    }
}
