//! Who may log in: SCRAM verifiers, never passwords.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};

use super::warehouse::Warehouse;
use crate::error::{Error, Kind, Result};

const FILE: &str = "_clientele/users.json";
const ITERATIONS: u32 = 4096;
const PASSWORD_CHARS_MIN: usize = 8;

/// A SCRAM-SHA-256 verifier (RFC 5802): proves a password without holding it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    /// Rounds of the key derivation.
    pub iterations: u32,
    /// Salt, base64.
    pub salt: String,
    /// SHA-256 of the client key, base64.
    pub stored_key: String,
    /// Server key, base64.
    pub server_key: String,
}

/// A person or program that may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// How the password is checked.
    pub verifier: Verifier,
}

/// Every user of a warehouse, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// By name.
    pub users: BTreeMap<String, User>,
}

impl Verifier {
    /// The verifier of `password` under a fresh salt.
    pub fn new(password: &str) -> Result<Self> {
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(|e| Error::internal(format!("no random bytes: {e}")))?;
        Ok(Self::with_salt(password, &salt, ITERATIONS))
    }

    fn with_salt(password: &str, salt: &[u8], iterations: u32) -> Self {
        // As PostgreSQL does: a password that cannot be prepared is used as it is.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0u8; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, prepared.as_bytes(), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let server_key = hmac::sign(&key, b"Server Key");
        Self {
            iterations,
            salt: STANDARD.encode(salt),
            stored_key: STANDARD.encode(stored_key),
            server_key: STANDARD.encode(server_key),
        }
    }
}

impl Warehouse {
    /// Every user; none in a warehouse that only its own machine may use.
    pub async fn users(&self) -> Result<Users> {
        match self.root().read(FILE).await? {
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
            None => Ok(Users::default()),
        }
    }

    /// Adds a user, or gives an existing one another password when `replace` is set.
    pub async fn set_user(&self, name: &str, password: &str, replace: bool) -> Result<()> {
        if name.is_empty() || name.len() > 63 || name.chars().any(|c| c.is_control()) {
            return Err(Error::new(
                Kind::InvalidParameter,
                "a user name has 1 to 63 bytes and no control characters",
            ));
        }
        if password.chars().count() < PASSWORD_CHARS_MIN {
            return Err(Error::new(
                Kind::InvalidParameter,
                format!("the password is too short: {PASSWORD_CHARS_MIN} characters are the least"),
            ));
        }
        let mut users = self.users().await?;
        if users.users.contains_key(name) != replace {
            return Err(if replace {
                Error::new(Kind::UndefinedObject, format!("user {name:?} does not exist"))
            } else {
                Error::new(Kind::DuplicateObject, format!("user {name:?} already exists"))
                    .hint("clientele user password changes a password")
            });
        }
        users.users.insert(name.to_owned(), User { verifier: Verifier::new(password)? });
        self.root().replace_private(FILE, serde_json::to_vec_pretty(&users)?).await
    }

    /// Removes a user; connections that are open stay open.
    pub async fn remove_user(&self, name: &str) -> Result<()> {
        let mut users = self.users().await?;
        if users.users.remove(name).is_none() {
            return Err(Error::new(Kind::UndefinedObject, format!("user {name:?} does not exist")));
        }
        self.root().replace_private(FILE, serde_json::to_vec_pretty(&users)?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: user "user", password "pencil", 4096 rounds.
    #[test]
    fn the_verifier_agrees_with_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::with_salt("pencil", &salt, 4096);
        let key =
            hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&verifier.server_key).unwrap());
        let message = concat!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,",
            "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        );
        let signature = STANDARD.encode(hmac::sign(&key, message.as_bytes()));
        assert_eq!(signature, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }
}
