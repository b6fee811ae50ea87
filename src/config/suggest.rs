//! The name that was probably meant.

/// The candidate that is nearest to `name`: few letters apart, or one the beginning of the other.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let far = (name.chars().count() / 3).clamp(1, 3);
    let is_beginning = |candidate: &str| {
        name.len().min(candidate.len()) >= 4 && (candidate.starts_with(&name) || name.starts_with(candidate))
    };
    let near = |candidate: &'a str| {
        let distance = distance(&name, &candidate.to_ascii_lowercase());
        let counts = if distance <= far {
            distance
        } else if is_beginning(candidate) {
            far + distance
        } else {
            return None;
        };
        Some((counts, candidate))
    };
    candidates.into_iter().filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: how many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_finds_none() {
        let names = ["path", "create", "durability", "token_file", "listen"];
        for (typed, meant) in [
            ("durabilty", Some("durability")),
            ("Path", Some("path")),
            ("lisen", Some("listen")),
            ("token", Some("token_file")),
            ("token-file", Some("token_file")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
    }

    #[test]
    fn the_nearest_of_several_wins() {
        assert_eq!(nearest("cached_key", ["cached_wallets", "cached_keys", "key_bytes"]), Some("cached_keys"));
    }
}
