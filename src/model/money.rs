//! Money: whole cents, checked.

use std::fmt;

/// An amount in cents, or a price. Arithmetic is checked: money never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Cents(pub i64);

/// A sum that does not fit 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CentsOverflow;

impl Cents {
    /// No money.
    pub const ZERO: Cents = Cents(0);

    /// `self + other`.
    ///
    /// # Errors
    /// When the sum does not fit.
    pub fn checked_add(self, other: Cents) -> Result<Cents, CentsOverflow> {
        self.0.checked_add(other.0).map(Cents).ok_or(CentsOverflow)
    }

    /// `self - other`; may be negative.
    ///
    /// # Errors
    /// When the difference does not fit.
    pub fn checked_sub(self, other: Cents) -> Result<Cents, CentsOverflow> {
        self.0.checked_sub(other.0).map(Cents).ok_or(CentsOverflow)
    }

    /// Whether a call at this price is free.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// For people: `$5.00`, `-$0.05`.
impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        write!(f, "{sign}${}.{:02}", cents / 100, cents % 100)
    }
}

impl fmt::Display for CentsOverflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the amount does not fit 64 bits of cents")
    }
}

impl std::error::Error for CentsOverflow {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_as_people_write_it() {
        assert_eq!(Cents(500).to_string(), "$5.00");
        assert_eq!(Cents(-5).to_string(), "-$0.05");
        assert_eq!(Cents(i64::MIN).to_string(), "-$92233720368547758.08");
    }

    #[test]
    fn money_never_wraps() {
        assert_eq!(Cents(i64::MAX).checked_add(Cents(1)), Err(CentsOverflow));
        assert_eq!(Cents(i64::MIN).checked_sub(Cents(1)), Err(CentsOverflow));
        assert_eq!(Cents(2).checked_sub(Cents(5)), Ok(Cents(-3)));
    }
}
