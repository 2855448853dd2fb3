//! The manual pages: written by hand in `contrib/man/*.in`, but for what can be made.

use std::fs;
use std::path::Path;

use crate::{calls, options};

/// Stands where a made part belongs; its name follows.
const MARK: &str = ".\\\" INSERT ";

/// The page that belongs at `path`, made from the file of the same name with `.in` behind it.
pub(crate) fn page(path: &Path) -> String {
    let mut source = path.as_os_str().to_owned();
    source.push(".in");
    let text = fs::read_to_string(&source)
        .unwrap_or_else(|error| panic!("{}: {error}", Path::new(&source).display()));
    let mut page = String::new();
    for line in text.lines() {
        match line.strip_prefix(MARK) {
            Some(name) => page.push_str(&part(name)),
            None => {
                page.push_str(line);
                page.push('\n');
            }
        }
    }
    page
}

fn part(name: &str) -> String {
    let command = r_tftpd::cli::command();
    match name.split_once(' ') {
        None if name == "warning" => {
            ".\\\" Made by `cargo run -p r-tftpd-generate` from the .in file of this name.\n".into()
        }
        None if name == "synopsis" => options::synopsis(&command),
        None if name == "options" => options::options(&command),
        Some(("calls", process)) => calls::table(process),
        _ => panic!("nothing is called {name}"),
    }
}
