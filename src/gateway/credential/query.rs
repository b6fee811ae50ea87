//! The parameters of a query, read as HTML forms write them (`&` between them, `+` for a space), and taken out without
//! touching a byte of the others.

use std::borrow::Cow;

use crate::gateway::percent;

/// One parameter, as it stands in the query.
#[derive(Clone, Copy)]
pub(super) struct Parameter<'q> {
    name: &'q str,
    value: &'q str,
}

impl<'q> Parameter<'q> {
    fn new(text: &'q str) -> Parameter<'q> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Parameter { name, value }
    }

    /// Whether its decoded name is `name`; case counts.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name == name || (self.name.bytes().any(is_coded) && decoded(self.name).eq(name.bytes()))
    }

    /// Its decoded value.
    pub(super) fn value(&self) -> Cow<'q, [u8]> {
        if self.value.bytes().any(is_coded) {
            Cow::Owned(decoded(self.value).collect())
        } else {
            Cow::Borrowed(self.value.as_bytes())
        }
    }
}

/// All parameters of a query.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = Parameter<'_>> {
    query.split('&').map(Parameter::new)
}

/// The query without the parameters that are `unwanted`, each with one `&` beside it; `None` when none is left.
pub(super) fn without<'q>(
    query: Option<Cow<'q, str>>,
    unwanted: impl Fn(Parameter<'_>) -> bool,
) -> Option<Cow<'q, str>> {
    let query = query?;
    if !parameters(&query).any(&unwanted) {
        return Some(query);
    }
    let kept = query.split('&').filter(|text| !unwanted(Parameter::new(text)));
    let mut rest: Option<String> = None;
    for text in kept {
        match &mut rest {
            Some(rest) => {
                rest.push('&');
                rest.push_str(text);
            }
            None => rest = Some(text.to_owned()),
        }
    }
    rest.map(Cow::Owned)
}

fn is_coded(byte: u8) -> bool {
    matches!(byte, b'%' | b'+')
}

fn decoded(text: &str) -> impl Iterator<Item = u8> {
    // A plus that was encoded (`%2B`) is a plus: the spaces are told apart before decoding.
    text.split_inclusive('+').flat_map(|piece| {
        let (piece, space) = match piece.strip_suffix('+') {
            Some(piece) => (piece, Some(b' ')),
            None => (piece, None),
        };
        percent::decode(piece.as_bytes()).chain(space)
    })
}
