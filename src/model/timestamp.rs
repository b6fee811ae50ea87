//! Moments: milliseconds since 1970 in Keytoll's tables, SQLAlchemy's `DATETIME` text in the shared ones, RFC 3339 in the API.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    unix_ms: i64,
}

impl Timestamp {
    /// The moment that lies `unix_ms` milliseconds after 1970 began.
    pub fn from_unix_ms(unix_ms: i64) -> Timestamp {
        Timestamp { unix_ms }
    }

    /// Milliseconds since 1970 began.
    pub fn unix_ms(self) -> i64 {
        self.unix_ms
    }

    /// `2026-01-31T12:00:00.250Z` (RFC 3339 §5.6, always UTC, always milliseconds).
    pub fn to_rfc3339(self) -> String {
        let text = self.civil().strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string();
        format!("{text}Z")
    }

    /// `2026-01-31 12:00:00.250000`: naive UTC, the only form that SQLAlchemy's SQLite `DateTime` reads back.
    pub fn to_sqlalchemy(self) -> String {
        self.civil().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
    }

    /// Reads RFC 3339 with any offset, as a client of the API writes it. `None`: not such a time.
    pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
        let moment: jiff::Timestamp = text.parse().ok()?;
        Some(Timestamp { unix_ms: moment.as_millisecond() })
    }

    /// Reads the text of a shared `DATETIME` column, naive UTC. `None`: not such a text.
    pub fn parse_sqlalchemy(text: &str) -> Option<Timestamp> {
        let civil: DateTime = text.parse().ok()?;
        let moment = TimeZone::UTC.to_timestamp(civil).ok()?;
        Some(Timestamp { unix_ms: moment.as_millisecond() })
    }

    /// Moments outside of the years -9999 to 9999 are shown as the nearest end of that range.
    fn civil(self) -> DateTime {
        let moment = jiff::Timestamp::from_millisecond(self.unix_ms).unwrap_or(if self.unix_ms < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        TimeZone::UTC.to_datetime(moment)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_three_texts() {
        let moment = Timestamp::from_unix_ms(1_769_860_800_250);
        assert_eq!(moment.to_rfc3339(), "2026-01-31T12:00:00.250Z");
        assert_eq!(moment.to_sqlalchemy(), "2026-01-31 12:00:00.250000");
        assert_eq!(Timestamp::parse_rfc3339("2026-01-31T13:00:00.25+01:00"), Some(moment));
        assert_eq!(Timestamp::parse_sqlalchemy("2026-01-31 12:00:00.250000"), Some(moment));
        assert_eq!(
            Timestamp::parse_sqlalchemy("2026-01-31 12:00:00"),
            Some(Timestamp::from_unix_ms(1_769_860_800_000))
        );
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_moment_out_of_range_is_still_shown() {
        assert!(Timestamp::from_unix_ms(i64::MAX).to_rfc3339().starts_with("9999-12-"));
    }
}
