//! What customers are told, and when.

use serde_json::Value;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    OrderConfirmed,
    OrderFailed,
    PaymentRefunded,
}

/// Which events are told of. In both modes they have the same names; other events say nothing to customers.
const TELLING: [(&str, Kind); 5] = [
    ("CheckoutSucceeded", Kind::OrderConfirmed),
    ("OrderFirstSucceeded", Kind::OrderConfirmed),
    ("CheckoutFailed", Kind::OrderFailed),
    ("OrderFirstFailed", Kind::OrderFailed),
    ("PaymentRefunded", Kind::PaymentRefunded),
];

impl Kind {
    pub(super) fn of_event(type_name: &str) -> Option<Self> {
        TELLING.into_iter().find(|(telling, _)| *telling == type_name).map(|(_, kind)| kind)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OrderConfirmed => "order_confirmed",
            Self::OrderFailed => "order_failed",
            Self::PaymentRefunded => "payment_refunded",
        }
    }

    /// Subject and text. `data` is the event's; `reason` why the saga failed.
    pub(super) fn text(self, saga: &str, data: &Value, reason: Option<&str>) -> (String, String) {
        match self {
            Self::OrderConfirmed => {
                let total = data["output"]["total"].as_i64().map(|total| format!(" The total is {}.", money(total)));
                let body = format!("Your order {saga} is confirmed.{}\n", total.unwrap_or_default());
                ("Your order is confirmed".to_owned(), body)
            }
            Self::OrderFailed => {
                let reason = reason.map(|reason| format!(" The reason: {reason}.")).unwrap_or_default();
                let body = format!("Your order {saga} could not be completed, and nothing is charged.{reason}\n");
                ("Your order could not be completed".to_owned(), body)
            }
            Self::PaymentRefunded => {
                let body = format!("Your payment for the order {saga} was given back.\n");
                ("Your payment was refunded".to_owned(), body)
            }
        }
    }
}

/// Minor units as people write them.
fn money(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", minor.unsigned_abs() / 100, minor.unsigned_abs() % 100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_says_what_matters_to_the_customer() {
        let text = |type_name: &str, data: Value| Kind::of_event(type_name).map(|kind| kind.text("o-1", &data, None).1);
        let confirmed = text("CheckoutSucceeded", json!({"output": {"order_id": "o-1", "total": 3905}}));
        assert_eq!(confirmed.unwrap(), "Your order o-1 is confirmed. The total is 39.05.\n");
        assert_eq!(text("OrderFirstSucceeded", json!({"output": null})).unwrap(), "Your order o-1 is confirmed.\n");
        assert_eq!(text("StockReserved", json!({})), None);
        let (_, failed) = Kind::OrderFailed.text("o-1", &Value::Null, Some("the card was declined"));
        assert!(failed.contains("nothing is charged. The reason: the card was declined."), "{failed}");
    }
}
