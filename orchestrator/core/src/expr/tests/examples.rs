//! The language by example.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde_json::{Value, json};

use super::*;

#[test]
fn values_keep_their_type() {
    let world = World::new();
    for (text, value) in [
        ("input.n", json!(7)),
        ("input.big", json!(i64::MAX)),
        ("input.min", json!(i64::MIN)),
        ("input.uint", json!(u64::MAX)),
        ("input.f", json!(1.5)),
        ("input.whole", json!(2.0)),
        ("input.whole + 1.0", json!(3.0)),
        ("input.n + 1", json!(8)),
        ("input.nil", Value::Null),
        ("input.items[1].qty", json!(5)),
        ("input.obj['x y']", json!("blank")),
        ("input['obj'].a.c", json!("deep")),
        ("steps.one.output.total", json!(42)),
        ("steps['one']['output'].total", json!(42)),
        ("steps.two.output", Value::Null),
        ("saga.failure.code", json!("declined")),
        ("saga['id']", json!("s-1")),
        ("response.body.total", json!(5)),
        ("response.status == 200", json!(true)),
        ("{'b': 1, 'a': [input.n]}", json!({"a": [7], "b": 1})),
        ("-9223372036854775808", json!(i64::MIN)),
        ("18446744073709551615u", json!(u64::MAX)),
    ] {
        assert_eq!(world.eval(text), Ok(value), "{text}");
    }
}

