//! Sagas as clients see them, with tokens opened.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, value::RawValue};
use skald_core::personal::{HIDDEN, collect_tokens, tokens_in};

use super::{Saga, SagaFailure};
use crate::personal::Opened;

/// The tokens in a saga, each once.
#[must_use]
pub fn tokens(saga: &Saga) -> BTreeSet<String> {
    let document = serde_json::to_value(saga).expect("a saga has string keys and finite numbers");
    let mut tokens = BTreeSet::new();
    collect_tokens(&document, &mut tokens);
    tokens
}

/// Puts values in the place of tokens; `[erased]` where the key was destroyed.
pub fn show(saga: &mut Saga, opened: &Opened) {
    if !tokens_in(saga.input.get()).is_empty() {
        let mut input: Value = serde_json::from_str(saga.input.get()).expect("a saga's input is JSON");
        opened.show(&mut input);
        saga.input = RawValue::from_string(input.to_string()).expect("it was JSON");
    }
    saga.output.iter_mut().for_each(|output| opened.show(Arc::make_mut(output)));
    if let Some(failure) = &mut saga.failure {
        opened.show_text(&mut failure.code);
        opened.show_text(&mut failure.reason);
    }
    for step in &mut saga.steps {
        step.output.iter_mut().for_each(|output| opened.show(Arc::make_mut(output)));
        step.attempts.iter_mut().filter_map(|attempt| attempt.error.as_mut()).for_each(|error| opened.show_text(error));
        if let Some(parked) = &mut step.parked {
            opened.show_text(&mut parked.code);
            opened.show_text(&mut parked.reason);
        }
    }
}

/// A failure as lists show it.
#[must_use]
pub fn hidden(mut failure: SagaFailure) -> SagaFailure {
    failure.code = hide(failure.code);
    failure.reason = hide(failure.reason);
    failure
}

/// An input where its keys could not be read.
#[must_use]
pub fn hidden_input(input: Box<RawValue>) -> Box<RawValue> {
    if tokens_in(input.get()).is_empty() {
        return input;
    }
    RawValue::from_string(hide(input.get().to_owned())).expect("a token stands within a text of JSON, and so does this")
}

fn hide(mut text: String) -> String {
    for range in tokens_in(&text).into_iter().rev() {
        text.replace_range(range, HIDDEN);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_input_that_cannot_be_opened_is_json_still() {
        let input = json!({"to": "~skald.sealed.1.k.p~", "text": "for ~skald.sealed.1.k.p~, \"n\"", "n": 1});
        let hidden = hidden_input(RawValue::from_string(input.to_string()).unwrap());
        let hidden: Value = serde_json::from_str(hidden.get()).unwrap();
        assert_eq!(hidden, json!({"to": "[personal]", "text": "for [personal], \"n\"", "n": 1}));
    }
}
