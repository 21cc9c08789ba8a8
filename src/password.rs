//! `pagewire password`: a name and the hash of a password, as the file of `--auth` has them.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, ensure};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;

use crate::flags::PasswordFlags;

pub(crate) fn run(flags: &PasswordFlags) -> anyhow::Result<()> {
    let password = asked(&flags.name).context("cannot read the password")?;
    ensure!(!password.is_empty(), "the password is empty");
    // Its defaults are those that OWASP asks for: argon2id, 19 MiB, 2 passes.
    let hash = Argon2::default().hash_password(password.as_bytes());
    let hash = hash.map_err(|error| anyhow::anyhow!("cannot hash the password: {error}"))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}:{hash}", flags.name)?;
    Ok(out.flush()?)
}

fn asked(name: &str) -> io::Result<String> {
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\n', '\r']).to_owned());
    }
    let first = rpassword::prompt_password(format!("Password of {name}: "))?;
    let again = rpassword::prompt_password("Once more: ")?;
    if first == again { Ok(first) } else { Err(io::Error::other("the two are not the same")) }
}
