//! Names of streams: a saga's is its id, any other is `category-anything`.

use std::{fmt, str::FromStr, sync::Arc};

use skald_core::ids::SagaId;

use crate::storage::log::SAGAS;

const CATEGORY_CHARS_MAX: usize = 63;
const CHARS_MAX: usize = 200;

/// A stream, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamName {
    Saga(SagaId),
    Other(Arc<str>),
}

impl FromStr for StreamName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(saga) = text.parse() {
            return Ok(Self::Saga(saga));
        }
        let Some((category, rest)) = text.split_once('-') else {
            return Err("must be a saga's id, or a category, a minus sign and a name, as in cart-42");
        };
        if category != SAGAS && !is_category(category) {
            return Err("must begin with a category: a lower case letter, then up to 62 of a-z, 0-9 and _");
        }
        if category == SAGAS {
            return Err("must not be of the category saga: a saga's stream is named by its id");
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:@-".contains(&byte);
        if rest.is_empty() || text.len() > CHARS_MAX || !rest.bytes().all(allowed) {
            return Err(
                "must be at most 200 characters: letters, digits and . _ ~ : @ -, at least one of them after the category",
            );
        }
        Ok(Self::Other(Arc::from(text)))
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saga(saga) => saga.fmt(f),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Whether streams that are no sagas can be of this category.
#[must_use]
pub fn is_category(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && text.len() <= CATEGORY_CHARS_MAX
        && text.bytes().all(plain)
        && text != SAGAS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_saga_or_has_a_category() {
        let saga = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert!(matches!(saga.parse(), Ok(StreamName::Saga(_))));
        for name in ["cart-42", "complaint-2026-11:7", "a-~", "order_line-x@y.z_1"] {
            assert_eq!(name.parse::<StreamName>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        let long = format!("cart-{}", "x".repeat(196));
        for name in ["", "cart", "-x", "cart-", "Cart-1", "1cart-1", "saga-1", "cart-ä", "cart-a b", "cart-a/b", &long]
        {
            assert!(name.parse::<StreamName>().is_err(), "{name}");
        }
        for (text, is_one) in [("cart", true), ("order_line2", true), ("saga", false), ("Cart", false), ("", false)] {
            assert_eq!(is_category(text), is_one, "{text}");
        }
    }
}
