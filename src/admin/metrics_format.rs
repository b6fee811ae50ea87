//! Which format of the metrics a client prefers, from `Accept` (RFC 9110 §12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

use crate::telemetry::metrics::Format;

/// OpenMetrics if the client ranks it higher, otherwise Prometheus text, which is also the answer to a client that
/// accepts neither. Of equal qualities the one from the more specific media range counts more:
/// `application/openmetrics-text, */*` asks for OpenMetrics.
pub(super) fn preferred_format(headers: &HeaderMap) -> Format {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges: Vec<MediaRange<'_>> =
        lines.flat_map(|line| split_unquoted(line, ',')).filter_map(MediaRange::parse).collect();
    let open_metrics = rank(&ranges, ["application", "openmetrics-text"], "1.0.0");
    let text = rank(&ranges, ["text", "plain"], "0.0.4");
    if open_metrics > text { Format::OpenMetrics } else { Format::PrometheusText }
}

/// The quality that the client gives to a media type, and how specific the media range is that says so. `None`: the
/// client does not accept the type.
fn rank(ranges: &[MediaRange<'_>], media_type: [&str; 2], version: &str) -> Option<(u16, u8)> {
    let matching = ranges.iter().filter_map(|range| Some((range.specificity(media_type, version)?, range.quality)));
    // The most specific range decides, whatever the others say.
    let (specificity, quality) = matching.max()?;
    (quality > 0).then_some((quality, specificity))
}

/// One element of `Accept`.
struct MediaRange<'a> {
    media_type: [&'a str; 2],
    version: Option<&'a str>,
    /// In thousandths.
    quality: u16,
}

impl<'a> MediaRange<'a> {
    /// `None`: not a media range. Parameters other than `version` and `q` are not looked at.
    fn parse(text: &'a str) -> Option<MediaRange<'a>> {
        let mut parts = split_unquoted(text, ';').into_iter().map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = MediaRange { media_type: [kind, subtype], version: None, quality: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("version") {
                range.version = Some(value);
            } else if name.trim().eq_ignore_ascii_case("q") {
                range.quality = quality(value)?;
            }
        }
        Some(range)
    }

    /// From 1 for `*/*` to 4 for type and version; `None` when the range does not match.
    fn specificity(&self, media_type: [&str; 2], version: &str) -> Option<u8> {
        let [kind, subtype] = self.media_type;
        match (kind, subtype, self.version) {
            ("*", "*", _) => Some(1),
            (kind, _, _) if !kind.eq_ignore_ascii_case(media_type[0]) => None,
            (_, "*", _) => Some(2),
            (_, subtype, _) if !subtype.eq_ignore_ascii_case(media_type[1]) => None,
            (_, _, None) => Some(3),
            (_, _, Some(wanted)) => (wanted == version).then_some(4),
        }
    }
}

/// A `qvalue` in thousandths: `0.25` is 250.
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// The parts between separators that are not inside a quoted string.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if is_quoted && letter == '\\' {
            is_escaped = true;
        } else if letter == '"' {
            is_quoted = !is_quoted;
        } else if letter == separator && !is_quoted {
            parts.push(&text[from..at]);
            from = at + separator.len_utf8();
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(lines: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        preferred_format(&headers)
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        for lines in [
            &["application/openmetrics-text"][..],
            &["application/openmetrics-text; version=1.0.0; charset=utf-8"],
            &["Application/OpenMetrics-Text;Version=\"1.0.0\""],
            &["application/openmetrics-text, */*"],
            &["application/*, text/plain;q=0.9"],
            &["text/plain;q=0.5", "application/openmetrics-text;q=0.6"],
            &["text/*;q=0.3, text/plain;q=0, */*;q=0.2"],
            // Prometheus 2 and 3.
            &["application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
               text/plain;version=0.0.4;q=0.5,*/*;q=0.1"],
            &["application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
               application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
               text/plain;version=0.0.4;q=0.3,*/*;q=0.2"],
        ] {
            assert_eq!(preferred(lines), Format::OpenMetrics, "{lines:?}");
        }
    }

    #[test]
    fn all_others_get_prometheus_text() {
        for lines in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/plain"],
            &["text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.9"],
            &["text/plain, application/openmetrics-text"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=0, application/*;q=1"],
            &["application/openmetrics-text;version=0.0.1, text/plain;q=0.1"],
            &["application/openmetrics-text;q=2, */*;q=0.1"],
            &["application/openmetrics-text;q=0.5;version=1.0.0, */*;q=0.6"],
            &["x/y;a=\", application/openmetrics-text, \\\" \""],
            &["application/json"],
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
        ] {
            assert_eq!(preferred(lines), Format::PrometheusText, "{lines:?}");
        }
    }

    #[test]
    fn a_quality_has_three_decimals_and_is_at_most_one() {
        let read = ["0", "0.", "0.5", "0.05", "0.123", "1", "1.000"].map(quality);
        assert_eq!(read, [0, 0, 500, 50, 123, 1000, 1000].map(Some));
        assert_eq!(["", "2", "1.1", "0.1234", "-1", "0.x", "1e3"].map(quality), [None; 7]);
    }
}
