//! Invariants 1, 3, 4 and 5, from the participants' ledgers: what took effect, what was undone, and whether the stock and
//! the money agree with it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, FixedOffset};
use serde_json::Value;

use super::participants::{Entry, Shop};

/// The steps of a checkout that have an effect, each needing the ones before it.
const STEPS: [&str; 4] = ["reserve_stock", "process_payment", "confirm_order", "commit_stock"];

/// What became of a saga, by its log.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    pub definition: String,
    pub status: String,
    /// Steps that an operator skipped or resolved, so that the ledgers need not agree with the log.
    pub decided_by_operator: BTreeSet<String>,
}

/// What the participants say.
#[derive(Debug, Default)]
pub struct Effects {
    /// Per service, in the order of its ledger.
    pub ledgers: Vec<Vec<Entry>>,
    /// Shelves of the catalog.
    pub stock: Vec<Value>,
    /// Payments of sales.
    pub payments: Vec<Value>,
    /// Customers who have paid.
    pub customers: Vec<Value>,
}

impl Effects {
    pub async fn read(shop: &Shop) -> Self {
        let mut ledgers = Vec::new();
        for service in shop.services() {
            ledgers.push(service.ledger().await);
        }
        let payments = shop.sales.client.all("/payments").await;
        let ids: BTreeSet<&str> = payments.iter().filter_map(|payment| payment["customer_id"].as_str()).collect();
        let mut customers = Vec::new();
        for id in ids {
            customers.push(shop.sales.client.get(&format!("/customers/{id}")).await.expect(200));
        }
        Self { ledgers, stock: shop.catalog.client.all("/stock").await, customers, payments }
    }

    pub fn violations(&self, fates: &BTreeMap<String, Fate>) -> Vec<String> {
        let mut violations = self.of_stock();
        violations.extend(self.of_money());
        let mut keys = BTreeSet::new();
        let twice = self.ledgers.iter().flatten().filter(|entry| !keys.insert((&entry.key, &entry.effect)));
        violations.extend(twice.map(|entry| format!("3: the key {} had the effect {} twice", entry.key, entry.effect)));
        let sagas = self.by_saga();
        let strangers = sagas.keys().filter(|saga| !fates.contains_key(**saga));
        violations.extend(strangers.map(|saga| format!("3: saga {saga} had effects, and the log does not know it")));
        let none = BTreeMap::new();
        for (saga, fate) in fates.iter().filter(|(_, fate)| fate.definition == "checkout") {
            let steps = sagas.get(saga.as_str()).unwrap_or(&none);
            violations.extend(of_saga(steps, fate).into_iter().map(|text| format!("{text} (saga {saga})")));
        }
        violations
    }

