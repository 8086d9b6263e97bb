//! Where a call goes: a base URL and a path on it, and back from a `Location` to such a path.
//!
//! A call's path is always relative to the base URL: with the base `http://catalog/v1`, the path `/stock` is
//! `http://catalog/v1/stock`. So is the path that [`Base::location`] makes, so a poll is built like any other call, and
//! may go to another of the participant's base URLs. A `Location` outside the base's path prefix leads up with `..`.

use http::{
    HeaderValue, Uri,
    uri::{Authority, Scheme},
};
use reqwest::Url;
use skald_core::decide::Purpose;

/// One base URL, taken apart once.
#[derive(Debug)]
pub struct Base {
    url: Url,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// The path prefix; empty or with a slash in front and none at the end.
    prefix: String,
}

impl Base {
    /// # Errors
    ///
    /// When it cannot be put into a request.
    pub fn new(url: Url) -> Result<Self, http::Error> {
        let (scheme, authority) = (url.scheme().parse()?, url.authority().parse()?);
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let host = [url.host_str().unwrap_or_default(), &port].concat().try_into()?;
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self { url, scheme, authority, host, prefix })
    }

    /// What a request says in `Host`.
    #[must_use]
    pub const fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The URL of `path` on this base.
    ///
    /// # Errors
    ///
    /// Why the path cannot be called: it makes no URL, or it has a `.` or `..` segment that a saga's data may have put
    /// there (only a poll's path, which a participant chose, may).
    pub fn uri(&self, path: &str, purpose: Purpose) -> Result<Uri, String> {
        let has_dots = has_dot_segment(path);
        if has_dots && purpose != Purpose::Poll {
            return Err("the path has a `.` or `..` segment".to_owned());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        let whole = [&self.prefix, slash, path].concat();
        let whole = if has_dots || !is_plain(path) { self.normalized(&whole)? } else { whole };
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(whole);
        uri.build().map_err(|error| format!("the path makes no URL: {error}"))
    }

    /// As a URL parser reads a path: without dot segments and fragment, and with what no URL may hold as `%` and digits.
    fn normalized(&self, path: &str) -> Result<String, String> {
        let text = format!("{}://{}{path}", self.scheme, self.authority);
        let url = Url::parse(&text).map_err(|error| format!("the path makes no URL: {error}"))?;
        Ok(url.query().map_or_else(|| url.path().to_owned(), |query| [url.path(), "?", query].concat()))
    }

    /// Reads a `Location`, which is relative to `requested`, as a path on this base. None if it leads to another origin.
    #[must_use]
    pub fn location(&self, requested: &Uri, location: &str) -> Option<String> {
        let url = Url::parse(&requested.to_string()).ok()?.join(location).ok()?;
        if url.origin() != self.url.origin() {
            return None;
        }
        let mut path = match url.path().strip_prefix(&self.prefix) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.to_owned(),
            _ => "/..".repeat(self.prefix.matches('/').count()) + url.path(),
        };
        if path.is_empty() {
            path.push('/');
        }
        if let Some(query) = url.query() {
            path.push('?');
            path.push_str(query);
        }
        Some(path)
    }
}

/// The characters that a URL parser leaves in a path as they are, but for dot segments.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut rest: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&()*+,;=:@/?%";
    while let [byte, behind @ ..] = rest {
        plain[*byte as usize] = true;
        rest = behind;
    }
    plain
};

fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| PLAIN[usize::from(byte)])
}

