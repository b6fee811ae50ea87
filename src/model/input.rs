//! The bounds of what operators write: amounts, e-mail addresses, names, notes.
//!
//! The admin API and the command line both check their input here, so that neither accepts a value that the other
//! refuses. What other programs write into the shared tables is not checked.

use std::fmt;

use super::Cents;

/// The largest credit, debit or opening balance, in cents. A larger one is taken for a typing error.
pub const MAX_AMOUNT: Cents = Cents(1_000_000_000_000);
/// The longest e-mail address, in bytes of UTF-8 (RFC 5321 §4.5.3.1.3, less the angle brackets).
const MAX_EMAIL_BYTES: usize = 254;
const MAX_NAME_CHARS: usize = 200;
const MAX_NOTE_CHARS: usize = 500;
const MAX_ACTOR_CHARS: usize = 128;
/// The longest name of an API, in bytes of ASCII.
const MAX_API_NAME_BYTES: usize = 128;

/// Why a value is refused. `Display` completes a sentence that begins with the name of the field: "must be …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// Not a whole number of cents in this range, both ends included.
    Amount {
        /// The smallest amount that is accepted.
        least: Cents,
    },
    /// Not an e-mail address.
    Email,
    /// Nothing, or only white space.
    Empty,
    /// More characters than this.
    TooLong {
        /// How many characters are accepted.
        max_chars: usize,
    },
    /// Line breaks or other control characters.
    ControlCharacters,
    /// Not a name of an API.
    ApiName,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputError::Amount { least } => {
                write!(f, "must be a whole number of cents, from {} to {}", least.0, MAX_AMOUNT.0)
            }
            InputError::Email => write!(
                f,
                "must be an e-mail address such as ada@example.com, without spaces and at most {MAX_EMAIL_BYTES} bytes long"
            ),
            InputError::Empty => f.write_str("must not be empty"),
            InputError::TooLong { max_chars } => write!(f, "must not be longer than {max_chars} characters"),
            InputError::ControlCharacters => f.write_str("must not have line breaks or other control characters"),
            InputError::ApiName => {
                write!(f, "must be 1 to {MAX_API_NAME_BYTES} printable ASCII characters, without spaces at the ends")
            }
        }
    }
}

impl std::error::Error for InputError {}

/// A credit or debit, in cents: from 1 to [`MAX_AMOUNT`].
///
/// # Errors
/// [`InputError::Amount`].
pub fn amount(cents: i64) -> Result<Cents, InputError> {
    in_range(Cents(1), cents)
}

/// What a new wallet holds, in cents: from 0 to [`MAX_AMOUNT`].
///
/// # Errors
/// [`InputError::Amount`].
pub fn opening_balance(cents: i64) -> Result<Cents, InputError> {
    in_range(Cents::ZERO, cents)
}

fn in_range(least: Cents, cents: i64) -> Result<Cents, InputError> {
    if (least..=MAX_AMOUNT).contains(&Cents(cents)) { Ok(Cents(cents)) } else { Err(InputError::Amount { least }) }
}

/// A user's e-mail address: text before and after a single `@`, without white space. Whether mail reaches it is not
/// known.
///
/// # Errors
/// [`InputError::Email`].
pub fn email(text: &str) -> Result<String, InputError> {
    let has_parts = text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    let is_single = text.matches('@').count() == 1;
    let is_visible = !text.contains(|c: char| c.is_control() || c.is_whitespace());
    let fits = text.len() <= MAX_EMAIL_BYTES;
    if has_parts && is_single && is_visible && fits { Ok(text.to_owned()) } else { Err(InputError::Email) }
}

/// A user's name: a person's or a company's, 1 to 200 characters.
///
/// # Errors
/// [`InputError::Empty`], [`InputError::TooLong`] or [`InputError::ControlCharacters`].
pub fn name(text: &str) -> Result<String, InputError> {
    required_text(text, MAX_NAME_CHARS)
}

