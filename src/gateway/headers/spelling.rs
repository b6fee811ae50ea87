//! Header names as lax upstreams read them.

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
