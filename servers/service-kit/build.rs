//! Puts the commit that is being built into the program, for `--version` and the build information gauge.
//!
//! `STRONGROOM_COMMIT` wins over git, for builds from an archive; without either the commit is "unknown".

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=STRONGROOM_COMMIT");
    let commit = std::env::var("STRONGROOM_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SERVICE_KIT_COMMIT={commit}");
    // The log of HEAD changes with every commit and every checkout. A path that does not exist would make cargo
    // rebuild the crate each time.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
