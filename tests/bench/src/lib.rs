//! What the programs that load, flood and harm have in common.

pub mod chance;

/// Reads the value of an option.
///
/// # Errors
/// It is not understood.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text}: not understood"))
}