    /// What the ledgers hold of a saga, a line each.
    pub fn of_saga<'a>(&'a self, saga: &str) -> impl Iterator<Item = String> + use<'a> {
        let saga = saga.to_owned();
        let entries = self.ledgers.iter().flatten().filter(move |entry| entry.saga_id == saga);
        entries.map(|entry| {
            let Entry { id, at, step, operation, effect, detail, .. } = entry;
            format!("ledger {at} #{id} {step}:{operation} {effect} {detail}")
        })
    }

    fn by_saga(&self) -> BTreeMap<&str, BTreeMap<&str, Trace<'_>>> {
        let mut sagas: BTreeMap<&str, BTreeMap<&str, Trace<'_>>> = BTreeMap::new();
        for entry in self.ledgers.iter().flatten() {
            let trace = sagas.entry(&entry.saga_id).or_default().entry(&entry.step).or_default();
            match entry.operation.as_str() {
                "action" => trace.actions.push(entry),
                "expiry" => trace.expiries.push(entry),
                _ => trace.undos.push(entry),
            }
        }
        sagas
    }

    /// Invariant 1 for stock: each shelf adds up, and holds what the ledger says it must.
    fn of_stock(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let by_ledger = Shelves::of(self.ledgers.iter().flatten());
        for shelf in &self.stock {
            let units = |name: &str| shelf[name].as_i64().expect("units are whole numbers");
            let (initial, available) = (units("initial"), units("available"));
            let place = (shelf["store_id"].to_string(), shelf["product_id"].to_string());
            let (reserved, sold) = by_ledger.0.get(&place).copied().unwrap_or_default();
            if initial != available + units("reserved") + units("sold") || available < 0 {
                violations.push(format!("1: {shelf} does not add up"));
            }
            if (units("reserved"), units("sold")) != (reserved, sold) {
                violations
                    .push(format!("1: by the ledger {reserved} reserved and {sold} sold, but the shelf is {shelf}"));
            }
        }
        violations
    }

    /// Invariant 1 for money: each customer's credit adds up, and what is paid is what the payments say.
    fn of_money(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut paid: BTreeMap<&str, i64> = BTreeMap::new();
        let mut taken: BTreeMap<&str, i64> = BTreeMap::new();
        let amount = |value: &Value| value["amount"].as_i64().expect("amounts are whole numbers");
        for payment in self.payments.iter().filter(|payment| payment["status"] == "paid") {
            *paid.entry(payment["customer_id"].as_str().unwrap_or_default()).or_default() += amount(payment);
        }
        for entry in self.ledgers.iter().flatten() {
            let sum = taken.entry(entry.detail["customer_id"].as_str().unwrap_or_default()).or_default();
            match entry.effect.as_str() {
                "payment_taken" => *sum += amount(&entry.detail),
                "payment_refunded" => *sum -= amount(&entry.detail),
                _ => {}
            }
        }
        for customer in &self.customers {
            let money = |name: &str| customer[name].as_i64().expect("money is whole numbers");
            let id = customer["id"].as_str().unwrap_or_default();
            let of = |sums: &BTreeMap<&str, i64>| sums.get(id).copied().unwrap_or(0);
            if money("credit") != money("remaining") + money("paid") || money("remaining") < 0 {
                violations.push(format!("1: {customer} does not add up"));
            }
            if (of(&paid), of(&taken)) != (money("paid"), money("paid")) {
                let (paid, taken) = (of(&paid), of(&taken));
                violations
                    .push(format!("1: payments of {paid}, by the ledger {taken}, but the customer is {customer}"));
            }
        }
        violations
    }
}

/// The effects of one step of one saga.
#[derive(Debug, Default)]
struct Trace<'a> {
    actions: Vec<&'a Entry>,
    undos: Vec<&'a Entry>,
    /// Undone by the participant itself.
    expiries: Vec<&'a Entry>,
}

impl Trace<'_> {
    fn undone_at(&self) -> Option<DateTime<FixedOffset>> {
        let at = &self.undos.first()?.at;
        Some(DateTime::parse_from_rfc3339(at).expect("times are RFC 3339"))
    }
}

fn of_saga(steps: &BTreeMap<&str, Trace<'_>>, fate: &Fate) -> Vec<String> {
    let mut violations = Vec::new();
    let none = Trace::default();
    for step in STEPS {
        let trace = steps.get(step).unwrap_or(&none);
        let (done, undone) = (trace.actions.len(), trace.undos.len() + trace.expiries.len());
        if done > 1 || trace.undos.len() > 1 {
            violations.push(format!("3, 4: `{step}` took effect {done} times and was undone {undone} times"));
        }
        if undone > done {
            violations.push(format!("4: `{step}` was undone {undone} times, having had {done} effects"));
        }
        if let (Some(action), Some(undo)) = (trace.actions.last(), trace.undos.first())
            && action.id > undo.id
        {
            violations.push(format!("5: `{step}` took effect after its compensation"));
        }
        if fate.decided_by_operator.contains(step) {
            continue;
        }
        match fate.status.as_str() {
            "completed" if done != 1 || !trace.undos.is_empty() => {
                violations
                    .push(format!("3: completed, but `{step}` took effect {done} times and was undone {undone} times"));
            }
            "compensated" if done != undone => {
                violations.push(format!(
                    "4: compensated, but `{step}` took effect {done} times and was undone {undone} times"
                ));
            }
            _ => {}
        }
    }
    for (index, later) in STEPS.iter().enumerate() {
        for earlier in &STEPS[..index] {
            let undone_at = |step: &str| steps.get(step).and_then(Trace::undone_at);
            if let (Some(first), Some(second)) = (undone_at(later), undone_at(earlier))
                && first > second
            {
                violations.push(format!("4: `{earlier}` was undone at {second}, before `{later}` at {first}"));
            }
        }
    }
    violations
}

