//! Every error code of the demo services that the kit doesn't have: one row each.

use skald_kit::ProblemKind;

const fn row(status: u16, code: &'static str, title: &'static str) -> ProblemKind {
    ProblemKind::new(status, code, title)
}

// What is wrong with a request.
pub(crate) const INVALID_JSON: ProblemKind = row(400, "invalid_json", "The body is not JSON");
pub(crate) const INVALID_BODY: ProblemKind = row(400, "invalid_body", "The body is not what this call takes");
pub(crate) const BODY_UNREADABLE: ProblemKind = row(400, "body_unreadable", "The body could not be read");
pub(crate) const INVALID_QUERY: ProblemKind = row(400, "invalid_query", "The query string is not what this call takes");
pub(crate) const INVALID_CURSOR: ProblemKind = row(400, "invalid_cursor", "The cursor is not one that was given out");
pub(crate) const INVALID_PATH: ProblemKind = row(400, "invalid_path", "The path holds an id that can't exist");
pub(crate) const UNSIGNED: ProblemKind = row(401, "unsigned", "The call is not signed as it has to be");
pub(crate) const NOT_FOUND: ProblemKind = row(404, "not_found", "There is no such thing");
pub(crate) const NO_ROUTE: ProblemKind = row(404, "no_such_path", "There is no such path");
pub(crate) const WRONG_METHOD: ProblemKind = row(405, "method_not_allowed", "The path does not take this method");
pub(crate) const TOO_LARGE: ProblemKind = row(413, "body_too_large", "The body is over the limit");
pub(crate) const INVALID_FAULT: ProblemKind = row(422, "invalid_fault", "A fault's settings are out of range");

// Why an action is refused.
pub(crate) const INVALID_ITEMS: ProblemKind = row(422, "invalid_items", "The items can't be ordered");
pub(crate) const OUT_OF_STOCK: ProblemKind = row(422, "out_of_stock", "Not enough is available");
pub(crate) const UNKNOWN_PRODUCT: ProblemKind = row(422, "unknown_product", "A product is not sold in this store");
pub(crate) const ALREADY_RESERVED: ProblemKind = row(422, "already_reserved", "The order holds stock already");
pub(crate) const HOLD_NOT_FOUND: ProblemKind = row(422, "hold_not_found", "The order holds no stock");
pub(crate) const HOLD_RELEASED: ProblemKind = row(422, "hold_released", "The order's stock was released");
pub(crate) const HOLD_SOLD: ProblemKind = row(422, "hold_sold", "The order's stock is sold");
pub(crate) const NOT_SOLD: ProblemKind = row(422, "not_sold", "The order's stock is not sold");
pub(crate) const INVALID_AMOUNT: ProblemKind = row(422, "invalid_amount", "The amount is out of range");
pub(crate) const PAYMENT_DECLINED: ProblemKind = row(402, "payment_declined", "The payment was declined");
pub(crate) const CREDIT_EXCEEDED: ProblemKind = row(402, "credit_exceeded", "The customer's credit is exceeded");
pub(crate) const ALREADY_PAID: ProblemKind = row(422, "already_paid", "The order was paid already");
pub(crate) const PAYMENT_NOT_FOUND: ProblemKind = row(422, "payment_not_found", "The order has no payment");
pub(crate) const CUSTOMER_BLOCKED: ProblemKind = row(422, "customer_blocked", "The customer is blocked");
pub(crate) const ORDER_EXISTS: ProblemKind = row(422, "order_exists", "The order exists already");
pub(crate) const ORDER_NOT_FOUND: ProblemKind = row(422, "order_not_found", "There is no such order");
pub(crate) const ORDER_NOT_PENDING: ProblemKind = row(422, "order_not_pending", "The order is not pending");
pub(crate) const ORDER_CANCELLED: ProblemKind = row(422, "order_cancelled", "The order is cancelled");
pub(crate) const REFUSED_BY_FAULT: ProblemKind =
    row(422, "refused_by_fault", "Refused on purpose, to demonstrate a refusal");

// Why a management call is refused.
pub(crate) const INVALID_VALUE: ProblemKind = row(422, "invalid_value", "A value is out of range");
pub(crate) const PRODUCT_EXISTS: ProblemKind = row(409, "product_exists", "The product exists already");
pub(crate) const STOCK_TOO_LOW: ProblemKind = row(422, "stock_too_low", "Less is available than is to be removed");
pub(crate) const STOCK_TOO_HIGH: ProblemKind = row(422, "stock_too_high", "More than a shelf can hold");
pub(crate) const CREDIT_IN_USE: ProblemKind = row(422, "credit_in_use", "More than the new credit is spent already");

// What a worker refuses.
pub(crate) const PROJECTION_BUSY: ProblemKind = row(409, "projection_busy", "One at a time");

// What `--faults` answers.
pub(crate) const INJECTED_ERROR: ProblemKind = row(500, "injected_error", "Failed on purpose");
pub(crate) const INJECTED_UNAVAILABLE: ProblemKind = row(503, "injected_unavailable", "Unavailable on purpose");
pub(crate) const INJECTED_HANG: ProblemKind = row(503, "injected_hang", "Hung on purpose");
