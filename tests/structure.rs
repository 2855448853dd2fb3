//! The rules of the layout: who may import whom, where unsafe code may stand, what each program
//! links, and how large it may be.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSymbol};

/// What a clone of the repository shows; hidden folders may be added as needed.
const TOP_LEVEL: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "broker",
    "contrib",
    "selinux",
    "src",
    "tests",
];

/// Everything that is linked into the privileged side. A new name here is a decision to trust it.
/// critical-section and portable-atomic are features of once_cell, which the fetcher's DNS turns on
/// for all of the lock file; the privileged side by itself is built without them.
const BROKER_CLOSURE: [&str; 33] = [
    "autocfg",
    "bincode",
    "bincode_derive",
    "bitflags",
    "caps",
    "cfg-if",
    "cfg_aliases",
    "critical-section",
    "enumflags2",
    "enumflags2_derive",
    "landlock",
    "libc",
    "memoffset",
    "nix",
    "once_cell",
    "pin-project-lite",
    "portable-atomic",
    "proc-macro2",
    "quote",
    "r-tftpd-broker",
    "seccompiler",
    "serde",
    "serde_core",
    "serde_derive",
    "syn",
    "thiserror",
    "thiserror-impl",
    "tracing",
    "tracing-core",
    "unicode-ident",
    "unty",
    "valuable",
    "virtue",
];

#[test]
fn the_top_level_holds_what_the_layout_names_and_nothing_else() {
    let found: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    assert_eq!(found, TOP_LEVEL.map(str::to_owned).into());
}

#[test]
fn nobody_imports_what_its_part_must_not_know() {
    let rules: [(&str, &[&str]); 6] = [
        (
            "broker/src",
            &[
                "tokio",
                "reqwest",
                "rustls",
                "hyper",
                "http",
                "hickory_resolver",
                "clap",
                "regex",
                "url",
                "r_tftpd",
                "tracing_subscriber",
            ],
        ),
        (
            "src/tftp",
            &[
                "tokio",
                "tracing",
                "nix",
                "libc",
                "r_tftpd_broker",
                "UdpSocket",
                "TcpStream",
            ],
        ),
        (
            "src/worker",
            &[
                "reqwest",
                "rustls",
                "hyper",
                "hickory_resolver",
                "url",
                "fetcher",
                "clap",
                "supervisor",
            ],
        ),
        (
            "src/fetcher",
            &[
                "tftp",
                "worker",
                "http_cache_semantics",
                "UdpSocket",
                "clap",
                "supervisor",
            ],
        ),
        ("src/bin", &["tokio", "nix", "libc", "clap"]),
        ("src/log.rs", &["tokio", "nix", "libc", "clap"]),
    ];
    for (part, forbidden) in rules {
        for (file, line, code) in product_below(part) {
            for word in forbidden {
                assert!(!uses(&code, word), "{file}:{line} uses {word}");
            }
        }
    }
}

#[test]
fn the_protocol_is_pure() {
    for (file, line, code) in product_below("src/tftp") {
        for forbidden in [
            "std::fs",
            "std::net",
            "std::io",
            "std::env",
            "std::thread",
            "::now(",
        ] {
            assert!(!code.contains(forbidden), "{file}:{line} uses {forbidden}");
        }
        for path in code
            .match_indices("crate::")
            .map(|(start, path)| &code[start + path.len()..])
        {
            assert!(
                path.starts_with("tftp"),
                "{file}:{line} imports crate::{path}"
            );
        }
    }
}

#[test]
fn only_the_wire_module_knows_bincode_and_only_the_command_line_knows_clap() {
    for part in ["src", "broker/src"] {
        for (file, line, code) in product_below(part) {
            for (word, home) in [("bincode", "broker/src/wire"), ("clap", "src/cli")] {
                let allowed = file.starts_with(home) || !words(&code).any(|found| found == word);
                assert!(allowed, "{file}:{line} uses {word}");
            }
        }
    }
}