/// Reserved and sold units by store and product, by the ledger.
#[derive(Debug, Default)]
struct Shelves(BTreeMap<(String, String), (i64, i64)>);

impl Shelves {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut shelves = Self::default();
        // Orders whose units were freed by expiry: what they sell and take back goes past `reserved`.
        let mut expired = BTreeSet::new();
        for entry in entries {
            let holds = !expired.contains(&entry.saga_id);
            let (reserved, sold) = match entry.effect.as_str() {
                "stock_reserved" => (1, 0),
                "stock_released" => (-1, 0),
                "hold_expired" => {
                    expired.insert(entry.saga_id.clone());
                    (-1, 0)
                }
                "stock_committed" => (-i64::from(holds), 1),
                "stock_restocked" => (i64::from(holds), -1),
                _ => continue,
            };
            shelves.add(&entry.detail, reserved, sold);
        }
        shelves
    }

    fn add(&mut self, detail: &Value, reserved: i64, sold: i64) {
        for item in detail["items"].as_array().expect("an effect on stock names its items") {
            let quantity = item["quantity"].as_i64().expect("quantities are whole numbers");
            let place = (detail["store_id"].to_string(), item["product_id"].to_string());
            let shelf = self.0.entry(place).or_default();
            *shelf = (shelf.0 + reserved * quantity, shelf.1 + sold * quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(id: i64, step: &str, operation: &str, effect: &str) -> Entry {
        Entry {
            id,
            at: format!("2026-01-01T00:00:{id:02}.000000Z"),
            key: format!("saga:{step}:{operation}"),
            saga_id: "saga".to_owned(),
            step: step.to_owned(),
            operation: operation.to_owned(),
            effect: effect.to_owned(),
            detail: json!({"store_id": "s", "items": [{"product_id": "p", "quantity": 2}], "customer_id": "c", "amount": 5}),
        }
    }

    fn judged(status: &str, shelf: (i64, i64, i64), entries: Vec<Entry>) -> String {
        let (available, reserved, sold) = shelf;
        let shelf = json!({"store_id": "s", "product_id": "p", "initial": 10, "available": available,
                           "reserved": reserved, "sold": sold});
        let effects = Effects { ledgers: vec![entries], stock: vec![shelf], ..Effects::default() };
        let fate = Fate { definition: "checkout".to_owned(), status: status.to_owned(), ..Fate::default() };
        effects.violations(&BTreeMap::from([("saga".to_owned(), fate)])).join("\n")
    }

    fn reserved() -> Entry {
        entry(1, "reserve_stock", "action", "stock_reserved")
    }

    fn released() -> Entry {
        entry(4, "reserve_stock", "compensation", "stock_released")
    }

    #[test]
    fn the_checker_is_content_with_an_undone_saga_in_reverse_order() {
        let paid = entry(2, "process_payment", "action", "payment_taken");
        let refunded = entry(3, "process_payment", "compensation", "payment_refunded");
        assert_eq!(judged("compensated", (10, 0, 0), vec![reserved(), paid, refunded, released()]), "");
    }

    #[test]
    fn the_checker_sees_each_kind_of_wrong() {
        let paid = |id| entry(id, "process_payment", "action", "payment_taken");
        let refunded = |id| entry(id, "process_payment", "compensation", "payment_refunded");
        for (expected, found) in [
            ("1: ", judged("compensated", (9, 0, 0), vec![reserved(), released()])),
            ("1: by the ledger", judged("parked", (10, 0, 0), vec![reserved()])),
            ("3: completed, but", judged("completed", (8, 2, 0), vec![reserved()])),
            ("3, 4: `process_payment` took effect 2", judged("parked", (10, 0, 0), vec![paid(1), paid(2)])),
            ("4: compensated, but", judged("compensated", (8, 2, 0), vec![reserved()])),
            ("4: `process_payment` was undone 1", judged("compensated", (10, 0, 0), vec![refunded(1)])),
            (
                "before `process_payment`",
                judged("compensated", (10, 0, 0), vec![reserved(), paid(2), released(), refunded(5)]),
            ),
            ("5: ", judged("compensated", (10, 0, 0), vec![refunded(1), paid(2)])),
        ] {
            assert!(found.contains(expected), "`{expected}` is not in `{found}`");
        }
    }
}
