//! The file of passwords, in htpasswd's form: `name:hash` a line, `#` begins a comment. Hashes are
//! bcrypt's or argon2's; anything weaker is refused, with the line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;

use crate::error::{PasswordFileError, PasswordLineError};

/// Who may come in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct People {
    users: BTreeMap<String, Hash>,
    /// Of nobody's password: checked for names that are not there, which then take as long.
    decoy: Hash,
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Hash {
    Argon2(String),
    Bcrypt(String),
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Argon2(_) => "Argon2(..)",
            Self::Bcrypt(_) => "Bcrypt(..)",
        })
    }
}

impl People {
    pub(crate) fn read(path: &Path) -> Result<Self, PasswordFileError> {
        Self::parse(&fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, PasswordFileError> {
        let mut users = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |why| PasswordFileError::Line { number: index + 1, why };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or(wrong(PasswordLineError::NoColon))?;
            if user.is_empty() {
                return Err(wrong(PasswordLineError::NoName));
            }
            let hash = Hash::parse(hash).map_err(wrong)?;
            if users.insert(user.to_owned(), hash).is_some() {
                return Err(wrong(PasswordLineError::NameTwice { name: user.to_owned() }));
            }
        }
        let decoy = users.values().next().cloned().ok_or(PasswordFileError::Empty)?;
        Ok(Self { users, decoy })
    }

    pub(crate) fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// That of a user, or one that takes as long to check.
    pub(crate) fn hash_of(&self, user: &str) -> Hash {
        self.users.get(user).unwrap_or(&self.decoy).clone()
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, PasswordLineError> {
        let starts_with_one = |marks: &[&str]| marks.iter().any(|mark| text.starts_with(mark));
        if text.starts_with("$argon2") {
            return match PasswordHash::new(text) {
                Ok(hash) if hash.hash.is_some() => Ok(Self::Argon2(text.to_owned())),
                _ => Err(PasswordLineError::BadHash { kind: "argon2" }),
            };
        }
        if starts_with_one(&["$2y$", "$2b$", "$2a$", "$2x$"]) {
            return match text.parse::<bcrypt::HashParts>() {
                Ok(_) => Ok(Self::Bcrypt(text.to_owned())),
                Err(_) => Err(PasswordLineError::BadHash { kind: "bcrypt" }),
            };
        }
        let kind = if starts_with_one(&["$apr1$", "$1$"]) {
            "MD5"
        } else if starts_with_one(&["{SHA}", "{SSHA}"]) {
            "SHA-1"
        } else if starts_with_one(&["$5$", "$6$"]) {
            "crypt(3) SHA-2"
        } else {
            "plain text or crypt(3)"
        };
        Err(PasswordLineError::Weak { kind })
    }

    /// Whether it is that of `password`. Takes some 50 ms, and compares in constant time.
    pub(crate) fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher;
    use argon2::{Algorithm, Params, Version};

    use super::*;

    #[test]
    fn both_kinds_of_hash_are_checked() {
        let cheap =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
        let argon2 = cheap.hash_password(b"right").unwrap().to_string();
        let bcrypt = bcrypt::hash("right", 4).unwrap();
        let text = format!("# people\n\nann:{argon2}\r\n  bob:{bcrypt}  \n");
        let passwords = People::parse(&text).unwrap();
        for user in ["ann", "bob"] {
            assert!(passwords.has(user));
            assert!(passwords.hash_of(user).matches(b"right"), "{user}");
            assert!(!passwords.hash_of(user).matches(b"wrong"), "{user}");
        }
        assert!(!passwords.has("carl"));
        assert!(format!("{passwords:?}").contains("Argon2(..)"));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, named) in [
            ("ann", "colon"),
            (":$2y$04$x", "name"),
            ("ann:secret", "plain"),
            ("ann:$apr1$Zkcx$0x", "MD5"),
            ("ann:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "SHA-1"),
            ("ann:$6$salt$hash", "SHA-2"),
            ("ann:$2y$04$short", "bcrypt"),
            ("ann:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ", "argon2"),
        ] {
            let error = People::parse(&format!("# first\n{line}\n")).unwrap_err();
            let message = error.to_string();
            assert!(message.contains("line 2") && message.contains(named), "{line}: {message}");
            assert!(!message.contains("secret"), "a password is not shown: {message}");
        }
        assert!(People::parse("# nobody\n").unwrap_err().to_string().contains("nobody"));
        let twice = bcrypt::hash("right", 4).unwrap();
        let error = People::parse(&format!("ann:{twice}\nann:{twice}\n")).unwrap_err();
        assert!(error.to_string().contains("ann"), "{error}");
    }
}
