//! What is to go wrong at the demo services, as `--faults` says it and as their `PUT /faults` takes it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::{Map, Value, json};
use skald_core::time::Millis;

/// Faults by name, each with its rate and, for some, a time. They hit every call of every service alike.
///
/// A refusal on purpose is not among them: it would change how an order is to end, and by chance not in both modes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultMix(BTreeMap<&'static str, Fault>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Fault {
    percent: f64,
    time: Option<Millis>,
}

/// Whether a fault has a time: how long a delay is, when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Needed,
    Allowed,
    None,
}

const FAULTS: [(&str, Time); 6] = [
    ("delay", Time::Needed),
    ("duplicate", Time::None),
    ("error_500", Time::None),
    ("hang", Time::None),
    ("lose_reply", Time::None),
    ("unavailable", Time::Allowed),
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFaults {
    #[error("`{0}` is not a fault: there are delay, duplicate, error_500, hang, lose_reply and unavailable")]
    Unknown(String),
    #[error("a refusal on purpose would change how orders are to end; --declined says how many are refused")]
    Refusal,
    #[error("{0}: write FAULT=RATE, the rate in per cent as in 5% or 0.5%")]
    Rate(String),
    #[error("{0}: {1}")]
    Time(&'static str, &'static str),
}

impl FaultMix {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The body of `PUT /faults`.
    pub fn settings(&self) -> Value {
        if self.is_empty() {
            return json!({});
        }
        let mut rates = Map::new();
        for (name, fault) in &self.0 {
            let rate = fault.percent / 100.0;
            let setting = match (*name, fault.time) {
                ("delay", time) => json!({"rate": rate, "ms": time.map_or(0, |time| time.0)}),
                ("unavailable", Some(time)) => json!({"rate": rate, "retry_after_s": time.0.div_ceil(1000)}),
                ("unavailable", None) => json!({"rate": rate}),
                _ => json!(rate),
            };
            rates.insert((*name).to_owned(), setting);
        }
        json!({"*": rates})
    }
}

impl FromStr for FaultMix {
    type Err = BadFaults;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut faults = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (word, rest) = part.split_once('=').unwrap_or((part, ""));
            if word == "refuse" {
                return Err(BadFaults::Refusal);
            }
            let known = FAULTS.into_iter().find(|(name, _)| *name == word);
            let (name, takes) = known.ok_or_else(|| BadFaults::Unknown(word.to_owned()))?;
            let (rate, time) = rest.split_once(':').map_or((rest, None), |(rate, time)| (rate, Some(time)));
            let percent = rate.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
            let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
            let percent = percent.ok_or_else(|| BadFaults::Rate(part.to_owned()))?;
            let time = match (takes, time) {
                (Time::None, Some(_)) => return Err(BadFaults::Time(name, "it has no time")),
                (Time::Needed, None) => return Err(BadFaults::Time(name, "how long? as in delay=20%:50ms")),
                (_, None) => None,
                (_, Some(time)) => {
                    let bad = |_| BadFaults::Time(name, "its time is not a duration, such as 50ms or 2s");
                    Some(time.parse::<Millis>().map_err(bad)?)
                }
            };
            faults.insert(name, Fault { percent, time });
        }
        Ok(Self(faults))
    }
}

impl fmt::Display for FaultMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, fault)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{name}={}%", fault.percent)?;
            if let Some(time) = fault.time {
                write!(f, ":{time}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_written_and_become_settings() {
        let text = "delay=20%:50ms,lose_reply=0.5%,unavailable=1%:2s";
        let faults: FaultMix = text.parse().unwrap();
        assert_eq!(faults.to_string(), text);
        let rates = json!({
            "delay": {"rate": 0.2, "ms": 50}, "lose_reply": 0.005, "unavailable": {"rate": 0.01, "retry_after_s": 2},
        });
        assert_eq!(faults.settings(), json!({"*": rates}));
        let none: FaultMix = "".parse().unwrap();
        assert!(none.is_empty());
        assert_eq!((none.to_string(), none.settings()), (String::new(), json!({})));
    }

    #[test]
    fn what_is_no_fault_is_refused_with_the_reason() {
        for (text, word) in [
            ("explode=5%", "lose_reply"),
            ("refuse=5%", "--declined"),
            ("lose_reply=5", "per cent"),
            ("lose_reply=101%", "per cent"),
            ("lose_reply", "per cent"),
            ("lose_reply=5%:2s", "no time"),
            ("delay=5%", "how long"),
            ("delay=5%:fast", "not a duration"),
        ] {
            let error = text.parse::<FaultMix>().expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