#[test]
fn operators_and_functions_follow_cel() {
    let world = World::new();
    for (text, value) in [
        ("has(input.s)", json!(true)),
        ("has(input.store_id) ? input.store_id : null", Value::Null),
        ("has(input.nil)", json!(true)),
        ("has(steps.one.output) && has(steps.one.output.total)", json!(true)),
        ("has(steps.three.output) || has(steps.three)", json!(false)),
        ("input.nothing == 1 || true", json!(true)),
        ("false && input.nothing", json!(false)),
        ("1 == 1.0 && 1u == 1 && input.uint > input.big", json!(true)),
        ("9007199254740993 == 9007199254740992.0 || 9223372036854775808.0 == input.big", json!(false)),
        ("[1, 'a'] == [1.0, 'a'] && {'a': 1} == {'a': 1u}", json!(true)),
        ("1 == 'a' || null == false", json!(false)),
        ("'p-2' in input.items.map(i, i.id)", json!(true)),
        ("'a' in input.obj && !('z' in input.obj)", json!(true)),
        ("input.items.filter(i, i.qty > 2).map(i, i.id)", json!(["p-2"])),
        ("input.items.map(i, i.qty > 2, i.id)", json!(["p-2"])),
        ("input.items.all(i, i.qty > 1) && !input.items.exists(i, i.qty > 9)", json!(true)),
        ("input.items.exists_one(i, i.qty == 2) && input.list.existsOne(x, x == 3)", json!(true)),
        ("input.mixed.exists(x, x > 2)", json!(true)),
        ("input.obj.map(k, k)", json!(["a", "b", "x y"])),
        ("{'z': 1, 'y': 2, 'x': 3}.map(k, k)", json!(["x", "y", "z"])),
        ("input.list.map(x, input.list.filter(y, y < x))", json!([[1, 2], [], [1]])),
        ("input.list.map(x, [x].map(x, x * 2))", json!([[6], [2], [4]])),
        (
            "size(input.uni) == 4 && input.uni.size() == 4 && size(input.items) == 2 && size(input.obj) == 3",
            json!(true),
        ),
        ("input.s.contains('b') && input.s.startsWith('a') && input.s.endsWith('c')", json!(true)),
        ("int('12') + int(2.9) + int(3u)", json!(17)),
        ("string(12) + string(true) + string(1.5) + string('x')", json!("12true1.5x")),
        ("double(input.n) / 2.0", json!(3.5)),
        ("-7 / 2", json!(-3)),
        ("-7 % 2", json!(-1)),
        ("'a' + 'b' + input.s", json!("ababc")),
        ("[1] + input.list", json!([1, 3, 1, 2])),
        ("!input.no && -input.n < 0", json!(true)),
        ("'it\\'s' + \"}\" + '''${'''", json!("it's}${")),
        ("r'a\\n'", json!("a\\n")),
    ] {
        assert_eq!(world.eval(text), Ok(value), "{text}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_an_error() {
    let world = World::new();
    for (text, reason) in [
        ("input.nothing", "there is no `nothing`"),
        ("input.s.length", "needs an object"),
        ("steps.three.output", "step `three` has no output"),
        ("has(input.nothing.more)", "there is no `nothing`"),
        ("input.big + 1", "overflows"),
        ("input.min - 1", "overflows"),
        ("-input.min", "overflows"),
        ("input.min / -1", "overflows"),
        ("input.n / 0", "division by zero"),
        ("input.n % input.zero", "division by zero"),
        ("1.0 / 0.0", "not a finite number"),
        ("0.0 / 0.0", "not a finite number"),
        ("1 + 1.0", "does not take"),
        ("1u - 2u", "overflows"),
        ("'a' < 1", "does not take"),
        ("input.list[3]", "out of the list's bounds"),
        ("input.list[-1]", "out of the list's bounds"),
        ("{input.s: 1, 'abc': 2}", "twice"),
        ("{input.n: 1}", "must be strings"),
        ("input.s.map(x, x)", "takes a list or an object"),
        ("input.list.all(x, x)", "must be a bool"),
        ("input.n ? 1 : 2", "takes a bool"),
        ("int('x')", "cannot hold"),
        ("int(1e300)", "cannot hold"),
        ("uint(-1)", "cannot hold"),
        ("string(null)", "does not take"),
    ] {
        let refused = world.eval(text).expect_err("refused");
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}

#[test]
fn what_makes_no_sense_does_not_compile() {
    for (text, reason) in [
        ("", "empty"),
        ("1 +", "not valid CEL"),
        ("foo", "unknown name `foo`"),
        ("now()", "unknown function `now`"),
        ("input.s.matches('a*')", "unknown method `matches`"),
        ("size(1, 2)", "takes one argument"),
        ("contains(input.s, 'a')", "written as a method"),
        ("saga", "name a field"),
        ("saga.foo", "`saga.foo` does not exist"),
        ("saga.failure.foo", "`saga.failure.foo` does not exist"),
        ("response.header", "`response.header` does not exist"),
        ("steps", "write `steps.<id>.output`"),
        ("steps.one", "write `steps.one.output`"),
        ("steps.one.status", "only `steps.one.output`"),
        ("steps[input.s].output", "`steps` alone cannot be used"),
        ("has(input)", "has()"),
        ("has(input.s, 1)", "takes one field"),
        ("input.list.map(x)", "takes a variable and an expression"),
        ("b'abc'", "bytes do not exist"),
        ("'\\u0000'", "U+0000"),
        ("{1: 2}", "keys of a map must be strings"),
        ("Foo{a: 1}", "message types do not exist"),
        ("input.list.map(input, 1)", "cannot be called `input`"),
        ("input.list.map(x.y, 1)", "simple name"),
        ("input.list.map(a, a.map(b, b.map(c, c)))", "at most two deep"),
        ("1 // one", "comments"),
        ("input.?a", "not valid CEL"),
        ("99999999999999999999", "not valid CEL"),
    ] {
        let refused = Expr::compile(text).expect_err("refused").reason;
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}

#[test]
fn templates_interpolate_and_escape() {
    let world = World::new();
    for (template, rendered) in [
        (json!("${input.n}"), json!(7)),
        (json!(" ${input.n}"), json!(" 7")),
        (json!("${input.s}-${input.n}-${input.f}-${input.yes}"), json!("abc-7-1.5-true")),
        (json!("$${input.n} costs $5, ${input.n}$"), json!("${input.n} costs $5, 7$")),
        (json!("$$${input.n}"), json!("$${input.n}")),
        (json!("no expression }"), json!("no expression }")),
        (
            json!({"a": ["${'}'}", 1, null], "b": {"c": "${ {'x': {'y': 1}}.x }"}}),
            json!({"a": ["}", 1, null], "b": {"c": {"y": 1}}}),
        ),
        (json!(""), json!("")),
    ] {
        assert_eq!(world.render(template.clone()), Ok(rendered), "{template}");
    }
    for (template, reason) in [
        ("a ${input.nil}", "within text"),
        ("a ${input.list}", "within text"),
        ("a ${input.obj}", "within text"),
        ("${input.n", "no closing `}`"),
        ("${'a}", "no closing quote"),
        ("${}", "empty"),
    ] {
        let refused = world.render(template.into()).expect_err("refused");
        assert!(refused.contains(reason), "{template}: {refused}");
    }
    assert!(world.render(json!({"${input.n}": 1})).expect_err("refused").contains("keys"));
}

#[test]
fn every_expression_that_does_not_compile_is_told_with_its_place() {
    let problems = Template::compile(&json!({"a": ["${", {"b c": "${foo}"}], "ok": "${input.n}", "d": "${1 +} ${x}"}))
        .expect_err("refused");
    let places: Vec<&str> = problems.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(places, ["a[0]", "a[1][\"b c\"]", "d", "d"]);
}

#[test]
fn conditions_are_written_bare_or_as_an_expression() {
    let world = World::new();
    for text in ["input.yes", "${input.yes}", "  ${ input.n == 7 }  ", "{'a': true}.a"] {
        let expr = Expr::compile_condition(text).expect("valid");
        assert_eq!(world.with(|scope| expr.eval_bool(scope)), Ok(true), "{text}");
    }
    for text in ["${input.yes} && ${input.no}", "${input.yes", "", "${}"] {
        assert!(Expr::compile_condition(text).is_err(), "{text}");
    }
    let number = Expr::compile_condition("input.n").expect("valid");
    assert!(world.with(|scope| number.eval_bool(scope)).expect_err("refused").reason.contains("true or false"));
}

#[test]
fn references_tell_what_is_read_and_what_is_tested_first() {
    let steps = |text: &str| -> Vec<(String, Presence)> {
        Expr::compile(text).expect("valid").references().steps.into_iter().collect()
    };
    let (guarded, assumed) = (Presence::Guarded, Presence::Assumed);
    for (text, presence) in [
        ("steps.a.output", assumed),
        ("has(steps.a.output)", guarded),
        ("has(steps.a.output) ? steps.a.output.x : 1", guarded),
        ("has(steps.a) ? steps.a.output.x : 1", guarded),
        ("!has(steps.a.output) ? 1 : steps.a.output.x", guarded),
        ("has(steps.a.output) && steps.a.output.x > 1", guarded),
        ("!has(steps.a.output) || steps.a.output.x > 1", guarded),
        ("has(steps.a.output) && input.n > 1 ? [steps.a.output] : []", guarded),
        ("!(has(steps.a.output) && input.yes) ? 1 : steps.a.output", guarded),
        ("has(steps.a.output) || steps.a.output.x > 1", assumed),
        ("has(steps.a.output) || input.yes ? steps.a.output : 1", assumed),
        ("has(steps.a.output) ? 1 : steps.a.output", assumed),
        ("has(steps.a.output.x) ? steps.a.output.x : 1", assumed),
        ("has(steps.a.output) ? 1 : 2 + steps.a.output", assumed),
    ] {
        assert_eq!(steps(text), [("a".to_string(), presence)], "{text}");
    }
    let references =
        Expr::compile("input.items.map(i, i.id) + [input.a.b[0].c, input.list[input.n]]").expect("valid").references();
    let inputs: Vec<String> = references.inputs.iter().map(|path| path.join(".")).collect();
    assert_eq!(inputs, ["a.b", "items", "list", "n"]);
    assert!(Expr::compile("has(saga.failure)").expect("valid").references().failure);
    assert!(Expr::compile("saga.failure.code == 'x'").expect("valid").references().failure);
    assert!(!Expr::compile("saga.id").expect("valid").references().failure);
    assert!(Expr::compile("response.status").expect("valid").references().response);
    let assured = Expr::compile("has(steps.a.output) && (has(steps.b) || input.x)").expect("valid").assures();
    assert_eq!(assured.into_iter().collect::<Vec<_>>(), ["a"]);
}
