//! The rules between steps, one test each, with the place of the problem.

use super::*;

#[test]
fn step_ids_are_unique() {
    refused(&[("/steps/3/id", json!("look"))], "steps[3].id", "steps[0] has the same id");
}

#[test]
fn needs_name_other_steps_once() {
    refused(&[("/steps/1/needs", json!(["look", "nobody"]))], "steps[1].needs[1]", "no step `nobody`");
    refused(&[("/steps/1/needs", json!(["look", "look"]))], "steps[1].needs[1]", "named twice");
    refused(&[("/steps/0/needs", json!(["look"]))], "steps[0].needs", "needs itself");
}

#[test]
fn needs_do_not_go_in_a_circle() {
    refused(
        &[
            ("/steps/0/needs", json!(["book"])),
            ("/steps/2/needs", json!([])),
            ("/steps/2/pivot", json!(null)),
            ("/steps/2/effect", json!("none")),
            ("/steps/3/retriable", json!(null)),
            ("/steps/3/effect", json!("none")),
        ],
        "steps[0].needs",
        "look, book need each other in a circle",
    );
}

#[test]
fn services_are_those_of_the_configuration() {
    refused(&[("/steps/0/call/service", json!("c"))], "steps[0].call.service", "it has: a, b");
    refused(&[("/steps/1/compensate/call/service", json!("c"))], "steps[1].compensate.call.service", "no service `c`");
    let unknown = with(&[("/steps/0/call/service", json!("c"))]).to_string();
    assert!(Definition::parse(&unknown, None).is_ok());
}

#[test]
fn expressions_compile() {
    refused(&[("/steps/1/call/body/n", json!(["x", "${1 +}"]))], "steps[1].call.body.n[1]", "not valid CEL");
    refused(&[("/steps/1/call/path", json!("/a/${foo}"))], "steps[1].call.path", "unknown name `foo`");
    refused(&[("/steps/1/if", json!("input.n >"))], "steps[1].if", "not valid CEL");
    refused(&[("/output", json!("${"))], "output", "no closing `}`");
    refused(&[("/steps/1/call/headers", json!({"X-A": "${nope}"}))], "steps[1].call.headers.X-A", "unknown name");
}

#[test]
fn outputs_are_read_only_of_steps_upstream() {
    refused(
        &[("/steps/1/call/body/n", json!("${steps.pay.output.id}"))],
        "steps[1].call.body.n",
        "add it to its `needs`",
    );
    refused(&[("/steps/1/call/body/n", json!("${steps.none.output}"))], "steps[1].call.body.n", "no step `none`");
    refused(&[("/steps/1/call/body/n", json!("${steps.book.output}"))], "steps[1].call.body.n", "its own output");
    refused(&[("/steps/1/output", json!("${steps.book.output}"))], "steps[1].output", "its own output");
    refused(&[("/steps/1/if", json!("has(steps.pay.output)"))], "steps[1].if", "add it to its `needs`");
    refused(&[("/output", json!({"a": ["${steps.none.output}"]}))], "output.a[0]", "no step `none`");
    // Parallel steps do not see each other.
    refused(
        &[
            ("/steps/1/needs", json!([])),
            ("/steps/2/needs", json!(["look", "book"])),
            ("/steps/1/call/body/n", json!("${steps.look.output}")),
        ],
        "steps[1].call.body.n",
        "does not come after `look`",
    );
    accepted(&[("/steps/3/call/body", json!("${steps.look.output}")), ("/output", json!("${steps.tell.output}"))]);
    accepted(&[("/steps/1/compensate/call/body", json!("${steps.look.output}"))]);
}

#[test]
fn the_response_is_read_only_where_a_step_makes_its_output() {
    accepted(&[("/steps/1/output", json!({"id": "${response.body.id}", "s": "${response.status}"}))]);
    refused(&[("/steps/1/call/body/n", json!("${response.body}"))], "steps[1].call.body.n", "`response` can only");
    refused(&[("/output", json!("${response.body}"))], "output", "`response` can only");
    refused(
        &[("/steps/1/compensate/call/body", json!("${response.body}"))],
        "steps[1].compensate.call.body",
        "`response`",
    );
}

#[test]
fn the_failure_is_read_only_in_compensations() {
    accepted(&[("/steps/1/compensate/call/body", json!({"why": "${saga.failure.reason}"}))]);
    refused(
        &[("/steps/1/call/body/n", json!("${saga.failure.code}"))],
        "steps[1].call.body.n",
        "`saga.failure` can only",
    );
    refused(&[("/output", json!("${has(saga.failure)}"))], "output", "`saga.failure` can only");
}

