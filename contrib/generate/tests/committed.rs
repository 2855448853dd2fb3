//! What is committed is what would be made.
#![cfg(test)]

use std::fs;

#[test]
fn the_committed_files_are_what_the_command_line_says() {
    let stale: Vec<_> = r_tftpd_generate::files()
        .into_iter()
        .filter(|(path, contents)| fs::read_to_string(path).ok().as_ref() != Some(contents))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(
        stale.is_empty(),
        "not as they would be made; `cargo run -p r-tftpd-generate` makes them: {}",
        stale.join(" ")
    );
}

#[test]
fn every_option_and_every_value_has_a_text() {
    let command = r_tftpd::cli::command();
    for option in command.get_arguments() {
        let name = option.get_id();
        assert!(option.get_help().is_some(), "{name}");
        assert!(option.get_help_heading().is_some(), "{name}");
        if option.get_action().takes_values() {
            for value in option.get_possible_values() {
                assert!(value.get_help().is_some(), "{name} {}", value.get_name());
            }
        }
    }
}
