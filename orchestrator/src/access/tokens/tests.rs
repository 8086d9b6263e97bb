//! Tokens signed here, by keys made here.

use actix_web::{App, HttpResponse, HttpServer, web};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;

use super::*;
use crate::{access::scope::Scope, api::testing::WallClock, clock::Clock as _};

/// An issuer with a key on each curve.
struct Issuer {
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self { p256, ed25519: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap() }
    }

    fn jwks(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let okp = BASE64.encode(self.ed25519.public_key().as_ref());
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "p256", "use": "sig", "alg": "ES256", "x": x, "y": y},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": okp},
            {"kty": "oct", "kid": "shared", "k": BASE64.encode("secret")},
        ]})
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = match header["kid"].as_str() {
            Some("ed25519") => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
            _ => self.p256.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

fn now_s() -> i64 {
    WallClock.now().as_micros() / 1_000_000
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "skald", "sub": "jane", "exp": now_s() + 600, "nbf": now_s() - 5,
        "realm": {"roles": ["on-call", "viewer", "astronaut"]},
    })
}

fn jwt() -> config::Jwt {
    config::Jwt {
        issuer: "https://issuer.example".to_owned(),
        audience: "skald".to_owned(),
        roles_claim: "realm.roles".to_owned(),
        roles: BTreeMap::from([("on-call".to_owned(), Role::Operator)]),
        ..config::Jwt::default()
    }
}

async fn tokens(file: &std::path::Path) -> Tokens {
    let jwt = config::Jwt { jwks_file: Some(file.to_owned()), ..jwt() };
    Tokens::follow(&jwt, watch::channel(false).1).await.unwrap()
}

#[tokio::test]
async fn keys_may_come_from_a_url_but_not_from_where_it_redirects_to() {
    let issuer = Issuer::new();
    let keys = issuer.jwks().to_string();
    let app = move || {
        let keys = keys.clone();
        let moved = || async { HttpResponse::Found().insert_header(("location", "/keys")).finish() };
        let serve = move || std::future::ready(HttpResponse::Ok().body(keys.clone()));
        App::new().route("/keys", web::get().to(serve)).route("/moved", web::get().to(moved))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", server.addrs()[0]);
    tokio::spawn(server.run());
    let follow = async |path: &str| {
        let jwt = config::Jwt { jwks_url: Some(format!("{origin}{path}")), ..jwt() };
        Tokens::follow(&jwt, watch::channel(false).1).await
    };
    let tokens = follow("/keys").await.unwrap();
    let token = issuer.token(&json!({"alg": "ES256", "kid": "p256"}), &claims());
    assert_eq!(tokens.caller(&token).await.unwrap().name, "jane");
    for path in ["/moved", "/nothing"] {
        let error = follow(path).await.unwrap_err();
        assert!(error.to_string().contains("the issuer's keys cannot be read"), "{error:#}");
    }
}

#[tokio::test]
async fn a_token_of_the_issuer_says_who_asks_and_what_they_may() {
    let (issuer, file) = (Issuer::new(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(file.path(), issuer.jwks().to_string()).unwrap();
    let tokens = tokens(file.path()).await;
    for header in [json!({"alg": "ES256", "kid": "p256"}), json!({"alg": "EdDSA", "kid": "ed25519"})] {
        let caller = tokens.caller(&issuer.token(&header, &claims())).await.unwrap();
        assert_eq!((caller.name.as_str(), caller.credential.as_str()), ("jane", "token"));
        assert!(caller.scopes.has(Scope::SagasOperate) && !caller.scopes.has(Scope::AuditRead));
    }
    let mut roleless = claims();
    roleless["realm"] = json!({"roles": ["astronaut"]});
    let caller = tokens.caller(&issuer.token(&json!({"alg": "ES256", "kid": "p256"}), &roleless)).await.unwrap();
    assert_eq!(caller.scopes, Scopes::default());
}

#[tokio::test]
async fn what_the_issuer_did_not_sign_for_here_and_now_is_refused() {
    let (issuer, file) = (Issuer::new(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(file.path(), issuer.jwks().to_string()).unwrap();
    let tokens = tokens(file.path()).await;
    let header = json!({"alg": "ES256", "kid": "p256"});
    for (claim, value) in [
        ("iss", json!("https://other.example")),
        ("aud", json!("others")),
        ("aud", Value::Null),
        ("exp", json!(now_s() - 60)),
        ("exp", json!("tomorrow")),
        ("exp", Value::Null),
        ("nbf", json!(now_s() + 60)),
        ("nbf", json!("yesterday")),
        ("sub", json!("")),
        ("sub", json!("two\nlines")),
        ("sub", Value::Null),
    ] {
        let mut claims = claims();
        claims[claim] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        }
        assert!(tokens.caller(&issuer.token(&header, &claims)).await.is_err(), "{claim}: {value}");
    }
    let good = issuer.token(&header, &claims());
    assert!(tokens.caller(&good).await.is_ok());
    let signed = good.rsplit_once('.').unwrap().0;
    let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims().to_string()));
    for forged in [
        Issuer::new().token(&header, &claims()),
        issuer.token(&json!({"alg": "EdDSA", "kid": "p256"}), &claims()),
        issuer.token(&json!({"alg": "RS256", "kid": "p256"}), &claims()),
        issuer.token(&json!({"alg": "HS256", "kid": "shared"}), &claims()),
        issuer.token(&json!({"alg": "ES256"}), &claims()),
        issuer.token(&json!({"alg": "ES256", "kid": "none"}), &claims()),
        format!("{signed}."),
        signed.to_owned(),
        none,
        "a.b.c".to_owned(),
        String::new(),
    ] {
        let refused = tokens.caller(&forged).await;
        assert!(refused.is_err(), "{forged}");
        assert!(!refused.unwrap_err().contains("jane"), "it says nothing of the token");
    }
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_learned_but_not_asked_for_all_the_time() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), old.jwks().to_string()).unwrap();
    let tokens = tokens(file.path()).await;
    let renamed = new.jwks().to_string().replace("\"p256\"", "\"p256-2\"");
    std::fs::write(file.path(), renamed).unwrap();
    let token = new.token(&json!({"alg": "ES256", "kid": "p256-2"}), &claims());
    assert!(tokens.caller(&token).await.is_err(), "they were read a moment ago");
    tokens.refresh(Duration::ZERO).await;
    assert_eq!(tokens.caller(&token).await.unwrap().name, "jane");
    std::fs::write(file.path(), "not JSON").unwrap();
    tokens.refresh(Duration::ZERO).await;
    assert!(tokens.caller(&token).await.is_ok(), "those known hold");
}

/// Signed once, by a key that was thrown away: this library makes no RSA keys.
#[tokio::test]
async fn rsa_is_understood() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), include_str!("rsa.jwks.json")).unwrap();
    let tokens = tokens(file.path()).await;
    for token in include_str!("rsa.tokens.txt").lines() {
        assert_eq!(tokens.caller(token).await.unwrap().name, "jane");
        let (head, last) = token.split_at(token.len() - 20);
        assert!(tokens.caller(&format!("{head}A{}", &last[1..])).await.is_err());
    }
}