/// Why an entry was made: at most 500 characters; may be empty.
///
/// # Errors
/// [`InputError::TooLong`] or [`InputError::ControlCharacters`].
pub fn note(text: &str) -> Result<String, InputError> {
    optional_text(text, MAX_NOTE_CHARS)
}

/// Who made an entry: 1 to 128 characters.
///
/// # Errors
/// [`InputError::Empty`], [`InputError::TooLong`] or [`InputError::ControlCharacters`].
pub fn actor(text: &str) -> Result<String, InputError> {
    required_text(text, MAX_ACTOR_CHARS)
}

/// The name of an API: printable ASCII, so that a header can carry it.
///
/// # Errors
/// [`InputError::ApiName`].
pub fn api_name(text: &str) -> Result<String, InputError> {
    let fits = (1..=MAX_API_NAME_BYTES).contains(&text.len()) && text.trim_matches(' ') == text;
    let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if fits && is_printable { Ok(text.to_owned()) } else { Err(InputError::ApiName) }
}

fn required_text(text: &str, max_chars: usize) -> Result<String, InputError> {
    if text.trim().is_empty() { Err(InputError::Empty) } else { optional_text(text, max_chars) }
}

fn optional_text(text: &str, max_chars: usize) -> Result<String, InputError> {
    if text.chars().count() > max_chars {
        return Err(InputError::TooLong { max_chars });
    }
    if text.contains(char::is_control) {
        return Err(InputError::ControlCharacters);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_both_ends_of_their_range() {
        assert_eq!([amount(1), amount(MAX_AMOUNT.0)], [Ok(Cents(1)), Ok(MAX_AMOUNT)]);
        for cents in [0, -1, i64::MIN, MAX_AMOUNT.0 + 1, i64::MAX] {
            assert_eq!(amount(cents), Err(InputError::Amount { least: Cents(1) }), "{cents}");
        }
        assert_eq!([opening_balance(0), opening_balance(MAX_AMOUNT.0)], [Ok(Cents(0)), Ok(MAX_AMOUNT)]);
        assert!(opening_balance(-1).is_err() && opening_balance(MAX_AMOUNT.0 + 1).is_err());
        let text = opening_balance(-1).unwrap_err().to_string();
        assert_eq!(text, "must be a whole number of cents, from 0 to 1000000000000");
    }

    #[test]
    fn an_email_address_has_two_parts_and_no_white_space() {
        let longest = format!("a@{}", "b".repeat(252));
        for good in ["ada@example.com", "a@b", "zoë@bücher.example", &longest] {
            assert_eq!(email(good).as_deref(), Ok(good));
        }
        let too_long = format!("{longest}b");
        for bad in ["", "ada", "@b", "a@", "a@b@c", "a b@c", "a@b ", "a@b\n", "a\u{a0}@b", &too_long] {
            assert_eq!(email(bad), Err(InputError::Email), "{bad:?}");
        }
    }

    #[test]
    fn texts_are_counted_in_characters_and_have_no_control_characters() {
        type Check = fn(&str) -> Result<String, InputError>;
        let checks: [(Check, usize, bool); 3] = [(name, 200, true), (note, 500, false), (actor, 128, true)];
        for (check, max_chars, is_required) in checks {
            assert!(check(&"ë".repeat(max_chars)).is_ok());
            assert_eq!(check(&"ë".repeat(max_chars + 1)), Err(InputError::TooLong { max_chars }));
            assert_eq!(check("a\u{1b}[2J"), Err(InputError::ControlCharacters));
            assert_eq!(check("a\nb"), Err(InputError::ControlCharacters));
            assert_eq!((check("").is_err(), check(" ").is_err()), (is_required, is_required));
        }
    }

    #[test]
    fn the_name_of_an_api_is_printable_ascii() {
        assert!(api_name("weather v2").is_ok() && api_name(&"a".repeat(128)).is_ok());
        for bad in ["", " weather", "weather ", "wétter", "a\tb", &"a".repeat(129)] {
            assert_eq!(api_name(bad), Err(InputError::ApiName), "{bad:?}");
        }
    }
}
