//! The ways in which upstreams may read the segments of a path that Keytoll passes on as it is.

/// Every reading of `path`, itself among them: any sequence of decoding its encoded slashes (`%2F`), merging repeated
/// slashes and leaving out path parameters (`;x`), as servers do it in different orders.
///
/// A path that begins with `//` is also read without its first segment: URL parsers take that for a host
/// (RFC 3986 §4.2). `%252F` is not read as a slash: no octet is to be decoded twice (RFC 3986 §2.4).
pub(in crate::gateway) fn readings(path: &str) -> Vec<String> {
    let mut found = vec![path.to_owned()];
    for start in [without_authority(path), without_authority(&decode_slashes(path))].into_iter().flatten() {
        if !found.contains(&start) {
            found.push(start);
        }
    }
    // Each step undoes all there is for it to undo, so this ends after a few rounds, whatever the path's length.
    let mut at = 0;
    while at < found.len() {
        for step in [decode_slashes, merge_slashes, leave_parameters_out] {
            let next = step(&found[at]);
            if !found.contains(&next) {
                found.push(next);
            }
        }
        at += 1;
    }
    found
}

fn decode_slashes(path: &str) -> String {
    path.replace("%2F", "/").replace("%2f", "/")
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !merged.ends_with('/') {
            merged.push(letter);
        }
    }
    merged
}

fn leave_parameters_out(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        let plain = segment.split(';').next().unwrap_or_default();
        let end = plain.find("%3B").into_iter().chain(plain.find("%3b")).min().unwrap_or(plain.len());
        &plain[..end]
    });
    segments.collect::<Vec<_>>().join("/")
}

/// What follows the host, when the path is taken for a reference such as `//host/path`.
fn without_authority(path: &str) -> Option<String> {
    let rest = path.strip_prefix("//")?;
    Some(rest.find('/').map_or("/", |slash| &rest[slash..]).to_owned())
}
