//! What tells a request that is sent once more from a new one: its `Idempotency-Key`, and what it asks for. Both are
//! kept as digests only, and neither says anything in `Debug`.

use std::fmt;

use sha2::{Digest, Sha256};

/// Characters of a key, at most.
const MOST_CHARS: usize = 255;

/// An `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), as its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey([u8; 32]);

/// A field that is there, and is not one usable `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKey;

impl IdempotencyKey {
    /// The key in the lines of the field. `None`: there is none.
    ///
    /// # Errors
    /// More than one line, or one that is no key.
    pub fn of_lines<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<IdempotencyKey>, NoKey> {
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => IdempotencyKey::parse(line).map(Some).ok_or(NoKey),
            (Some(_), Some(_)) => Err(NoKey),
        }
    }

    /// The key in a field's value: 1 to 255 visible ASCII characters, in quotes as RFC 8941 §3.3.3 writes a string, or
    /// as they are. With and without quotes it is the same key. `None`: anything else.
    pub fn parse(value: &[u8]) -> Option<IdempotencyKey> {
        let value = value.trim_ascii();
        let key = match value.strip_prefix(b"\"") {
            Some(quoted) => unquoted(quoted)?,
            None if value.contains(&b'"') => return None,
            None => value.to_vec(),
        };
        let fits = (1..=MOST_CHARS).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        fits.then(|| IdempotencyKey(Sha256::digest(&key).into()))
    }

    /// What stands for it in the file.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What stands before the closing quote, which must be the last character.
fn unquoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter().copied();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(key),
            b'\\' => key.push(bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            byte => key.push(byte),
        }
    }
}

/// What a request asks for, as a SHA-256: two requests with the same one are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestDigest([u8; 32]);

impl RequestDigest {
    /// Of its parts, in an order that is always the same; `None` is a part that is not there. No two lists of parts run
    /// together.
    pub fn of<'a>(parts: impl IntoIterator<Item = Option<&'a [u8]>>) -> RequestDigest {
        let mut digest = Sha256::new();
        for part in parts {
            match part {
                Some(bytes) => {
                    digest.update([1]);
                    digest.update((bytes.len() as u64).to_be_bytes());
                    digest.update(bytes);
                }
                None => digest.update([0]),
            }
        }
        RequestDigest(digest.finalize().into())
    }

    /// What stands for it in the file.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A request that its client may send again under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// The key; good for one user and one API.
    pub key: IdempotencyKey,
    /// What is asked for under it.
    pub request: RequestDigest,
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        let key = |text: &str| IdempotencyKey::parse(text.as_bytes());
        assert_eq!(key("\"8e03978e-40d5\""), key("8e03978e-40d5"));
        assert_eq!(key("  a  "), key("a"));
        assert_eq!(key(r#""a\"b\\c""#), IdempotencyKey::parse(br#""a\"b\\c""#));
        assert_ne!(key("a"), key("A"));
        assert!(
            key("a").is_some() && key(&"x".repeat(255)).is_some() && key(&format!("\"{}\"", "x".repeat(255))).is_some()
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "x".repeat(256);
        let odd = [
            "",
            " ",
            "\"\"",
            "\"",
            "\"a",
            "a\"",
            "a\"b",
            "a b",
            "\"a b\"",
            "\"a\\b\"",
            "\"a\\",
            "\"a\"b",
            "\"a\";b=1",
            "a\tb",
            "ä",
            &long,
        ];
        for text in odd {
            assert_eq!(IdempotencyKey::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn one_line_is_one_key_and_two_are_none() {
        let key = |lines: &[&'static [u8]]| IdempotencyKey::of_lines(lines.iter().copied());
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b"a"]), Ok(IdempotencyKey::parse(b"a")));
        for odd in [&[&b"a"[..], b"a"][..], &[b"a", b""], &[b""], &[b"a b"]] {
            assert_eq!(key(odd), Err(NoKey), "{odd:?}");
        }
    }

    #[test]
    fn no_two_lists_of_parts_run_together() {
        let digest = |parts: &[Option<&str>]| RequestDigest::of(parts.iter().map(|part| part.map(str::as_bytes))).0;
        let lists: [&[Option<&str>]; 6] = [
            &[Some("ab"), None],
            &[Some("a"), Some("b")],
            &[None, Some("ab")],
            &[Some("ab"), Some("")],
            &[Some("ab")],
            &[],
        ];
        for (place, one) in lists.iter().enumerate() {
            for other in &lists[place + 1..] {
                assert_ne!(digest(one), digest(other), "{one:?} {other:?}");
            }
        }
        assert_eq!(digest(lists[0]), digest(lists[0]));
    }

    #[test]
    fn neither_key_nor_request_is_in_debug() {
        let key = IdempotencyKey::parse(b"secret").unwrap();
        let text = format!("{:?}", IdempotentRequest { key, request: RequestDigest::of([]) });
        assert_eq!(text, "IdempotentRequest { key: IdempotencyKey(…), request: RequestDigest(…) }");
    }
}
