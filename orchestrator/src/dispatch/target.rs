//! Where a call goes: a base URL and a path on it, and back from a `Location` to such a path.
//!
//! A call's path is always relative to the base URL: with the base `http://catalog/v1`, the path `/stock` is
//! `http://catalog/v1/stock`. So is the path that [`Base::location`] makes, so a poll is built like any other call, and
//! may go to another of the participant's base URLs. A `Location` outside the base's path prefix leads up with `..`.

use reqwest::Url;
use skald_core::decide::Purpose;

/// One base URL, taken apart once.
#[derive(Debug)]
pub struct Base {
    url: Url,
    /// Without a slash at the end: paths begin with one.
    text: String,
    /// The path prefix; empty or with a slash in front and none at the end.
    prefix: String,
}

impl Base {
    #[must_use]
    pub fn new(url: Url) -> Self {
        let text = url.as_str().trim_end_matches('/').to_owned();
        let prefix = url.path().trim_end_matches('/').to_owned();
        Self { url, text, prefix }
    }

    /// The URL of `path` on this base.
    ///
    /// # Errors
    ///
    /// Why the path cannot be called: it is no URL, or it has a `.` or `..` segment that a saga's data may have put
    /// there (only a poll's path, which a participant chose, may).
    pub fn url(&self, path: &str, purpose: Purpose) -> Result<Url, String> {
        if purpose != Purpose::Poll && has_dot_segment(path) {
            return Err("the path has a `.` or `..` segment".to_owned());
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut text = String::with_capacity(self.text.len() + slash.len() + path.len());
        text.push_str(&self.text);
        text.push_str(slash);
        text.push_str(path);
        Url::parse(&text).map_err(|error| format!("the path makes no URL: {error}"))
    }

    /// Reads a `Location`, which is relative to `requested`, as a path on this base. None if it leads to another origin.
    #[must_use]
    pub fn location(&self, requested: &Url, location: &str) -> Option<String> {
        let url = requested.join(location).ok()?;
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

/// Would a URL parser remove a segment of this path?
fn has_dot_segment(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let suspect = path.starts_with(['.', '%']) || path.contains("/.") || path.contains("/%") || path.contains('\\');
    // Parsers read a backslash as a slash, and drop tabs and line ends.
    suspect
        && path.split(['/', '\\']).any(|segment| {
            let plain = segment.replace("%2e", ".").replace("%2E", ".").replace(['\t', '\r', '\n'], "");
            plain == "." || plain == ".."
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> Base {
        Base::new(Url::parse(url).unwrap())
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
            assert_eq!(base(base_url).url(path, Purpose::Attempt).unwrap().as_str(), url);
        }
    }

    #[test]
    fn a_path_that_leads_up_is_refused_unless_the_participant_chose_it() {
        for path in ["/../x", "/a/..", "/a/./b", "..", "/%2e%2E/x", "/a/.%2e", "/a\\..\\b", "/.\t./x", "/a/%2e"] {
            assert!(base("http://catalog/v1").url(path, Purpose::Attempt).is_err(), "{path}");
            assert!(base("http://catalog/v1").url(path, Purpose::Poll).is_ok(), "{path}");
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
            let requested = base.url("/stock/reserve", Purpose::Attempt).unwrap();
            let read = base.location(&requested, location);
            assert_eq!(read.as_deref(), Some(path), "{base_url} {location}");
            let again = base.url(path, Purpose::Poll).unwrap();
            let meant = requested.join(location).unwrap();
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
            let requested = base.url("/stock", Purpose::Attempt).unwrap();
            assert_eq!(base.location(&requested, location), None, "{location}");
        }
    }
}
