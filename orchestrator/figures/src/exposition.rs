//! Reading counters from Prometheus' text format.

/// The sum of a metric's values over the sets of labels that are wanted; 0 when there is none.
pub fn sum(text: &str, metric: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        // Labels may hold blanks and braces in quotes, but the value comes last.
        let (labels, value) = rest.rsplit_once(' ')?;
        let own = labels.is_empty() || labels.starts_with('{');
        (own && wanted(labels)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

/// The value of a label, if it is there. Values with quotes in them do not occur in what is asked for.
pub fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let after = labels.split_once(&format!("{name}=\""))?.1;
    after.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP calls_total Calls
# TYPE calls_total counter
calls_total{operation="pay",route="/a/{id}"} 3
calls_total{operation="refund",route="/b"} 4
calls_total_of_others{operation="pay"} 100
plain 7
"#;

    #[test]
    fn only_the_metric_itself_and_the_wanted_labels_are_added_up() {
        assert_eq!(sum(TEXT, "calls_total", |_| true), 7.0);
        assert_eq!(sum(TEXT, "calls_total", |labels| label(labels, "route") == Some("/a/{id}")), 3.0);
        assert_eq!(sum(TEXT, "plain", |_| true), 7.0);
        assert_eq!(sum(TEXT, "missing", |_| true), 0.0);
        assert_eq!(label(r#"{a="1",b="2"}"#, "b"), Some("2"));
        assert_eq!(label(r#"{a="1"}"#, "b"), None);
    }
}
