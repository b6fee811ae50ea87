//! Percent-encoding (RFC 3986 §2.1), for the pieces that read paths and queries.

/// The octet that the `%` at `at` and the two hexadecimal digits after it stand for; `None` when they are not there.
pub(super) fn octet(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |place: usize| bytes.get(place).and_then(|byte| char::from(*byte).to_digit(16));
    let (high, low) = (digit(at + 1)?, digit(at + 2)?);
    u8::try_from(high * 16 + low).ok()
}

/// The bytes of a text with every valid percent-encoding decoded; an invalid one stands for itself.
pub(super) fn decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let encoded = if byte == b'%' { octet(text, at) } else { None };
        at += if encoded.is_some() { 3 } else { 1 };
        Some(encoded.unwrap_or(byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_encodings_are_decoded_and_others_stand_for_themselves() {
        for (text, plain) in [("a%2Fb%3a", "a/b:"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%2541", "%41")] {
            assert_eq!(decode(text.as_bytes()).collect::<Vec<_>>(), plain.as_bytes(), "{text}");
        }
    }
}