#[test]
fn unsafe_code_stands_in_the_two_sys_modules_only() {
    let homes = ["src/sys.rs", "broker/src/sys.rs", "tests/sandbox/raw.rs"];
    for part in ["src", "broker", "tests"] {
        for (file, line, code) in code_below(part) {
            let unsafe_code = words(&code).any(|word| word == "unsafe" || word == "unsafe_code");
            assert!(
                !unsafe_code || homes.contains(&file.as_str()),
                "{file}:{line}"
            );
        }
    }
}

#[test]
fn no_lint_is_switched_off_without_a_reason() {
    for part in ["src", "broker", "tests"] {
        for (file, line, code) in code_below(part) {
            let allows = code.contains("allow(") && code.trim_start().starts_with("#");
            let justified = code.contains("reason =") || code.contains("allow(unsafe_code)");
            // rustfmt may have broken a long attribute: then the reason is on its own line.
            assert!(
                !allows || justified || code.trim_end().ends_with("allow("),
                "{file}:{line}"
            );
        }
    }
}

#[test]
fn no_file_is_longer_than_500_lines() {
    for part in ["src", "broker", "tests"] {
        for path in sources(&root().join(part)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= 500, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn no_file_promises_what_is_not_there() {
    for part in ["src", "broker", "tests"] {
        for path in sources(&root().join(part)) {
            let text = fs::read_to_string(&path).unwrap();
            for word in [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("#[", "ignore"),
            ] {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

#[test]
fn the_programs_are_a_few_lines_each() {
    for path in sources(&root().join("src/bin")) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 15, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_privileged_side_links_the_packages_on_its_list_and_no_others() {
    let packages = locked_packages();
    let mut closure = BTreeSet::new();
    let mut open = vec!["r-tftpd-broker".to_owned()];
    while let Some(name) = open.pop() {
        if closure.insert(name.clone()) {
            open.extend(
                packages
                    .get(&name)
                    .unwrap_or_else(|| panic!("{name} not locked"))
                    .clone(),
            );
        }
    }
    assert_eq!(closure, BROKER_CLOSURE.map(str::to_owned).into());
}

#[test]
fn each_program_links_only_what_its_part_needs() {
    // Whose symbols begin with a library of the proxy, its HTTP, TLS, DNS or decoders.
    let proxy = [
        "reqwest",
        "hyper",
        "hyper_util",
        "rustls",
        "webpki",
        "hickory_resolver",
        "hickory_proto",
        "brotli_decompressor",
        "idna",
    ];
    for (program, forbidden, has_proxy) in [
        (env!("CARGO_BIN_EXE_r-tftpd"), &["tokio", "mio"][..], false),
        (
            env!("CARGO_BIN_EXE_r-tftpd-broker"),
            &["tokio", "mio", "clap_builder"],
            false,
        ),
        (
            env!("CARGO_BIN_EXE_r-tftpd-worker"),
            &["clap_builder"],
            false,
        ),
        (
            env!("CARGO_BIN_EXE_r-tftpd-fetcher"),
            &["clap_builder", "http_cache_semantics"],
            true,
        ),
    ] {
        let symbols = symbols(program);
        // As both mangling schemes write the name of a crate.
        let find = |package: &str| {
            let mangled = format!("{}{package}", package.len());
            symbols.iter().find(|symbol| symbol.contains(&mangled))
        };
        assert!(find("r_tftpd_broker").is_some(), "{program}");
        for package in forbidden {
            assert_eq!(find(package), None, "{program} links {package}");
        }
        for package in proxy {
            assert_eq!(
                find(package).is_some(),
                has_proxy,
                "{program}: {package} is {:?}",
                find(package)
            );
        }
    }
}

#[test]
fn no_program_links_the_part_of_another() {
    for (program, parts) in [
        (
            env!("CARGO_BIN_EXE_r-tftpd"),
            &["4tftp", "6worker", "7fetcher"][..],
        ),
        (
            env!("CARGO_BIN_EXE_r-tftpd-broker"),
            &["3cli", "4tftp", "6worker", "7fetcher"],
        ),
        (env!("CARGO_BIN_EXE_r-tftpd-worker"), &["3cli", "7fetcher"]),
        (
            env!("CARGO_BIN_EXE_r-tftpd-fetcher"),
            &["3cli", "4tftp", "6worker"],
        ),
    ] {
        let symbols = symbols(program);
        for part in parts {
            let mangled = format!("7r_tftpd{part}");
            let found = symbols.iter().find(|symbol| symbol.contains(&mangled));
            assert_eq!(found, None, "{program}");
        }
    }
}

#[cfg(not(debug_assertions))]
#[test]
fn each_program_stays_within_its_size() {
    use object::ObjectSection;
    for (program, budget) in [
        // With the tables of the self-test, and JSON.
        (env!("CARGO_BIN_EXE_r-tftpd"), 1_150_000),
        (env!("CARGO_BIN_EXE_r-tftpd-broker"), 750_000),
        (env!("CARGO_BIN_EXE_r-tftpd-worker"), 1_100_000),
        (env!("CARGO_BIN_EXE_r-tftpd-fetcher"), 4_000_000),
    ] {
        let bytes = fs::read(program).unwrap();
        let size = object::File::parse(&*bytes)
            .unwrap()
            .section_by_name(".text")
            .unwrap()
            .size();
        println!("{program}: .text has {size} bytes of {budget}");
        assert!(
            size <= budget,
            "{program}: .text has {size} bytes of {budget}"
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file at or below a path.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap().path();
        let is_source = entry.extension().is_some_and(|extension| extension == "rs");
        if (entry.is_dir() && !entry.ends_with("target")) || is_source {
            found.extend(sources(&entry));
        }
    }
    assert!(
        !found.is_empty() || !path.ends_with("src"),
        "no source in {}",
        path.display()
    );
    found
}

/// Every line of code below a part of the tree that is in the programs, not only in its tests.
fn product_below(part: &str) -> Vec<(String, usize, String)> {
    let lines = code_below(part).into_iter();
    lines
        .filter(|(file, ..)| !file.contains("/tests") && !file.contains("/simulator/"))
        .collect()
}

/// Every line of code below a part of the tree, without comments: file, line number, code.
fn code_below(part: &str) -> Vec<(String, usize, String)> {
    let mut lines = Vec::new();
    for path in sources(&root().join(part)) {
        let name = path
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if name == "tests/structure.rs" {
            continue; // It has to name what it forbids.
        }
        for (index, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            lines.push((name.clone(), index + 1, code.to_owned()));
        }
    }
    lines
}

/// Whether code names a crate or module in a path, or a type.
fn uses(code: &str, name: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(name).any(|(start, _)| {
        let (before, after) = (&code[..start], &code[start + name.len()..]);
        let is_type = name.starts_with(char::is_uppercase);
        !before.ends_with(is_part)
            && if is_type {
                !after.starts_with(is_part)
            } else {
                after.starts_with("::")
            }
    })
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// Name of each package in Cargo.lock and the names of those it depends on, build and development
/// dependencies included.
fn locked_packages() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in text.split("[[package]]").skip(1) {
        let name = package
            .lines()
            .find_map(|line| line.strip_prefix("name = "))
            .unwrap();
        let dependencies = package
            .split_once("dependencies = [")
            .map_or("", |(_, rest)| rest);
        let dependencies = dependencies.lines().map_while(|line| match line.trim() {
            "]" => None,
            dependency => Some(dependency.trim_matches([' ', '"', ',']).to_owned()),
        });
        // A version behind the name tells two versions of one package apart.
        let names = dependencies.filter_map(|one| Some(one.split(' ').next()?.to_owned()));
        let names = names.filter(|name| !name.is_empty());
        packages
            .entry(name.trim_matches('"').to_owned())
            .or_default()
            .extend(names);
    }
    packages
}

fn symbols(program: &str) -> Vec<String> {
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let names = file
        .symbols()
        .filter_map(|symbol| Some(symbol.name().ok()?.to_owned()));
    let names: Vec<String> = names.collect();
    assert!(names.len() > 100, "{program} has no symbols");
    names
}
