//! Passwords as the server keeps them: made here, and recognised here.
//!
//! The server never gets a password in clear: `IDENTIFIED WITH caching_sha2_password AS 0x…` brings the finished hash,
//! so none is in a packet, in a statement that fails to parse (which the performance schema shows as it came), in a
//! processlist or in a log. The same function tells whether an account has a certain password, by the hash in
//! `mysql.user` and without a login, which a locked account, another host or a client certificate would refuse.
//!
//! A hash is `$A$` + thousands of rounds (three hexadecimal digits) + `$` + salt (20 bytes) + 43 digits: SHA-crypt
//! (<https://www.akkadia.org/drepper/SHA-crypt.txt>), whose crates cut a salt after 16 bytes, as crypt(3) does and MySQL
//! does not (`mysys/crypt_genhash_impl.cc`).

use std::collections::HashMap;

use common::mysql::Password;
use common::sql::Account as Name;
use rand::RngExt;
use sha2::{Digest, Sha256};

const SALT_LENGTH: usize = 20;
const DIGITS_LENGTH: usize = 43;
/// The server's default for `caching_sha2_password_digest_rounds` is 5000 in 8.4 and 10000 in 9.7; both take either.
const THOUSANDS: u32 = 10;
/// Unit tests walk through thousands of changes, each with several hashes.
const THOUSAND: u32 = if cfg!(test) { 10 } else { 1000 };
/// No more is believed: a thousand times as many as the server makes itself would keep a core for seconds.
const THOUSANDS_MAX: u32 = 0x100;
/// Longest password that the plugin takes.
const LENGTH_MAX: usize = 256;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a password cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Nothing at all: anybody could log in.
    #[error("the password is empty")]
    Empty,
    /// More than the plugin takes.
    #[error("the password is longer than 256 bytes")]
    Long,
    /// Clients send it up to there.
    #[error("the password holds a NUL character")]
    Nul,
}

/// Whether accounts can have this password.
///
/// # Errors
/// Why not.
pub fn check(password: &Password) -> Result<(), Unfit> {
    let text = password.expose();
    if text.is_empty() {
        Err(Unfit::Empty)
    } else if text.len() > LENGTH_MAX {
        Err(Unfit::Long)
    } else if text.contains('\0') {
        Err(Unfit::Nul)
    } else {
        Ok(())
    }
}

/// The hash of a password, as `authentication_string` holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(Vec<u8>);

impl Hash {
    /// What a server holds.
    pub fn held(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Makes one with a salt of its own.
    pub fn make(password: &Password, random: &mut impl RngExt) -> Self {
        let salt: [u8; SALT_LENGTH] =
            std::array::from_fn(|_| ALPHABET.get(random.random_range(0..ALPHABET.len())).copied().unwrap_or(b'.'));
        Self::with(password, &salt, THOUSANDS)
    }

    fn with(password: &Password, salt: &[u8], thousands: u32) -> Self {
        let mut bytes = format!("$A${thousands:03X}$").into_bytes();
        bytes.extend_from_slice(salt);
        bytes.extend_from_slice(&crypt(password.expose().as_bytes(), salt, thousands.saturating_mul(THOUSAND)));
        Self(bytes)
    }

    /// One of few rounds, always the same.
    #[cfg(test)]
    pub(crate) fn quick(password: &Password) -> Self {
        Self::with(password, b"saltsaltsaltsaltsalt", 1)
    }

    /// Whether there is a password at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is of this password. Takes milliseconds: see [`Known`].
    pub fn is_of(&self, password: &Password) -> bool {
        self.parts().is_some_and(|(thousands, salt)| Self::with(password, salt, thousands) == *self)
    }

    fn parts(&self) -> Option<(u32, &[u8])> {
        let rest = self.0.strip_prefix(b"$A$")?;
        let (thousands, rest) = rest.split_at_checked(3)?;
        let thousands = u32::from_str_radix(std::str::from_utf8(thousands).ok()?, 16).ok()?;
        let (salt, digits) = rest.strip_prefix(b"$")?.split_at_checked(SALT_LENGTH)?;
        ((1..=THOUSANDS_MAX).contains(&thousands) && digits.len() == DIGITS_LENGTH).then_some((thousands, salt))
    }

    /// As a literal of IDENTIFIED … AS.
    pub(crate) fn literal(&self) -> String {
        format!("0x{}", hex::encode_upper(&self.0))
    }
}

/// Does not show: with a weak password a hash is as good as the password.
impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hash]")
    }
}

/// What was recognised before, so that a resync of ten thousand accounts does not hash for a minute: for each account
/// one digest of hash and password together, from which neither can be had.
#[derive(Debug, Default)]
pub struct Known(HashMap<Name, [u8; 32]>);

