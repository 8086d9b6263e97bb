//! `cargo xtask dist`: Skald as it is deployed, optimised for what it does most. It is built once to count what runs, carries
//! out checkouts on both databases, and is built again by the counts.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench, postgres,
    run::{cargo, check, command, output, root, succeeds},
};

/// What is counted and what is built must be of one profile: the names of functions depend on it.
const PROFILE: &str = "dist";

/// What is counted: checkouts one at a time and many at once, some of which are undone.
const TRAINING: [&str; 10] =
    ["--only-skald", "--clients", "1,64", "--declined", "0,10", "--rounds", "1", "--seconds", "5", "--warm-up=1"];

/// Builds `target/dist/skald`, and gives where it is.
///
/// # Errors
///
/// Something is missing or does not build, or a checkout fails.
pub fn build() -> Result<PathBuf> {
    let profdata = profdata()?;
    postgres::ensure_installed()?;
    let target = root().join("target");
    let (counts, raw) = (target.join("counts"), target.join("counts/raw"));
    let counting = skald(&target.join("counting"), &format!("-Cprofile-generate={}", raw.display()))?;
    // Named after what counted: the same program need not count again, and other counts make Cargo build again.
    let summed = counts.join(format!("{:016x}.profdata", hash(&counting)?));
    if !summed.exists() {
        let _ = fs::remove_dir_all(&counts);
        bench::load(&counting, TRAINING)?;
        check(command(&profdata).args(["merge", "--output"]).args([&summed, &raw]))?;
    }
    let guided = skald(&target.join("guided"), &format!("-Cprofile-use={}", summed.display()))?;
    let deployed = target.join(PROFILE).join("skald");
    fs::create_dir_all(target.join(PROFILE))?;
    fs::copy(&guided, &deployed).with_context(|| format!("cannot write {}", deployed.display()))?;
    Ok(deployed)
}

/// Builds Skald in a folder of its own with this flag. Naming the target keeps the flag from build scripts and macros.
fn skald(folder: &Path, flag: &str) -> Result<PathBuf> {
    let host = output(command("rustc").args(["--print", "host-tuple"]))?;
    let host = host.trim();
    check(
        cargo()
            .args(["build", "--locked", "--profile", PROFILE, "--target", host, "--package", "skald", "--bin", "skald"])
            .env("CARGO_TARGET_DIR", folder)
            .env("CARGO_ENCODED_RUSTFLAGS", flag),
    )?;
    Ok(folder.join(host).join(PROFILE).join("skald"))
}

fn hash(file: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hasher);
    Ok(hasher.finish())
}

/// What sums counts up: of this toolchain, or where cargo does not come from rustup the one in PATH.
fn profdata() -> Result<PathBuf> {
    let _ = succeeds(command("rustup").args(["component", "add", "llvm-tools"]));
    let libraries = PathBuf::from(output(command("rustc").args(["--print", "target-libdir"]))?.trim());
    let of_toolchain = libraries.with_file_name("bin").join("llvm-profdata");
    let program = if of_toolchain.is_file() { of_toolchain } else { PathBuf::from("llvm-profdata") };
    ensure!(
        succeeds(command(&program).arg("--version")),
        "`llvm-profdata` is missing: `rustup component add llvm-tools`, or put that of rustc's version of LLVM in PATH"
    );
    Ok(program)
}
