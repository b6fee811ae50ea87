//! API keys: as presented, as stored, as issued. None of them says anything in `Debug`.
//!
//! An issued key is `kt_`, 30 base62 characters of randomness and 6 base62 characters of CRC-32 over what stands
//! before them, so that a mistyped key is told from a good one without a look-up. Keys of any other shape are the
//! application's own and are looked up as they are.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARS: usize = 30;
const CHECK_CHARS: usize = 6;
const DIGEST_MARK: &str = "sha256:";

/// An API key as a client presented it. Secret. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    text: Arc<str>,
    /// Computed once: the cache, the look-up and the hold all ask for it.
    digest: KeyDigest,
}

impl ApiKey {
    /// A presented key. `None`: empty, or a text that can be no key because it is a stored digest (`sha256:…`).
    pub fn new(text: &str) -> Option<ApiKey> {
        let is_digest = text.get(..DIGEST_MARK.len()).is_some_and(|head| head.eq_ignore_ascii_case(DIGEST_MARK));
        (!text.is_empty() && !is_digest).then(|| ApiKey::of(text))
    }

    fn of(text: &str) -> ApiKey {
        ApiKey { text: text.into(), digest: KeyDigest::of(text) }
    }

    /// SHA-256 of the key.
    pub fn digest(&self) -> KeyDigest {
        self.digest
    }

    /// The key itself, as `api_keys.key` holds it with `storage = "plain"`.
    pub fn to_stored(&self) -> StoredKey {
        StoredKey(Stored::Text(Arc::clone(&self.text)))
    }

    /// What kind of key it looks like, without a look-up.
    pub fn shape(&self, prefix: &KeyPrefix) -> KeyShape {
        let Some(body) = self.text.strip_prefix(&*prefix.0).and_then(|rest| rest.strip_prefix('_')) else {
            return KeyShape::Foreign;
        };
        if body.len() != RANDOM_CHARS + CHECK_CHARS || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return KeyShape::Foreign;
        }
        let (signed, check) = self.text.split_at(self.text.len() - CHECK_CHARS);
        if check.as_bytes() == check_chars(signed) { KeyShape::Issued } else { KeyShape::Mistyped }
    }

    /// The secret itself, for the look-up and for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

/// What a presented key looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyShape {
    /// The shape of an issued key, and its check digits are right.
    Issued,
    /// The shape of an issued key with wrong check digits: no key of ours.
    Mistyped,
    /// Any other shape: perhaps the application's own.
    Foreign,
}

/// SHA-256 of a key: what the cache is keyed by and, by default, what the database holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    fn of(text: &str) -> KeyDigest {
        KeyDigest(Sha256::digest(text.as_bytes()).into())
    }

    /// `sha256:` and 64 hex digits, as `api_keys.key` holds it.
    pub fn to_stored(self) -> StoredKey {
        StoredKey(Stored::Digest(self))
    }

    fn to_text(self) -> String {
        let mut text = String::with_capacity(DIGEST_MARK.len() + 64);
        text.push_str(DIGEST_MARK);
        for byte in self.0 {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        text
    }

    /// The digest that a text is the stored form of, to the letter.
    fn from_text(text: &str) -> Option<KeyDigest> {
        let digits = text.strip_prefix(DIGEST_MARK)?.as_bytes();
        let value = |digit: u8| HEX.iter().position(|known| *known == digit).and_then(|value| u8::try_from(value).ok());
        let mut digest = [0; 32];
        if digits.len() != 2 * digest.len() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(KeyDigest(digest))
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The text of `api_keys.key`: a digest, or the key itself. Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey(Stored);

/// A digest is kept as its bytes: its text is wanted only when a hold is not sure of its key.
#[derive(Clone, PartialEq, Eq)]
enum Stored {
    Digest(KeyDigest),
    Text(Arc<str>),
}

impl StoredKey {
    /// The text of a row's `key` column.
    pub fn from_column(text: &str) -> StoredKey {
        StoredKey(KeyDigest::from_text(text).map_or_else(|| Stored::Text(text.into()), Stored::Digest))
    }

    /// The text, for comparing in SQL.
    pub fn expose(&self) -> Cow<'_, str> {
        match &self.0 {
            Stored::Digest(digest) => Cow::Owned(digest.to_text()),
            Stored::Text(text) => Cow::Borrowed(text),
        }
    }

    /// Whether the column holds a digest rather than the key itself.
    pub fn is_digest(&self) -> bool {
        match &self.0 {
            Stored::Digest(_) => true,
            Stored::Text(text) => text.starts_with(DIGEST_MARK),
        }
    }

    /// What may be shown of a stored key that no hint was kept for: the first 8 digits of its digest.
    pub fn digest_hint(&self) -> KeyHint {
        let text = self.expose();
        let stored = if text.starts_with(DIGEST_MARK) { text } else { Cow::Owned(KeyDigest::of(&text).to_text()) };
        KeyHint(stored.get(..DIGEST_MARK.len() + 8).unwrap_or(&stored).to_owned())
    }
}

/// What may be shown of a key: enough to tell keys apart, not enough to use one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct KeyHint(pub String);

/// What issued keys begin with, without the underscore: `kt` by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(Box<str>);

/// A prefix that keys cannot begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixError;

impl KeyPrefix {
    /// A prefix of 1 to 16 of `[A-Za-z0-9]`.
    ///
    /// # Errors
    /// Any other text.
    pub fn new(text: &str) -> Result<KeyPrefix, PrefixError> {
        let fits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if fits { Ok(KeyPrefix(text.into())) } else { Err(PrefixError) }
    }
}

/// A key that was just made, with what will be kept of it.
#[derive(Clone)]
pub struct IssuedKey {
    /// The key itself, shown once.
    pub key: ApiKey,
    /// What is shown of it later.
    pub hint: KeyHint,
}

impl IssuedKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub fn generate(prefix: &KeyPrefix) -> Result<IssuedKey, getrandom::Error> {
        let mut text = format!("{}_", prefix.0);
        let end = text.len() + RANDOM_CHARS;
        let mut pool = [0_u8; 64];
        while text.len() < end {
            getrandom::fill(&mut pool)?;
            // 248 is the largest multiple of 62 in a byte: dropping the rest keeps every character as likely as any other.
            let chars =
                pool.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
            text.extend(chars.take(end - text.len()));
        }
        for byte in check_chars(&text) {
            text.push(char::from(byte));
        }
        let hint = KeyHint(format!("{}_…{}", prefix.0, &text[text.len() - 4..]));
        Ok(IssuedKey { key: ApiKey::of(&text), hint })
    }
}