impl Known {
    /// As [`Hash::is_of`], at once when it was so the last time.
    pub fn is_of(&mut self, name: &Name, hash: &Hash, password: &Password) -> bool {
        let digest: [u8; 32] =
            Sha256::new().chain_update(&hash.0).chain_update([0]).chain_update(password.expose()).finalize().into();
        if self.0.get(name) == Some(&digest) {
            return true;
        }
        let is = hash.is_of(password);
        if is {
            self.0.insert(name.clone(), digest);
        }
        is
    }

    /// Forgets accounts that are not among these.
    pub fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        self.0.retain(|name, _| keep(name));
    }
}

/// SHA-crypt with SHA-256; the comments are the steps of its description.
fn crypt(password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    let repeated = |digest: &[u8], length: usize| digest.iter().copied().cycle().take(length).collect::<Vec<u8>>();
    // 4 to 8: digest B.
    let second = Sha256::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    // 1 to 3, 9 to 12: digest A.
    let mut first = Sha256::new().chain_update(password).chain_update(salt);
    first.update(repeated(&second, password.len()));
    let mut length = password.len();
    while length > 0 {
        first.update(if length & 1 == 1 { second.as_ref() } else { password });
        length >>= 1;
    }
    let first = first.finalize();
    // 13 to 16: the sequence P.
    let mut digest = Sha256::new();
    for _ in 0..password.len() {
        digest.update(password);
    }
    let passwords = repeated(&digest.finalize(), password.len());
    // 17 to 20: the sequence S.
    let mut digest = Sha256::new();
    for _ in 0..16 + usize::from(first.first().copied().unwrap_or_default()) {
        digest.update(salt);
    }
    let salts = repeated(&digest.finalize(), salt.len());
    // 21: the rounds.
    let mut last = first;
    for round in 0..rounds {
        let (before, after) =
            if round % 2 == 1 { (passwords.as_slice(), last.as_ref()) } else { (last.as_ref(), passwords.as_slice()) };
        let mut digest = Sha256::new().chain_update(before);
        if round % 3 != 0 {
            digest.update(&salts);
        }
        if round % 7 != 0 {
            digest.update(&passwords);
        }
        last = digest.chain_update(after).finalize();
    }
    digits(&last)
}

/// 22: 32 bytes in an order of its own, six bits a digit.
fn digits(digest: &[u8]) -> Vec<u8> {
    const ORDER: [[usize; 3]; 10] = [
        [0, 10, 20],
        [21, 1, 11],
        [12, 22, 2],
        [3, 13, 23],
        [24, 4, 14],
        [15, 25, 5],
        [6, 16, 26],
        [27, 7, 17],
        [18, 28, 8],
        [9, 19, 29],
    ];
    let byte = |index: usize| u32::from(digest.get(index).copied().unwrap_or_default());
    let mut out = Vec::with_capacity(DIGITS_LENGTH);
    let mut push = |mut bits: u32, count: usize| {
        for _ in 0..count {
            out.extend(ALPHABET.get((bits & 63) as usize));
            bits >>= 6;
        }
    };
    for [high, middle, low] in ORDER {
        push((byte(high) << 16) | (byte(middle) << 8) | byte(low), 4);
    }
    push((byte(31) << 8) | byte(30), 3);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_vectors_of_sha_crypt_come_out() {
        for (password, salt, rounds, wanted) in [
            ("Hello world!", "saltstring", 5000, "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
            // What the description cuts to 16 bytes, as it is cut.
            ("Hello world!", "saltstringsaltst", 10_000, "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"),
        ] {
            assert_eq!(crypt(password.as_bytes(), salt.as_bytes(), rounds), wanted.as_bytes());
        }
    }

    #[test]
    fn a_hash_is_of_its_password_only() {
        let mut known = Known::default();
        let name = Name::anywhere("app").unwrap();
        for text in ["x", "pass'word\\", "\u{e9}\u{1f42c}", &"long".repeat(64)] {
            let password = Password::new(text);
            let hash = Hash::make(&password, &mut rand::rng());
            assert_eq!(hash.0.len(), 70);
            assert!(hash.is_of(&password) && !hash.is_of(&Password::new("other")));
            assert!(known.is_of(&name, &hash, &password) && known.is_of(&name, &hash, &password));
            assert!(!known.is_of(&name, &hash, &Password::new("other")));
            assert_eq!(format!("{hash:?}"), "[hash]");
        }
        for held in ["", "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19", "$A$FFF$", "$A$\u{e9}$x"] {
            assert!(!Hash::held(held.as_bytes().to_vec()).is_of(&Password::new("x")), "{held}");
        }
    }

    #[test]
    fn passwords_that_let_in_anybody_are_refused() {
        assert_eq!(check(&Password::new("")), Err(Unfit::Empty));
        assert_eq!(check(&Password::new("a\0b")), Err(Unfit::Nul));
        assert_eq!(check(&Password::new("x".repeat(257))), Err(Unfit::Long));
        assert_eq!(check(&Password::new("x".repeat(256))), Ok(()));
    }
}
