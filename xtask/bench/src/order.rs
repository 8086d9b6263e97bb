//! What is ordered, and how an order must end.

use serde::{Deserialize, Serialize};

/// Its payment is refused.
pub const DECLINED_TOKEN: &str = "tok_declined";
const PRICE: u64 = 500;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    pub customer_id: String,
    pub items: Vec<Item>,
    pub payment: Payment,
    /// As long as is wanted; no service needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Item {
    pub product_id: String,
    pub quantity: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Payment {
    pub method: String,
    pub token: String,
}

/// How a checkout ended, if it has.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    Completed,
    Compensated,
}

/// What whoever carries out a checkout answers; Skald answers more.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Ending {
    pub status: Status,
    /// Of a completed one only.
    pub output: Option<Output>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Output {
    pub total: u64,
}

impl Order {
    pub fn new(declined: bool) -> Self {
        let item = |product: &str, quantity| Item { product_id: product.to_owned(), quantity };
        Self {
            customer_id: "c-1".to_owned(),
            items: vec![item("p-1", 1), item("p-2", 2)],
            payment: Payment {
                method: "card".to_owned(),
                token: if declined { DECLINED_TOKEN } else { "tok_ok" }.to_owned(),
            },
            note: None,
        }
    }

    /// One that goes through and one that is declined.
    pub fn both() -> [Self; 2] {
        [Self::new(false), Self::new(true)]
    }

    /// How it must end.
    pub fn ending(&self) -> Ending {
        if self.payment.token == DECLINED_TOKEN { Ending::COMPENSATED } else { Ending::completed(total(&self.items)) }
    }
}

impl Ending {
    pub const COMPENSATED: Self = Self { status: Status::Compensated, output: None };
    pub const RUNNING: Self = Self { status: Status::Running, output: None };
    /// Where the definition has no output.
    pub const DONE: Self = Self { status: Status::Completed, output: None };

    pub const fn completed(total: u64) -> Self {
        Self { status: Status::Completed, output: Some(Output { total }) }
    }
}

pub fn total(items: &[Item]) -> u64 {
    items.iter().map(|item| item.quantity * PRICE).sum()
}
