//! Header names as lax upstreams read them.

use crate::config::CredentialSource;

/// Longer than every name that is compared here; of a longer name, a beginning is enough.
const LONGEST: usize = 40;

/// Gives `check` the name (lower case, as `HeaderName` holds it) with `-` for every character that is neither letter
/// nor digit, and whether that changed it. A name of the usual characters is not copied.
pub(super) fn canonical<T>(name: &str, check: impl FnOnce(&str, bool) -> T) -> T {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(is_plain) {
        return check(name, false);
    }
    let mut copy = [b'-'; LONGEST];
    let len = name.len().min(LONGEST);
    for (place, byte) in copy.iter_mut().zip(name.bytes()) {
        if is_plain(byte) {
            *place = byte;
        }
    }
    let copy = std::str::from_utf8(&copy[..len]).expect("letters, digits and dashes are ASCII");
    check(copy, true)
}

/// Everything that only Keytoll may say.
pub(super) fn is_ours(canonical: &str) -> bool {
    canonical.starts_with("keytoll-")
}

/// The headers that credentials are looked for in, for finding their other spellings: names that differ from one of them
/// only in characters that are neither letters nor digits (`x_api.key` for `x-api-key`). CGI, WSGI and PHP do not tell these
/// apart, so a key must not go upstream under any of them. `Authorization` has no other spelling.
#[derive(Debug)]
pub(crate) struct CredentialHeaders {
    /// In lower case, as `HeaderName` holds them.
    names: Vec<Box<str>>,
}

impl CredentialHeaders {
    /// Of the sources that are headers of their own.
    pub(crate) fn of(sources: &[CredentialSource]) -> CredentialHeaders {
        let names = sources.iter().filter_map(|source| match source {
            CredentialSource::Header(name) => Some(name.as_str().into()),
            CredentialSource::AuthorizationBearer | CredentialSource::Query(_) => None,
        });
        CredentialHeaders { names: names.collect() }
    }

    /// Whether a name is one of these headers in any spelling.
    pub(super) fn are_meant_by(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.len() == name.len() && is_alike(own, name))
    }

    /// Whether a name is another spelling of one of these headers, and not itself one of them.
    pub(super) fn are_respelled_by(&self, name: &str) -> bool {
        self.are_meant_by(name) && !self.names.iter().any(|own| **own == *name)
    }
}

/// Whether two names of the same length, in lower case, differ only in characters that are neither letters nor digits.
fn is_alike(one: &str, other: &str) -> bool {
    let read = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
    one.bytes().zip(other.bytes()).all(|(one, other)| read(one) == read(other))
}
