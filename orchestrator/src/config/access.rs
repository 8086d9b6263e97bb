//! Who may ask, and how often.

use std::{collections::BTreeMap, path::PathBuf};

use reqwest::Url;
use serde::Deserialize;

use super::{Problem, RateLimit, Tls};
use crate::access::scope::Role;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Access {
    /// Listen where others reach it, also while no key is needed.
    pub insecure: bool,
    /// Tokens of an identity provider. None: keys only.
    pub jwt: Option<Jwt>,
    /// Requests of each key or token's subject. None: not limited.
    pub rate_limit: Option<RateLimit>,
    /// Origins whose pages may ask from a browser.
    pub cors_origins: Vec<String>,
}

/// The issuer of tokens, and what is to be read from them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Jwt {
    /// Its public keys; one of the two.
    pub jwks_url: Option<String>,
    pub jwks_file: Option<PathBuf>,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be, or hold.
    pub audience: String,
    /// The claim that holds roles, as an array or with blanks between; dots lead into objects.
    pub roles_claim: String,
    /// What the issuer calls roles, if not as they are called here.
    pub roles: BTreeMap<String, Role>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            jwks_url: None,
            jwks_file: None,
            issuer: String::new(),
            audience: String::new(),
            roles_claim: "roles".to_owned(),
            roles: BTreeMap::new(),
        }
    }
}

impl Access {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, text: &str| problems.push(Problem::new(format!("access.{key}"), text));
        if let Some(jwt) = &self.jwt {
            if jwt.jwks_url.is_some() == jwt.jwks_file.is_some() {
                wrong("jwt.jwks_url", "needs exactly one of `jwks_url` and `jwks_file`");
            }
            if jwt.jwks_url.as_deref().is_some_and(|url| !is_fetchable(url)) {
                let text = "is not an https:// URL (http:// only for a loopback address): whoever can change the keys on \
                            the way can sign tokens";
                wrong("jwt.jwks_url", text);
            }
            for (key, text) in
                [("jwt.issuer", &jwt.issuer), ("jwt.audience", &jwt.audience), ("jwt.roles_claim", &jwt.roles_claim)]
            {
                if text.is_empty() {
                    wrong(key, "is missing");
                }
            }
        }
        if self.rate_limit.is_some_and(|limit| limit.per_second == 0 || limit.burst == Some(0)) {
            wrong("rate_limit", "allows nothing: give at least one `per_second`, and of `burst` if it is given");
        }
        for origin in self.cors_origins.iter().filter(|origin| !is_origin(origin)) {
            let text = format!("names {origin:?}, which is no origin: write scheme, host and port, as browsers do");
            wrong("cors_origins", &text);
        }
    }
}

fn is_fetchable(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(|host| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }),
        _ => false,
    })
}

/// As a browser writes it: no path, no slash at the end.
fn is_origin(text: &str) -> bool {
    Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text)
}

impl Tls {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        for (key, path) in [("certificate", &self.certificate), ("key", &self.key)] {
            if path.as_os_str().is_empty() {
                problems.push(Problem::new(format!("server.tls.{key}"), "is missing: name a PEM file"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(access: &Access) -> Vec<String> {
        let mut problems = Vec::new();
        access.check(&mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    fn jwt(jwks_url: &str) -> Jwt {
        let (issuer, audience) = ("https://login.example.com".to_owned(), "skald".to_owned());
        Jwt { jwks_url: Some(jwks_url.to_owned()), issuer, audience, ..Jwt::default() }
    }

    #[test]
    fn what_would_let_the_wrong_ones_in_is_refused() {
        for (jwt, key) in [
            (Jwt { issuer: String::new(), ..jwt("https://a/b") }, "jwt.issuer"),
            (Jwt { audience: String::new(), ..jwt("https://a/b") }, "jwt.audience"),
            (Jwt { roles_claim: String::new(), ..jwt("https://a/b") }, "jwt.roles_claim"),
            (Jwt { jwks_url: None, ..jwt("") }, "jwt.jwks_url"),
            (Jwt { jwks_file: Some("f".into()), ..jwt("https://a/b") }, "jwt.jwks_url"),
            (jwt("http://login.example.com/jwks"), "jwt.jwks_url"),
            (jwt("file:///jwks"), "jwt.jwks_url"),
        ] {
            let found = problems(&Access { jwt: Some(jwt.clone()), ..Access::default() });
            assert!(found.len() == 1 && found[0].starts_with(&format!("`access.{key}`")), "{jwt:?}: {found:?}");
        }
        for origin in ["*", "null", "https://a.example/", "https://A.example", "https://a.example:443", "a.example"] {
            let found = problems(&Access { cors_origins: vec![origin.to_owned()], ..Access::default() });
            assert_eq!(found.len(), 1, "{origin}");
        }
        let rate_limit = Some(RateLimit { per_second: 0, burst: None });
        assert_eq!(problems(&Access { rate_limit, ..Access::default() }).len(), 1);
        let good = Access {
            jwt: Some(jwt("http://127.0.0.1:8080/jwks")),
            rate_limit: Some(RateLimit { per_second: 1, burst: None }),
            cors_origins: vec!["https://a.example".to_owned(), "http://localhost:3000".to_owned()],
            insecure: true,
        };
        assert_eq!(problems(&good), [] as [String; 0]);
    }
}