#[test]
fn a_compensation_cannot_count_on_an_output_that_an_unknown_step_would_not_have() {
    let place = "steps[1].compensate.call.body.id";
    refused(
        &[("/steps/1/compensate/call/body", json!({"id": "${steps.book.output.id}"}))],
        place,
        "outcome of `book` is unknown",
    );
    refused(
        &[("/steps/1/compensate/call/body", json!({"id": "${has(steps.book.output.id) ? 1 : 2}"}))],
        place,
        "unknown",
    );
    accepted(&[(
        "/steps/1/compensate/call/body",
        json!({"id": "${has(steps.book.output) ? steps.book.output.id : null}"}),
    )]);
}

#[test]
fn an_output_that_a_condition_can_leave_out_is_tested_first() {
    let skippable = ("/steps/1/if", json!("input.n > 1"));
    let read = |text: &str| ("/steps/2/call/body", json!(text));
    refused(&[skippable.clone(), read("${steps.book.output.id}")], "steps[2].call.body", "when `book` is skipped");
    refused(&[skippable.clone(), ("/output", json!("${steps.book.output}"))], "output", "when `book` is skipped");
    refused(
        &[skippable.clone(), ("/steps/2/if", json!("steps.book.output.id > 1"))],
        "steps[2].if",
        "when `book` is skipped",
    );
    accepted(&[skippable.clone(), read("${has(steps.book.output) ? steps.book.output.id : 0}")]);
    accepted(&[skippable.clone(), ("/steps/2/if", json!("has(steps.book.output)")), read("${steps.book.output.id}")]);
    accepted(&[skippable.clone(), ("/steps/2/if", json!("${ input.n > 1 }")), read("${steps.book.output.id}")]);
    refused(
        &[skippable, ("/steps/2/if", json!("input.n > 0")), read("${steps.book.output.id}")],
        "steps[2].call.body",
        "when `book` is skipped",
    );
}

#[test]
fn expressions_read_only_inputs_that_the_schema_allows() {
    refused(&[("/steps/1/call/body/n", json!("${input.m}"))], "steps[1].call.body.n", "no property `m`");
    accepted(&[("/steps/1/call/body/n", json!("${input.m}")), ("/input/schema/additionalProperties", json!(null))]);
    accepted(&[("/steps/1/call/body/n", json!("${input.m}")), ("/input", json!(null))]);
}

#[test]
fn effects_before_the_pivot_can_be_undone() {
    refused(&[("/steps/1/compensate", json!(null))], "steps[1].compensate", "add `compensate`");
    refused(&[("/steps/0/effect", json!(null))], "steps[0].compensate", "`effect: none`");
    let found = problems(&with(&[("/steps/2/pivot", json!(null)), ("/steps/3/retriable", json!(null))]));
    let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["steps[2].compensate", "steps[3].compensate"]);
}

#[test]
fn what_has_no_effect_is_not_undone() {
    let undo = json!({"call": {"service": "a", "method": "POST", "path": "/undo"}});
    refused(&[("/steps/0/compensate", undo)], "steps[0].compensate", "nothing to undo");
}

#[test]
fn there_is_at_most_one_pivot_and_every_step_is_before_or_after_it() {
    refused(&[("/steps/3/pivot", json!(true)), ("/steps/3/retriable", json!(null))], "steps[3].pivot", "at most one");
    refused(
        &[("/steps/1/needs", json!([])), ("/steps/0/needs", json!([])), ("/steps/2/needs", json!(["book"]))],
        "steps[0]",
        "neither before nor after the pivot `pay`",
    );
}

#[test]
fn steps_after_the_pivot_and_only_they_say_that_they_are_retriable() {
    refused(&[("/steps/3/retriable", json!(null))], "steps[3].retriable", "must say `retriable: true`");
    refused(&[("/steps/1/retriable", json!(true))], "steps[1].retriable", "comes before the pivot");
    refused(&[("/steps/2/retriable", json!(true))], "steps[2].retriable", "the pivot itself");
    refused(
        &[("/steps/2/pivot", json!(null)), ("/steps/2/effect", json!("none")), ("/steps/3/effect", json!("none"))],
        "steps[3].retriable",
        "has no pivot",
    );
}

