//! The configuration file: which one, its text, and the way from its tables to the table of keys.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, Value};

use super::api::{API_KEYS, ApiParts};
use super::fault::{Expected, Fault, FileFault};
use super::given::{Raw, Source};
use super::keys::{Draft, KEYS, Key, SECTIONS, Settings};
use super::mistake::{Mistakes, Place};
use super::route::{ROUTE_KEYS, RouteParts};
use super::suggest::nearest;
use super::{Environment, Overrides};
use crate::files::{self, FileError, Links};

/// Far more than any configuration needs.
const FILE_BYTES: u64 = 1 << 20;

/// The file that a flag or `KEYTOLL_CONFIG` names, else the first default one that exists, else none. One that cannot
/// be read is a mistake.
pub(super) fn find(flags: &Overrides, environment: &Environment, mistakes: &mut Mistakes) -> Option<Source> {
    let named = flags.config.as_deref().or_else(|| environment.get("KEYTOLL_CONFIG").map(Path::new));
    if let Some(path) = named {
        // Which may be what a shell puts in the place of `<(...)`.
        let opened = files::open_stream(path).map_err(unopened);
        let read = opened.and_then(|file| read(path, &file));
        return read.map_err(|fault| mistakes.add(Place::File(path.into()), "", fault)).ok();
    }
    for path in &environment.default_files {
        let opened = files::open_regular(path, File::options().read(true), Links::Follow).map_err(unopened);
        match opened.and_then(|file| read(path, &file)) {
            Err(Fault::Unreadable(io::ErrorKind::NotFound)) => {}
            Err(fault) => {
                mistakes.add(Place::File(path.as_path().into()), "", fault);
                return None;
            }
            Ok(source) => return Some(source),
        }
    }
    None
}

fn read(path: &Path, file: &File) -> Result<Source, Fault> {
    let text = read_text(file, FILE_BYTES)?;
    Ok(Source { path: path.into(), text })
}

/// Why a file could not be opened.
pub(super) fn unopened(error: FileError) -> Fault {
    match error {
        FileError::Kind(kind) => Fault::File(FileFault::WrongKind(kind)),
        FileError::Io(error) => Fault::Unreadable(error.kind()),
    }
}

/// The text of a file that is not larger than `most` bytes.
pub(super) fn read_text(file: &File, most: u64) -> Result<String, Fault> {
    let unreadable = |error: io::Error| Fault::Unreadable(error.kind());
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(Fault::TooLarge { most });
    }
    String::from_utf8(bytes).map_err(|_| Fault::NotUtf8)
}

/// Reads every section into its draft.
pub(super) fn read_sections(
    source: &Source,
    settings: &mut Draft<Settings>,
    apis: &mut Vec<Draft<ApiParts>>,
    mistakes: &mut Mistakes,
) {
    let document = match Document::parse(source.text.as_str()) {
        Ok(document) => document,
        Err(error) => {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            return mistakes.add(source.place(error.span()), "", Fault::Syntax(message));
        }
    };
    for (name, item) in document.as_table().iter() {
        if name == "api" {
            for (table, at) in tables(item, source, "api", mistakes) {
                apis.push(read_api(table, at, source, mistakes));
            }
        } else if SECTIONS.contains(&name) {
            match item.as_table_like() {
                Some(table) => read_keys(table, name, KEYS, settings, source, mistakes),
                None => mistakes.add(source.place(item.span()), name, wrong_type(item, Expected::Section)),
            }
        } else {
            let place = key_place(document.as_table(), name, source);
            mistakes.add(place, name, unknown_top(name, item));
        }
    }
}

