//! Which outcomes are charged: the set of status codes that `charge_on` writes down. No I/O; anybody may use it.

/// The outcomes that are charged: a set of status codes, as `charge_on` writes it (`"2xx"`, `"404"`, `"!429"`).
#[derive(Clone, PartialEq, Eq)]
pub struct ChargeOn {
    /// A bit for each of the codes 100 to 599.
    bits: [u64; 8],
}

/// A pattern that `charge_on` cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeOnError {
    /// The pattern as it was written.
    pub pattern: String,
}

impl ChargeOn {
    /// Reads patterns: a class (`2xx`), a code (`404`), or either with `!` before it, which takes out what any other
    /// pattern puts in, wherever it stands. 101 is charged whenever 200 is, unless it is named itself.
    ///
    /// # Errors
    /// The first pattern that is none of these.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<ChargeOn, ChargeOnError> {
        let mut put = ChargeOn { bits: [0; 8] };
        let mut take = ChargeOn { bits: [0; 8] };
        for pattern in patterns {
            let (set, body) = match pattern.strip_prefix('!') {
                Some(body) => (&mut take, body),
                None => (&mut put, pattern),
            };
            let error = || ChargeOnError { pattern: pattern.to_owned() };
            if let Some(class) = body.strip_suffix("xx") {
                let class: u16 = class.parse().map_err(|_| error())?;
                if !(2..=5).contains(&class) || body.len() != 3 {
                    return Err(error());
                }
                (class * 100..class * 100 + 100).for_each(|code| set.insert(code));
                if class == 2 {
                    set.insert(101);
                }
            } else {
                let code: u16 = body.parse().map_err(|_| error())?;
                if !(100..=599).contains(&code) || body.len() != 3 {
                    return Err(error());
                }
                set.insert(code);
            }
        }
        put.bits.iter_mut().zip(take.bits).for_each(|(bits, taken)| *bits &= !taken);
        Ok(put)
    }

    /// Whether a reply with this status is charged. Codes outside of 100 to 599 are not.
    pub fn contains(&self, status: http::StatusCode) -> bool {
        let Some(bit) = status.as_u16().checked_sub(100).map(usize::from) else { return false };
        self.bits.get(bit / 64).is_some_and(|bits| bits >> (bit % 64) & 1 == 1)
    }

    fn insert(&mut self, code: u16) {
        let bit = usize::from(code - 100);
        self.bits[bit / 64] |= 1 << (bit % 64);
    }
}

/// `["2xx", "3xx", "4xx", "!408", "!429"]`.
impl Default for ChargeOn {
    fn default() -> ChargeOn {
        ChargeOn::parse(["2xx", "3xx", "4xx", "!408", "!429"]).expect("the default patterns are patterns")
    }
}

impl std::fmt::Debug for ChargeOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let charged = (100..600).filter(|code| http::StatusCode::from_u16(*code).is_ok_and(|code| self.contains(code)));
        f.debug_set().entries(charged).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> http::StatusCode {
        http::StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn by_default_a_client_pays_for_its_own_mistakes_and_not_for_the_upstreams() {
        let default = ChargeOn::default();
        for code in [101, 200, 204, 299, 301, 304, 400, 404, 499] {
            assert!(default.contains(status(code)), "{code}");
        }
        for code in [100, 103, 408, 429, 500, 502, 599, 600, 999] {
            assert!(!default.contains(status(code)), "{code}");
        }
    }

    #[test]
    fn what_is_taken_out_stays_out_wherever_it_stands() {
        let set = ChargeOn::parse(["!404", "4xx", "503"]).unwrap();
        assert!(!set.contains(status(404)) && set.contains(status(403)) && set.contains(status(503)));
        assert!(!ChargeOn::parse(["2xx", "!101"]).unwrap().contains(status(101)));
    }

    #[test]
    fn other_patterns_are_refused() {
        for pattern in ["", "xx", "1xx", "6xx", "20", "2000", "ok", "!", "!!200", "+20", "02xx"] {
            assert_eq!(ChargeOn::parse([pattern]).unwrap_err().pattern, pattern);
        }
    }
}
