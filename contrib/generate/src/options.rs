//! SYNOPSIS and OPTIONS, from the definition of the command line.

use clap::error::ContextKind;
use clap::{Arg, Command};

use crate::roff::{escape, paragraph};

/// The options with a letter, those one types; the others are below.
pub(crate) fn synopsis(command: &Command) -> String {
    let mut page = String::from(".Nm\n");
    for option in command.get_arguments().filter(|option| has_letter(option)) {
        page.push_str(&format!(".Op {}\n", flags(option, Form::Letter)));
    }
    page.push_str(".Op Ar option ...\n.Nm\n.Cm self-test\n.Op Fl -json\n.Op Ar option ...\n");
    page
}

/// All options under the headings of `--help`, in the same order.
pub(crate) fn options(command: &Command) -> String {
    let mut headings: Vec<&str> = Vec::new();
    for heading in command.get_arguments().filter_map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    let mut page = String::new();
    for heading in headings {
        page.push_str(&format!(".Ss {heading}\n.Bl -tag -width Ds\n"));
        let below = command
            .get_arguments()
            .filter(|option| option.get_help_heading() == Some(heading));
        for option in below {
            page.push_str(&format!(".It {}\n", flags(option, Form::Both)));
            page.push_str(&description(option, command));
        }
        page.push_str(".El\n");
    }
    page
}

fn has_letter(option: &Arg) -> bool {
    option.get_short().is_some() && !matches!(option.get_id().as_str(), "help" | "version")
}

enum Form {
    Letter,
    Both,
}

/// `Fl r , Fl -root Ar dir`.
fn flags(option: &Arg, form: Form) -> String {
    if option.is_positional() {
        return "Ar command".into();
    }
    let letter = option.get_short().map(|letter| format!("Fl {letter}"));
    let word = option.get_long().map(|word| format!("Fl -{word}"));
    let names = match form {
        Form::Letter => letter,
        Form::Both => Some(
            [letter, word]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" , "),
        ),
    };
    let mut flags = names.unwrap_or_default();
    if takes_value(option) {
        flags.push_str(" Ar ");
        flags.push_str(&value_name(option));
    }
    flags
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

/// `net,...` for a list, `first-last` for a range.
fn value_name(option: &Arg) -> String {
    let name = option.get_value_names().and_then(|names| names.first());
    let name = name.map_or("value", |name| name.as_str()).to_lowercase();
    match name.as_str() {
        "a-b" => "first Ns - Ns Ar last".into(),
        _ => name.replace(",..", " Ns Op , Ns Ar ..."),
    }
}

fn description(option: &Arg, command: &Command) -> String {
    let short = option
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let long = option
        .get_long_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    // A default that clap does not know of stands in brackets behind the text.
    let (short, mut default) = match short.split_once(" [default: ") {
        Some((text, default)) => (
            text.to_owned(),
            Some(default.trim_end_matches(']').to_owned()),
        ),
        None => (short, None),
    };
    let mut page = paragraph(&format!("{}.", short.trim_end_matches('.')), command);
    for text in long.split("\n\n").skip(1) {
        page.push_str(&paragraph(text, command));
    }
    let values = option.get_possible_values();
    if takes_value(option) && !values.is_empty() {
        page.push_str(".Bl -tag -width best-effort\n");
        for value in &values {
            let help = value
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            page.push_str(&format!(".It Cm {}\n", value.get_name()));
            page.push_str(&paragraph(&format!("{help}."), command));
        }
        page.push_str(".El\n.Pp\n");
    } else if let Some(range) = must_be(option, command) {
        page.push_str(&paragraph(&format!("Must be {range}."), command));
    }
    let known = option.get_default_values().first();
    if takes_value(option)
        && let Some(known) = known
    {
        default = Some(known.to_string_lossy().into_owned());
    }
    if let Some(default) = default {
        let default = if default == "." {
            "the current directory"
        } else {
            &default
        };
        page.push_str(&paragraph(&format!("Default: {default}."), command));
    }
    // A paragraph that nothing is in.
    match page.strip_suffix(".Pp\n") {
        Some(whole) => whole.to_owned(),
        None => page,
    }
}

/// What a value must be, in the words of the error for one that is not.
fn must_be(option: &Arg, command: &Command) -> Option<String> {
    if !takes_value(option) {
        return None;
    }
    let wrong = format!("--{}=\u{1}", option.get_long()?);
    let error = command
        .clone()
        .try_get_matches_from(["r-tftpd", &wrong])
        .err()?;
    assert!(
        error.get(ContextKind::InvalidValue).is_some(),
        "{wrong}: {error}"
    );
    let reason = std::error::Error::source(&error)?.to_string();
    let (range, _example) = reason
        .strip_prefix("must be ")?
        .split_once("; for example")?;
    Some(escape(range))
}
