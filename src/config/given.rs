//! A value as it was given, by the file, a variable or a flag, and the readers that make a checked one of it. All
//! three go through the same readers, so that they have the same meaning and the same mistakes.

use std::ffi::OsStr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml_edit::Value;

use super::fault::{Expected, Fault};
use super::mistake::{Mistakes, Place};
use crate::model::Cents;

/// Milliseconds of an hour.
pub(super) const HOUR_MS: i64 = 3_600_000;
/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// A file's name and text: it knows the line and column of every byte.
pub(super) struct Source {
    pub(super) path: Arc<Path>,
    pub(super) text: String,
}

impl Source {
    /// The place of the first byte of `span`; the file as a whole without one.
    pub(super) fn place(&self, span: Option<Range<usize>>) -> Place {
        let Some(before) = span.and_then(|span| self.text.get(..span.start)) else {
            return Place::File(Arc::clone(&self.path));
        };
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::Line {
            file: Arc::clone(&self.path),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].trim_start_matches('\u{feff}').chars().count() + 1,
        }
    }
}

/// The value itself.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// From a file.
    Toml(&'a Value, &'a Source),
    /// From a variable or a flag.
    Text(&'a OsStr),
}

/// A value with its key and place. A reader that returns `None` has added the mistake.
pub(super) struct Given<'a> {
    pub(super) key: &'a str,
    pub(super) place: Place,
    pub(super) raw: Raw<'a>,
    pub(super) mistakes: &'a mut Mistakes,
}

/// Fills a setting with what a reader returned.
pub(super) fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

impl Given<'_> {
    fn refuse(&mut self, fault: Fault) {
        self.mistakes.add(self.place.clone(), self.key, fault);
    }

    fn checked<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.refuse(fault)).ok()
    }

    /// A text that `parse` accepts.
    pub(super) fn read<T>(&mut self, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        let result = text(self.raw).and_then(parse);
        self.checked(result)
    }

    /// One word out of a list.
    pub(super) fn one_of<T: Copy>(&mut self, words: &'static [&'static str], values: &[T]) -> Option<T> {
        self.read(|text| {
            let found = words.iter().position(|word| *word == text).and_then(|index| values.get(index));
            found.copied().ok_or_else(|| Fault::NotOneOf { found: text.to_owned(), allowed: words })
        })
    }

    /// A path of the file system, not empty. From the environment or a flag it need not be UTF-8.
    pub(super) fn path(&mut self) -> Option<PathBuf> {
        let result = match self.raw {
            Raw::Text(path) => Ok(PathBuf::from(path)),
            Raw::Toml(..) => text(self.raw).map(PathBuf::from),
        };
        let filled = result.and_then(|path| match path.as_os_str().is_empty() {
            true => Err(Fault::Empty { remedy: "write the path of a file" }),
            false => Ok(path),
        });
        self.checked(filled)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self) -> Option<bool> {
        let expected = Expected::Boolean;
        let result = match self.raw {
            Raw::Toml(value, _) => value.as_bool().ok_or(Fault::WrongType { found: value.type_name(), expected }),
            Raw::Text(_) => {
                text(self.raw).and_then(|text| text.parse().map_err(|_| Fault::WrongType { found: "text", expected }))
            }
        };
        self.checked(result)
    }

    fn integer(&mut self, range: RangeInclusive<i64>, expected: Expected) -> Option<i64> {
        let result = match self.raw {
            Raw::Toml(value, _) => value.as_integer().ok_or(Fault::WrongType { found: value.type_name(), expected }),
            Raw::Text(_) => {
                text(self.raw).and_then(|text| text.parse().map_err(|_| Fault::WrongType { found: "text", expected }))
            }
        };
        let inside = result.and_then(|found: i64| match range.contains(&found) {
            true => Ok(found),
            false => Err(Fault::OutOfRange { found, least: *range.start(), most: *range.end() }),
        });
        self.checked(inside)
    }

    /// A count of things, or of bytes that are held in memory.
    pub(super) fn count(&mut self, range: RangeInclusive<i64>) -> Option<usize> {
        self.integer(range, Expected::Integer).and_then(|count| usize::try_from(count).ok())
    }

    /// A count that may be larger than memory.
    pub(super) fn large(&mut self, range: RangeInclusive<i64>) -> Option<u64> {
        self.integer(range, Expected::Integer).and_then(|count| u64::try_from(count).ok())
    }

    /// Milliseconds.
    pub(super) fn millis(&mut self, range: RangeInclusive<i64>) -> Option<Duration> {
        self.large(range).map(Duration::from_millis)
    }

    /// A price: not negative, and far below what a wallet can hold.
    pub(super) fn price(&mut self) -> Option<Cents> {
        self.integer(0..=100_000_000_000, Expected::Cents).map(Cents)
    }

    /// A list of different things; from a variable or a flag with commas between. Each wrong one is a mistake of its own.
    pub(super) fn list<T: PartialEq>(&mut self, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<Vec<T>> {
        let items = match self.raw {
            Raw::Toml(Value::Array(array), source) => {
                array.iter().map(|item| (source.place(item.span()), text(Raw::Toml(item, source)))).collect()
            }
            Raw::Toml(value, _) => {
                self.refuse(Fault::WrongType { found: value.type_name(), expected: Expected::List });
                return None;
            }
            Raw::Text(_) => {
                let all = text(self.raw);
                let all = self.checked(all)?;
                let parts = all.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.map(|part| (self.place.clone(), Ok(part))).collect::<Vec<_>>()
            }
        };
        let (given, mut values) = (items.len(), Vec::with_capacity(items.len()));
        for (place, item) in items {
            let read = item.and_then(|item| match parse(item)? {
                value if values.contains(&value) => Err(Fault::Twice { found: item.to_owned() }),
                value => Ok(value),
            });
            match read {
                Ok(value) => values.push(value),
                Err(fault) => self.mistakes.add(place, self.key, fault),
            }
        }
        (values.len() == given).then_some(values)
    }

    /// A list that must not be empty.
    pub(super) fn filled_list<T: PartialEq>(
        &mut self,
        remedy: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let values = self.list(parse)?;
        let filled = if values.is_empty() { Err(Fault::Empty { remedy }) } else { Ok(values) };
        self.checked(filled)
    }
}

fn text(raw: Raw<'_>) -> Result<&str, Fault> {
    match raw {
        Raw::Toml(value, _) => {
            value.as_str().ok_or(Fault::WrongType { found: value.type_name(), expected: Expected::Text })
        }
        Raw::Text(text) => text.to_str().ok_or(Fault::NotUtf8),
    }
}