/// Would a URL parser remove a segment of this path?
fn has_dot_segment(path: &str) -> bool {
    let suspect = path.bytes().any(|byte| matches!(byte, b'.' | b'%' | b'\\'));
    // Parsers read a backslash as a slash, and drop tabs and line ends.
    let path = path.split(['?', '#']).next().unwrap_or(path);
    suspect
        && path.split(['/', '\\']).any(|segment| {
            let plain = segment.replace("%2e", ".").replace("%2E", ".").replace(['\t', '\r', '\n'], "");
            plain == "." || plain == ".."
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(url: &str) -> Base {
        Base::new(Url::parse(url).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn a_path_is_what_a_url_parser_makes_of_it(path in "[a-z./?%#&='\"<>{}|\\\\^~ \t\u{e9}-]{0,12}") {
            for base_url in ["http://catalog:8081", "https://shop.test/catalog/v1/"] {
                let uri = base(base_url).uri(&path, Purpose::Poll).unwrap();
                let slash = if path.starts_with('/') { "" } else { "/" };
                let mut url = Url::parse(&format!("{}{slash}{path}", base_url.trim_end_matches('/'))).unwrap();
                url.set_fragment(None);
                prop_assert_eq!(uri.to_string(), url.as_str());
            }
        }
    }

    #[test]
    fn a_path_is_put_behind_the_base_url() {
        for (base_url, path, url) in [
            ("http://catalog:8081", "/stock/reserve", "http://catalog:8081/stock/reserve"),
            ("http://catalog:8081/", "stock?a=1&b=%20", "http://catalog:8081/stock?a=1&b=%20"),
            ("https://shop.test/catalog/v1/", "/stock", "https://shop.test/catalog/v1/stock"),
            ("http://catalog", "@evil.test/", "http://catalog/@evil.test/"),
            ("http://catalog", "//evil.test/", "http://catalog//evil.test/"),
            ("http://catalog", "/orders/a..b/.c/..d", "http://catalog/orders/a..b/.c/..d"),
            ("http://catalog", "/x?y=/../z", "http://catalog/x?y=/../z"),
        ] {
            assert_eq!(base(base_url).uri(path, Purpose::Attempt).unwrap(), url);
        }
    }

    #[test]
    fn a_path_that_leads_up_is_refused_unless_the_participant_chose_it() {
        for path in [
            "/../x",
            "/a/..",
            "/a/./b",
            "..",
            "/%2e%2E/x",
            "/a/.%2e",
            "/a\\..\\b",
            "/.\t./x",
            "/\t./x",
            "/a/\n../b",
            "/a/%2e",
        ] {
            assert!(base("http://catalog/v1").uri(path, Purpose::Attempt).is_err(), "{path}");
            assert!(base("http://catalog/v1").uri(path, Purpose::Poll).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_location_on_the_same_origin_leads_back_to_itself() {
        for (base_url, location, path) in [
            ("http://catalog:8081", "/jobs/7?wait=1", "/jobs/7?wait=1"),
            ("http://catalog:8081", "http://catalog:8081/jobs/7", "/jobs/7"),
            ("http://catalog:8081", "jobs/7", "/stock/jobs/7"),
            ("http://catalog:8081", "../jobs/7#part", "/jobs/7"),
            ("http://catalog:8081", "?again", "/stock/reserve?again"),
            ("http://catalog:8081", "", "/stock/reserve"),
            ("http://catalog:8081", "//catalog:8081/jobs", "/jobs"),
            ("http://catalog:80", "http://CATALOG/jobs", "/jobs"),
            ("http://shop.test/catalog/v1/", "/catalog/v1/jobs/7", "/jobs/7"),
            ("http://shop.test/catalog/v1/", "/catalog/v1", "/"),
            ("http://shop.test/catalog/v1/", "/catalog/v10/jobs", "/../../catalog/v10/jobs"),
            ("http://shop.test/catalog/v1/", "/jobs/7?a", "/../../jobs/7?a"),
        ] {
            let base = base(base_url);
            let requested = base.uri("/stock/reserve", Purpose::Attempt).unwrap();
            let read = base.location(&requested, location);
            assert_eq!(read.as_deref(), Some(path), "{base_url} {location}");
            let again = base.uri(path, Purpose::Poll).unwrap();
            let meant = Url::parse(&requested.to_string()).unwrap().join(location).unwrap();
            assert_eq!(
                (again.path().trim_end_matches('/'), again.query()),
                (meant.path().trim_end_matches('/'), meant.query())
            );
        }
    }

    #[test]
    fn a_location_on_another_origin_is_dropped() {
        for location in [
            "http://evil.test/jobs",
            "https://catalog:8081/jobs",
            "http://catalog:8082/jobs",
            "http://catalog/jobs",
            "//evil.test/jobs",
            "file:///etc/passwd",
            "http://[",
            "data:text/plain,x",
        ] {
            let base = base("http://catalog:8081");
            let requested = base.uri("/stock", Purpose::Attempt).unwrap();
            assert_eq!(base.location(&requested, location), None, "{location}");
        }
    }

    #[test]
    fn the_host_is_said_as_a_url_parser_reads_it() {
        for (url, host) in [
            ("http://catalog", "catalog"),
            ("http://catalog:80/v1", "catalog"),
            ("https://catalog:443", "catalog"),
            ("https://Catalog:80", "catalog:80"),
            ("http://user:secret@catalog:8081", "catalog:8081"),
            ("http://[::1]:8081", "[::1]:8081"),
        ] {
            assert_eq!(base(url).host(), host, "{url}");
        }
    }
}
