//! What holds of tests/fuzz, which is a workspace of its own: it tests the versions that are shipped, nothing of it is in
//! the programs, and it is complete.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that all corpora may have together.
const MAX_CORPUS: u64 = 128 * 1024;

#[test]
fn the_fuzzed_versions_are_those_of_the_programs() {
    let ours = locked("Cargo.lock");
    let fuzzed = locked("tests/fuzz/Cargo.lock");
    let mut shared = 0;
    for (name, versions) in &fuzzed {
        if let Some(expected) = ours.get(name) {
            assert!(
                versions.is_subset(expected),
                "{name}: {versions:?} instead of {expected:?}"
            );
            shared += 1;
        }
    }
    let own: Vec<_> = fuzzed
        .keys()
        .filter(|name| !ours.contains_key(*name))
        .collect();
    assert_eq!(own, ["arbitrary", "libfuzzer-sys", "r-tftpd-fuzz"]);
    assert!(shared > 30, "{shared} packages in common");
}

#[test]
fn nothing_in_the_programs_is_there_for_the_fuzzer() {
    for manifest in ["Cargo.toml", "broker/Cargo.toml"] {
        let text = read(manifest);
        assert!(
            !text.contains("[features]") && !text.contains("fuzz"),
            "{manifest}"
        );
    }
    let mut open = vec![root().join("src"), root().join("broker/src")];
    let mut files = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(entries(&path));
        } else {
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                !text.contains("fuzzing"),
                "{} knows the fuzzer",
                path.display()
            );
            files += 1;
        }
    }
    assert!(files > 100, "{files} files");
}

#[test]
fn every_target_is_built_described_and_has_a_small_corpus() {
    let stems = |directory: &str| -> BTreeSet<String> {
        let files = entries(&root().join(directory)).into_iter();
        files
            .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    let targets = stems("tests/fuzz/fuzz_targets");
    assert!(targets.len() >= 12, "{targets:?}");
    let mut modules = stems("tests/fuzz/src/targets");
    assert!(modules.remove("mod"));
    assert_eq!(modules, targets);
    assert_eq!(stems("tests/fuzz/corpus"), targets);
    let (manifest, readme) = (read("tests/fuzz/Cargo.toml"), read("tests/fuzz/README.md"));
    let mut bytes = 0;
    for target in &targets {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")),
            "{target}"
        );
        assert!(
            readme.contains(&format!("| `{target}` |")),
            "{target} is not described"
        );
        let inputs = entries(&root().join("tests/fuzz/corpus").join(target));
        assert!(!inputs.is_empty(), "{target} has no corpus");
        bytes += inputs
            .iter()
            .map(|input| fs::metadata(input).unwrap().len())
            .sum::<u64>();
    }
    assert!(
        bytes <= MAX_CORPUS,
        "the corpora have {bytes} bytes of {MAX_CORPUS}"
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Name of each package in a lock file, and its versions.
fn locked(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = read(name);
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in text.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().trim_matches('"').to_owned()
        };
        packages
            .entry(value("name = "))
            .or_default()
            .insert(value("version = "));
    }
    packages
}