fn check_chars(signed: &str) -> [u8; CHECK_CHARS] {
    let mut rest = crc32fast::hash(signed.as_bytes());
    let mut chars = [b'0'; CHECK_CHARS];
    for place in chars.iter_mut().rev() {
        *place = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    chars
}

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
redacted!(ApiKey, StoredKey, KeyDigest, IssuedKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> KeyPrefix {
        KeyPrefix::new("kt").unwrap()
    }

    #[test]
    fn an_issued_key_has_its_shape_and_every_mistyped_one_is_noticed() {
        let issued = IssuedKey::generate(&prefix()).unwrap();
        let text = issued.key.expose().to_owned();
        assert_eq!(text.len(), 3 + 36);
        assert_eq!(issued.key.shape(&prefix()), KeyShape::Issued);
        for place in 3..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[place] = if typed[place] == b'x' { b'y' } else { b'x' };
            let typed = ApiKey::new(std::str::from_utf8(&typed).unwrap()).unwrap();
            assert_eq!(typed.shape(&prefix()), KeyShape::Mistyped);
        }
    }

    #[test]
    fn other_shapes_are_the_applications_own() {
        for text in ["app-weather-000001", "kt_short", "kt", "kt_000000000000000000000000000000-00000"] {
            assert_eq!(ApiKey::new(text).unwrap().shape(&prefix()), KeyShape::Foreign);
        }
    }

    #[test]
    fn a_leaked_digest_is_not_a_key() {
        assert!(ApiKey::new("sha256:00").is_none());
        assert!(ApiKey::new("SHA256:00").is_none());
        assert!(ApiKey::new("").is_none());
    }

    #[test]
    fn secrets_say_nothing_in_debug() {
        let issued = IssuedKey::generate(&prefix()).unwrap();
        let stored = issued.key.digest().to_stored();
        let shown = format!("{:?} {:?} {:?} {:?}", issued.key, issued.key.digest(), stored, issued);
        assert_eq!(shown, "ApiKey(…) KeyDigest(…) StoredKey(…) IssuedKey(…)");
    }

    #[test]
    fn the_digest_is_plain_sha256() {
        let digest = ApiKey::new("abc").unwrap().digest().to_stored();
        assert_eq!(digest.expose(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.digest_hint(), KeyHint("sha256:ba7816bf".into()));
        assert_eq!(StoredKey::from_column("abc").digest_hint(), KeyHint("sha256:ba7816bf".into()));
    }

    #[test]
    fn a_stored_key_is_its_column_to_the_letter() {
        let digest = ApiKey::new("abc").unwrap().digest().to_stored();
        assert!(StoredKey::from_column(&digest.expose()) == digest);
        let text = digest.expose();
        let upper = text.replace("ba78", "BA78");
        for column in [&*text, &*upper, &text[..70], &format!("{text}0"), "sha256:", "sha256:zz", "a-plain-key", ""] {
            let stored = StoredKey::from_column(column);
            assert_eq!(stored.expose(), column);
            assert_eq!(stored.is_digest(), column.starts_with("sha256:"));
        }
    }
}