#[test]
fn paths_stay_below_the_service() {
    for (path, reason) in [
        ("look", "start with `/`"),
        ("https://evil.example/", "start with `/`"),
        ("${input.s}", "start with `/`"),
        ("//evil.example/", "another host"),
        ("/a#b", "fragments"),
        ("/a/../b", "`.` or `..`"),
        ("/a/%2e%2E/b", "`.` or `..`"),
        ("/a/.", "`.` or `..`"),
        ("/a b", "percent-encode"),
        ("/ž", "percent-encode"),
        ("/a\\b", "percent-encode"),
    ] {
        refused(&[("/steps/0/call/path", json!(path))], "steps[0].call.path", reason);
    }
    for path in ["/", "/a/b?x=${input.s}&y=..", "/a.b/..c/${saga.id}", "/a/%20"] {
        accepted(&[("/steps/0/call/path", json!(path))]);
    }
}

#[test]
fn the_contracts_own_headers_cannot_be_set() {
    for name in [
        "Idempotency-Key",
        "saga-id",
        "Saga-Anything",
        "X-Correlation-Id",
        "traceparent",
        "HOST",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
    ] {
        refused(
            &[("/steps/0/call/headers", json!({name: "x"}))],
            &["steps[0].call.headers.", name].concat(),
            "set by Skald",
        );
    }
    refused(&[("/steps/0/call/headers", json!({"a b": "x"}))], "steps[0].call.headers[\"a b\"]", "not a header's name");
    refused(
        &[("/steps/0/call/headers", json!({"X-A": "x", "x-a": "y"}))],
        "steps[0].call.headers.x-a",
        "the same header",
    );
    refused(&[("/steps/0/call/headers", json!({"X-A": "a\nb"}))], "steps[0].call.headers.X-A", "visible ASCII");
    accepted(&[("/steps/0/call/headers", json!({"X-Tenant": "t-${input.s}", "Accept": "application/json"}))]);
}

#[test]
fn a_get_has_no_body_and_a_status_call_only_looks() {
    refused(&[("/steps/0/call/body", json!({}))], "steps[0].call.body", "a GET has no body");
    let status = json!({"call": {"service": "a", "method": "POST", "path": "/s"}});
    refused(&[("/steps/1/status", status)], "steps[1].status.call.method", "must be GET");
}

#[test]
fn an_event_name_means_one_thing() {
    refused(
        &[("/steps/1/emits", json!({"succeeded": "Done"})), ("/emits", json!({"completed": "Done"}))],
        "steps[1].emits.succeeded",
        "the event of emits.completed already",
    );
    refused(&[("/emits", json!({"failed": "StepRejected"}))], "emits.failed", "the engine's own name");
}

#[test]
fn retries_and_durations_are_within_bounds() {
    refused(&[("/steps/1/retry", json!({"initial": "6s"}))], "steps[1].retry", "`initial` (6s) must not be longer");
    refused(&[("/steps/1/timeout", json!("0ms"))], "steps[1].timeout", "longer than zero");
    refused(&[("/steps/1/deadline", json!("400d"))], "steps[1].deadline", "at most 366d");
    refused(&[("/deadline", json!("0s"))], "deadline", "longer than zero");
    refused(&[("/steps/1/classify", json!({"202": "succeeded"}))], "steps[1].classify.202", "still at it");
}

#[test]
fn the_input_schema_is_valid_and_refers_to_nothing_elsewhere() {
    let schema = |schema: Value| [("/input/schema", schema)];
    refused(&schema(json!({"type": "objekt"})), "input.schema.type", "not a valid JSON Schema");
    refused(&schema(json!({"pattern": "("})), "input.schema.pattern", "not a valid JSON Schema");
    for target in ["https://example.org/s.json", "other.json", "file:///etc/passwd", "s.json#/a"] {
        refused(
            &schema(json!({"properties": {"n": {"$ref": target}}})),
            "input.schema.properties.n[\"$ref\"]".replace("[\"$ref\"]", ".$ref").as_str(),
            "must stay within the schema",
        );
    }
    refused(&schema(json!({"$ref": "#/$defs/none"})), "input.schema", "not a valid JSON Schema");
    let local =
        accepted(&schema(json!({"$defs": {"n": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/n"}}})));
    assert_eq!(local.input.violations(&json!({"n": 1})), []);
    assert_eq!(local.input.violations(&json!({"n": "secret"}))[0].0, "/n");
    assert!(!local.input.violations(&json!({"n": "secret"}))[0].1.contains("secret"));
}

#[test]
fn at_most_twenty_violations_of_an_input_are_told() {
    let definition = accepted(&[("/input/schema", json!({"type": "array", "items": {"type": "string"}}))]);
    let input = Value::Array((0..1000).map(Value::from).collect());
    assert_eq!(definition.input.violations(&input).len(), 20);
}
