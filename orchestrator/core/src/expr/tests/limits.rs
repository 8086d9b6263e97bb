//! What neither a definition's author nor an input can do.

extern crate std;

use alloc::{format, string::ToString, vec};

use serde_json::json;

use super::*;

#[test]
fn text_that_would_exhaust_the_parser_is_refused() {
    for text in [
        format!("{}1{}", "(".repeat(2000), ")".repeat(2000)),
        "(".repeat(2000),
        "[".repeat(4000),
        "{'a':".repeat(700),
        "!".repeat(4000),
        "-".repeat(4000),
        "1+".repeat(2000),
        format!("input{}", ".a".repeat(2000)),
        "true?1:".repeat(500),
        "a ".repeat(2000),
        format!("'{}'", "x".repeat(5000)),
    ] {
        assert!(Expr::compile(&text).is_err());
    }
}

#[test]
fn the_largest_accepted_text_compiles_and_runs_within_a_small_stack() {
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(24), close.repeat(24));
    let texts = [
        nested("(", ")"),
        nested("[", "]"),
        nested("{'a':", "}"),
        nested("-(", ")"),
        nested("size([", "])"),
        format!("{}1", "1+".repeat(98)),
        format!("{}1", "1+".repeat(390)),
        format!("{}true", "!".repeat(390)),
        format!("input{}", ".a".repeat(98)),
        format!("{}1", "true?1:".repeat(24)),
        format!("{}true", "true&&".repeat(190)),
        format!("{}(1", "1*(1+".repeat(23)) + &")".repeat(24),
    ];
    // Half of what the threads of the service have.
    let run = move || {
        let world = World::new();
        for text in &texts {
            let _ = world.eval(text);
        }
    };
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(run).expect("a thread").join().expect("no panic");
}

#[test]
fn work_is_bounded_whatever_the_input() {
    let mut world = World::new();
    world.input = json!({"list": vec![1; 100_000], "text": "x".repeat(1_000_000)});
    for text in [
        "input.list.all(x, input.list.all(y, x <= y))",
        "input.list.map(x, input.list)",
        "input.list.map(x, input.text)",
        "input.list.map(x, input.text + 'x')",
        "input.list.map(x, x in input.list.filter(y, y != 1))",
        "input.list.map(x, input.list == input.list)",
        "input.list.map(x, input.text.contains('y'))",
    ] {
        let refused = world.eval(text).expect_err("refused");
        assert!(refused.contains("too much work"), "{text}: {refused}");
    }
    assert!(world.eval("input.list.map(x, x + 1)").is_ok());
}

#[test]
fn results_never_nest_deeper_than_can_be_read_back() {
    let mut world = World::new();
    let mut deep = json!(1);
    for _ in 0..60 {
        deep = json!([deep]);
    }
    world.input = deep;
    assert!(world.render(json!({"a": {"b": {"c": "${input}"}}})).is_ok());
    assert!(
        world
            .render(json!({"a": {"b": {"c": {"d": {"e": "${input}"}}}}}))
            .expect_err("refused")
            .contains("nests deeper")
    );
    assert!(world.eval("[[[[[input]]]]]").expect_err("refused").contains("nests deeper"));
}

#[test]
fn a_value_never_leaves_its_path_segment() {
    let mut world = World::new();
    world.input = json!({
        "plain": "a-Z.0_9~", "slash": "a/b", "up": "..", "dot": ".", "empty": "", "query": "?x=1&y#z", "percent": "%2e%2e",
        "unicode": "ž", "backslash": "..\\..", "n": 7, "nil": null, "space": " ", "crlf": "\r\n",
    });
    for (template, path) in [
        ("/a/${input.plain}/b", "/a/a-Z.0_9~/b"),
        ("/a/${input.slash}", "/a/a%2Fb"),
        ("/a/${input.query}", "/a/%3Fx%3D1%26y%23z"),
        ("/a/${input.percent}", "/a/%252e%252e"),
        ("/a/${input.unicode}", "/a/%C5%BE"),
        ("/a/${input.backslash}", "/a/..%5C.."),
        ("/a/${input.n}", "/a/7"),
        ("/a/x${input.empty}", "/a/x"),
        ("/a/${input.up}x", "/a/..x"),
        ("/a?up=${input.up}&e=${input.empty}", "/a?up=..&e="),
        ("/a/${input.space}${input.crlf}", "/a/%20%0D%0A"),
        ("/plain", "/plain"),
    ] {
        assert_eq!(world.path(template), Ok(path.to_string()), "{template}");
    }
    for template in [
        "/a/${input.up}",
        "/a/${input.dot}/b",
        "/a/${input.empty}",
        "/a/${input.empty}/b",
        "/${input.empty}/b",
        "/a/.${input.dot}",
        "/a/%2e${input.dot}",
        "/a/%2E${input.empty}",
        "/a/${input.dot}${input.dot}/b",
        "/a/${input.empty}?x",
        "/a/${input.nil}",
    ] {
        assert!(world.path(template).is_err(), "{template} gives {:?}", world.path(template));
    }
}

#[test]
fn a_header_holds_visible_text_only() {
    let mut world = World::new();
    world.input = json!({"ok": "a b", "crlf": "a\r\nX: y", "nul": "\u{1}", "tab": "\t", "unicode": "ž", "n": 7, "long": "x".repeat(9000)});
    assert_eq!(world.header("v ${input.ok} ${input.n}"), Ok("v a b 7".to_string()));
    for field in ["crlf", "nul", "tab", "unicode", "long"] {
        assert!(world.header(&format!("${{input.{field}}}")).is_err(), "{field}");
    }
}
