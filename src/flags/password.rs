//! Flags of `pagewire password`.

use clap::Args;

/// Make a line for the file of --auth
///
/// Asks for the password on a terminal, without showing it; reads it from standard input else.
#[derive(Debug, Args)]
pub(crate) struct PasswordFlags {
    /// The name to log in with
    #[arg(value_name = "NAME", value_parser = name)]
    pub(crate) name: String,
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains([':', '#']) || text.contains(char::is_control) {
        return Err("a name is not empty and has no colon, # or control character".to_owned());
    }
    Ok(text.to_owned())
}
