//! The generated part of every client, made in `target/sdk`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{SPECIFICATION, downgrade, folder, specification, tools, tree::Tree};
use crate::run::{check, command, root};

/// What OpenAPI Generator makes of `xtask/sdk/LANGUAGE.yaml`: of what it writes, the files with the extension below a
/// folder, and where they belong.
const GENERATED: [(&str, &str, &str, &str); 5] = [
    ("go", "", "go", "sdks/go/api"),
    ("java", "src/main/java/skald/client/generated", "java", "sdks/java/src/main/java/skald/client/generated"),
    ("python", "skald_client/generated", "py", "sdks/python/skald_client/generated"),
    ("rust", "src/apis", "rs", "sdks/rust/src/apis"),
    ("rust", "src/models", "rs", "sdks/rust/src/models"),
];

/// # Errors
///
/// A tool is missing, or fails.
pub fn all() -> Result<Vec<Tree>> {
    let mut trees = vec![typescript()?];
    let program = tools::openapi_generator()?;
    let source = folder().join("for-generators.json");
    fs::write(&source, serde_json::to_vec_pretty(&for_generators(specification()?)?)?)?;
    let made = |language: &str| folder().join("generated").join(language);
    for language in ["go", "java", "python", "rust"] {
        generate(&program, &source, language, &made(language))?;
    }
    // Committed as `cargo fmt` wants it.
    check(command("rustfmt").args(["--edition", "2024"]).arg(made("rust").join("src/lib.rs")))?;
    for (language, below, extension, home) in GENERATED {
        trees.push(Tree::take(&made(language).join(below), extension, home)?);
    }
    Ok(trees)
}

fn typescript() -> Result<Tree> {
    let made = folder().join("generated/typescript");
    empty(&made)?;
    let mut program = command(tools::node_program("openapi-typescript")?);
    check(program.arg(SPECIFICATION).arg("--output").arg(made.join("schema.ts")))?;
    Tree::take(&made, "ts", "sdks/typescript/src/generated")
}

fn generate(program: &Path, source: &Path, language: &str, into: &Path) -> Result<()> {
    empty(into)?;
    let mut generator = command(program);
    generator.arg("generate").arg("--input-spec").arg(source).arg("--output").arg(into);
    generator.arg("--config").arg(configuration(language));
    // It says much about what it leaves out; errors come as exceptions all the same.
    generator.env("JAVA_OPTS", "-Dlog.level=error");
    check(generator.stdout(std::process::Stdio::null())).with_context(|| format!("the client in {language}"))
}

fn configuration(language: &str) -> PathBuf {
    root().join(format!("xtask/sdk/{language}.yaml"))
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(())
}

/// In 3.0, without the calls whose answer is a stream of events: generated clients would wait for its end.
fn for_generators(mut specification: Value) -> Result<Value> {
    for item in specification["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        if let Value::Object(operations) = item {
            operations.retain(|_, operation| operation.pointer("/responses/200/content/text~1event-stream").is_none());
        }
    }
    downgrade::to_3_0(&specification)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generators_do_not_see_streams() {
        let answer = |kind: &str| json!({"responses": {"200": {"content": {kind: {}}}}});
        let paths = json!({"/a": {"get": answer("text/event-stream"), "put": answer("application/json")}});
        let left = for_generators(json!({"paths": paths})).unwrap();
        assert_eq!(left["paths"], json!({"/a": {"put": answer("application/json")}}));
    }
}