fn read_api(table: &dyn TableLike, at: Place, source: &Source, mistakes: &mut Mistakes) -> Draft<ApiParts> {
    let mut api = Draft::new(ApiParts::default(), at);
    read_keys(table, "api", API_KEYS, &mut api, source, mistakes);
    if let Some(routes) = table.get("route") {
        for (table, at) in tables(routes, source, "api.route", mistakes) {
            let mut route = Draft::new(RouteParts::default(), at);
            read_keys(table, "api.route", ROUTE_KEYS, &mut route, source, mistakes);
            api.parts.routes.push(route);
        }
    }
    super::api::refuse_missing(&api, API_KEYS, mistakes);
    api
}

/// Reads every key of one section.
fn read_keys<T>(
    table: &dyn TableLike,
    section: &str,
    keys: &'static [Key<T>],
    draft: &mut Draft<T>,
    source: &Source,
    mistakes: &mut Mistakes,
) {
    for (name, item) in table.iter() {
        let dotted = format!("{section}.{name}");
        if dotted == "api.route" {
            continue;
        }
        let Some(key) = keys.iter().find(|key| key.name == dotted) else {
            let suggestion = suggest(name, section, keys.iter().map(|key| key.name));
            mistakes.add(key_place(table, name, source), dotted, Fault::UnknownKey { suggestion });
            continue;
        };
        match item.as_value() {
            Some(value) => draft.apply(key, source.place(value.span()), Raw::Toml(value, source), mistakes),
            None => {
                draft.places.insert(key.name, source.place(item.span()));
                mistakes.add(source.place(item.span()), dotted, Fault::IsSection);
            }
        }
    }
}

/// The tables of `[[name]]`, each with its place; also as an array of inline tables.
fn tables<'a>(item: &'a Item, source: &Source, name: &str, mistakes: &mut Mistakes) -> Vec<(&'a dyn TableLike, Place)> {
    if let Some(array) = item.as_array_of_tables() {
        return array.iter().map(|table| (table as &dyn TableLike, source.place(table.span()))).collect();
    }
    let Some(array) = item.as_array() else {
        mistakes.add(source.place(item.span()), name, wrong_type(item, Expected::Sections));
        return Vec::new();
    };
    let mut found: Vec<(&dyn TableLike, Place)> = Vec::new();
    for value in array {
        let place = source.place(value.span());
        match value {
            Value::InlineTable(table) => found.push((table, place)),
            other => {
                let fault = Fault::WrongType { found: other.type_name(), expected: Expected::Sections };
                mistakes.add(place, name, fault);
            }
        }
    }
    found
}

fn wrong_type(item: &Item, expected: Expected) -> Fault {
    let found = match item.type_name() {
        "table" => "single section",
        "array of tables" => "list of sections",
        other => other,
    };
    Fault::WrongType { found, expected }
}

/// A name at the top of the file: a section, or a key that belongs into one.
fn unknown_top(name: &str, item: &Item) -> Fault {
    if item.is_table() || item.is_array_of_tables() {
        let sections = SECTIONS.into_iter().chain(["api"]);
        return Fault::UnknownSection { suggestion: nearest(name, sections).map(str::to_owned) };
    }
    Fault::UnknownKey { suggestion: suggest(name, "", std::iter::empty()) }
}

/// The key of the same section that is nearest; else the same key in another section, with its section.
fn suggest(name: &str, section: &str, keys: impl Iterator<Item = &'static str>) -> Option<String> {
    let here = keys.filter_map(|key| key.strip_prefix(section)?.strip_prefix('.'));
    if let Some(near) = nearest(name, here) {
        return Some(near.to_owned());
    }
    let elsewhere = KEYS.iter().map(|key| key.name).chain(API_KEYS.iter().map(|key| key.name));
    let mut elsewhere = elsewhere.chain(ROUTE_KEYS.iter().map(|key| key.name));
    elsewhere.find(|key| key.rsplit('.').next() == Some(name)).map(str::to_owned)
}

fn key_place(table: &dyn TableLike, name: &str, source: &Source) -> Place {
    let span: Option<Range<usize>> = table.get_key_value(name).and_then(|(key, _)| key.span());
    source.place(span)
}
