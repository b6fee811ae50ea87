//! Whole-segment patterns and how a path is compared with them.

use std::cmp::Ordering;

use crate::gateway::percent;

/// One segment of a pattern.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// The segment as it is written, and decoded.
    Literal { text: Box<str>, decoded: Box<[u8]> },
    /// `{x}`: any one segment that is not empty.
    Any,
}

/// How far a segment may differ from a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// In percent-encoding.
    Strict,
    /// In percent-encoding and path parameters.
    Loose,
}

impl Pattern {
    pub(super) fn new(segment: &str) -> Pattern {
        if segment.starts_with('{') && segment.ends_with('}') { Pattern::Any } else { Pattern::literal(segment) }
    }

    pub(super) fn literal(segment: &str) -> Pattern {
        Pattern::Literal { text: segment.into(), decoded: percent::decode(segment.as_bytes()).collect() }
    }

    /// Literals before `{x}`. Among literals the longer text first, so that `/a;v=1` is tried before `/a`, which would
    /// match it too.
    pub(super) fn precedence(&self, other: &Pattern) -> Ordering {
        match (self, other) {
            (Pattern::Literal { text: mine, .. }, Pattern::Literal { text: theirs, .. }) => theirs.cmp(mine),
            (Pattern::Literal { .. }, Pattern::Any) => Ordering::Less,
            (Pattern::Any, Pattern::Literal { .. }) => Ordering::Greater,
            (Pattern::Any, Pattern::Any) => Ordering::Equal,
        }
    }

    fn matches(&self, segment: &str, spelling: Spelling) -> bool {
        let Pattern::Literal { text, decoded } = self else { return !segment.is_empty() };
        if segment == &**text {
            return true;
        }
        if !segment.bytes().any(|byte| matches!(byte, b'%' | b';')) {
            return false;
        }
        if percent::decode(segment.as_bytes()).eq(decoded.iter().copied()) {
            return true;
        }
        spelling == Spelling::Loose
            && percent::decode(segment.as_bytes()).take_while(|byte| *byte != b';').eq(decoded.iter().copied())
    }
}

/// The segments of a pattern, read by `pattern`.
pub(super) fn patterns(path: &str, pattern: fn(&str) -> Pattern) -> Vec<Pattern> {
    path.split('/').filter(|segment| !segment.is_empty()).map(pattern).collect()
}

/// How many bytes of `path` (`""` or `/a/b`) the segments take, when it begins with them.
pub(super) fn prefix_bytes(segments: &[Pattern], path: &str, spelling: Spelling) -> Option<usize> {
    let mut at = 0;
    for pattern in segments {
        let rest = path.get(at..)?.strip_prefix('/')?;
        let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
        if !pattern.matches(&rest[..end], spelling) {
            return None;
        }
        at += 1 + end;
    }
    Some(at)
}
