//! Completions for bash, zsh and fish.

use clap::{Command, ValueHint};
use clap_complete::Shell;

/// The name of each file, and what is in it.
pub(crate) fn all() -> [(&'static str, String); 3] {
    [
        ("r-tftpd.bash", bash()),
        ("_r-tftpd", script(Shell::Zsh)),
        ("r-tftpd.fish", script(Shell::Fish)),
    ]
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "r-tftpd", &mut script);
    let script = String::from_utf8(script).expect("a script in UTF-8");
    let warning = "# Made by `cargo run -p r-tftpd-generate` from the command line of r-tftpd.\n";
    // zsh takes its first line for what the file is.
    match script.split_once('\n') {
        Some((first, rest)) if first.starts_with("#compdef") => format!("{first}\n{warning}{rest}"),
        _ => format!("{warning}{script}"),
    }
}

/// The definition, with file names offered only for values that are files.
fn command() -> Command {
    r_tftpd::cli::command().mut_args(|argument| match argument.get_value_hint() {
        ValueHint::Unknown if argument.get_action().takes_values() => {
            argument.value_hint(ValueHint::Other)
        }
        _ => argument,
    })
}

/// clap_complete offers files in bash where it does not know better: for users it does not.
fn bash() -> String {
    let files = "--user)\n                    COMPREPLY=($(compgen -f \"${cur}\"))";
    let users = "--user)\n                    COMPREPLY=($(compgen -u -- \"${cur}\"))";
    let script = script(Shell::Bash);
    assert_eq!(script.matches(files).count(), 1, "{script}");
    script.replace(files, users)
}
