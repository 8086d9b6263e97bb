//! What rules, alerts and dashboards ask Prometheus for.

use std::{fmt, fs, path::Path};

use serde_json::Value;

use crate::harness::workspace;

const RULES: [&str; 2] = ["monitoring/prometheus/rules/recording.yml", "monitoring/prometheus/rules/alerts.yml"];
const DASHBOARDS: &str = "monitoring/grafana/dashboards";

/// What Grafana puts in place of its variables, more or less: the run is short.
const VARIABLES: [(&str, &str); 4] =
    [("$__rate_interval", "1m"), ("$__range", "1h"), ("$definition", "checkout"), ("$service", ".*")];

/// One query, and who makes it.
#[derive(Clone, Debug)]
pub struct Expression {
    place: String,
    pub text: String,
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// A file of the workspace.
pub fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(&workspace().join(path))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every alert, as its file has it.
pub fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

pub fn all() -> Vec<Expression> {
    let mut all: Vec<Expression> = rules().iter().map(of_rule).collect();
    let mut dashboards: Vec<_> = fs::read_dir(workspace().join(DASHBOARDS))
        .expect("there are dashboards")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    dashboards.sort();
    assert_eq!(dashboards.len(), 7);
    for path in dashboards {
        let dashboard: Value = serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        all.extend(of_dashboard(&dashboard));
    }
    all
}

fn rules() -> Vec<Value> {
    let groups = RULES.map(|path| yaml(path)["groups"].as_array().expect("a file of rules has groups").clone());
    let groups = groups.into_iter().flatten();
    groups.flat_map(|group| group["rules"].as_array().expect("a group has rules").clone()).collect()
}

/// An alert compares, and what does not alert has no data: asked for as a truth value, all that is compared has.
fn of_rule(rule: &Value) -> Expression {
    let text = rule["expr"].as_str().expect("a rule has an expression");
    match rule["alert"].as_str() {
        Some(alert) => {
            let text = [" > ", " == "]
                .iter()
                .fold(text.to_owned(), |text, compares| text.replace(compares, &format!("{compares}bool ")));
            Expression { place: alert.to_owned(), text }
        }
        None => Expression { place: rule["record"].to_string(), text: text.to_owned() },
    }
}

fn of_dashboard(dashboard: &Value) -> Vec<Expression> {
    let title = dashboard["title"].as_str().expect("a dashboard has a title");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let variables = list(&dashboard["templating"]["list"]).into_iter().map(|variable| {
        let query = variable["query"]["query"].as_str().expect("a variable has a query");
        let arguments = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = arguments.and_then(|both| both.split_once(", ")).expect("it lists a label's values");
        Expression { place: format!("{title}: {}", variable["name"]), text: format!("count by ({label}) ({metric})") }
    });
    let mut expressions: Vec<Expression> = variables.collect();
    for panel in list(&dashboard["panels"]) {
        let targets = list(&panel["targets"]);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{title}: {} asks for nothing", panel["title"]);
        for target in targets {
            let mut text = target["expr"].as_str().expect("a target has an expression").to_owned();
            for (variable, value) in VARIABLES {
                text = text.replace(variable, value);
            }
            assert!(!text.contains('$'), "{title}: {text} has a variable that this test does not know");
            expressions.push(Expression { place: format!("{title}: {}", panel["title"]), text });
        }
    }
    expressions
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
