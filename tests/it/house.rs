//! The house rules that no compiler checks: who may import whom, where SQL and the environment live, how long a file is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// From the top down. Those of one floor do not import each other; each may import what is below.
const FLOORS: [&[&str]; 11] = [
    &["main"],
    &["cli"],
    &["app"],
    &["gateway", "admin"],
    &["upstream"],
    &["http"],
    &["auth", "billing"],
    &["store"],
    &["ledger"],
    &["config"],
    &["model", "files"],
];
/// May be used by all; uses only these.
const TELEMETRY_USES: [&str; 2] = ["config", "model"];
/// Lines of a file that is not a test.
const MOST_LINES: usize = 400;

struct Source {
    /// Below `src`.
    name: String,
    module: String,
    text: String,
    is_test: bool,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                let module = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
                let is_test = name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("/sample.rs");
                found.push(Source { name, module, text: std::fs::read_to_string(path).unwrap(), is_test });
            }
        }
    }
    assert!(found.len() > 50, "the sources are not where they were");
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// The code of a file: without comments, and without the tests at its end.
fn code(source: &Source) -> String {
    if source.is_test {
        return String::new();
    }
    let own = match source.text.find("#[cfg(test)]\nmod tests {") {
        Some(tests) => &source.text[..tests],
        None => &source.text,
    };
    own.lines().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |all, line| all + line + "\n")
}

/// The top modules that a text names after this prefix: `use crate::{auth, store::Store}` names two.
fn named(text: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (place, _) in text.match_indices(prefix) {
        if text[..place].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let rest = &text[place + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(first_word(rest));
            continue;
        };
        found.extend(items(group).iter().filter_map(|item| first_word(item)));
    }
    found
}

/// The items of a group in braces, which may contain groups: `a, b::{c, d}}; …` has `a` and `b::{c, d}`.
fn items(group: &str) -> Vec<String> {
    let (mut depth, mut found) = (0, vec![String::new()]);
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
        match found.last_mut() {
            Some(item) if letter != ',' || depth > 0 => item.push(letter),
            _ => found.push(String::new()),
        }
    }
    found
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!word.is_empty()).then_some(word)
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Whether `from` may import `to`.
fn may_import(from: &str, to: &str) -> bool {
    if from == to || from == "lib" {
        return true;
    }
    match (from, to) {
        ("telemetry", to) => TELEMETRY_USES.contains(&to),
        (_, "telemetry" | "failpoint") => true,
        (from, to) => match (floor(from), floor(to)) {
            (Some(above), Some(below)) => above < below,
            (Some(_) | None, Some(_) | None) => false,
        },
    }
}

#[test]
fn imports_run_downward_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let (code, mut imports) = (code(&source), Vec::new());
        imports.extend(named(&code, "crate::"));
        // Only main is outside of the library; elsewhere it is a log's target.
        if source.module == "main" {
            imports.extend(named(&code, "keytoll::"));
        }
        for import in imports {
            if !may_import(&source.module, &import) {
                wrong.push(format!("{} imports {import}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_rule_on_imports_tells_right_from_wrong() {
    assert!(may_import("gateway", "billing") && may_import("store", "telemetry") && may_import("telemetry", "config"));
    for (from, to) in [
        ("store", "billing"),
        ("gateway", "admin"),
        ("billing", "auth"),
        ("telemetry", "store"),
        ("model", "config"),
        ("store", "unheard_of"),
    ] {
        assert!(!may_import(from, to), "{from} -> {to}");
    }
    assert_eq!(named("use crate::{auth, store::{a, b}, model};", "crate::"), ["auth", "store", "model"]);
    assert_eq!(named("crate::config::X; other_crate::y; pub(in crate::z)", "crate::"), ["config", "z"]);
}

/// Nobody but these, besides tests, says this.
fn only_in(text: &str, modules: &[&str]) {
    let found = sources();
    let found = found.iter().filter(|source| !modules.contains(&source.module.as_str()) && code(source).contains(text));
    let found: Vec<&str> = found.map(|source| source.name.as_str()).collect();
    assert!(found.is_empty(), "{text} is not for {found:?}");
    let used = sources().iter().any(|source| modules.contains(&source.module.as_str()) && code(source).contains(text));
    assert!(used, "nobody says {text} any more");
}

#[test]
fn sql_lives_in_the_store() {
    only_in("rusqlite::", &["store"]);
}

#[test]
fn the_environment_and_files_are_read_in_the_configuration() {
    only_in("env::var", &["config"]);
}

#[test]
fn what_a_feature_changes_is_in_one_place() {
    let mut places = Vec::new();
    for source in sources() {
        let named =
            code(&source).split("feature = \"").skip(1).map(|rest| first_word(rest).unwrap()).collect::<Vec<_>>();
        places.extend(named.into_iter().map(|feature| (feature, source.name.clone())));
    }
    places.sort_unstable();
    places.dedup();
    let expected = [("bench", "gateway/pieces.rs"), ("failpoints", "failpoint.rs")];
    assert_eq!(places, expected.map(|(feature, place)| (feature.to_owned(), place.to_owned())));
}

#[test]
fn every_fail_point_is_reached_in_one_place() {
    let mut points: Vec<&str> = keytoll::failpoint::POINTS.to_vec();
    let mut reached: Vec<String> = Vec::new();
    for source in sources().iter().filter(|source| source.module != "failpoint") {
        for (place, _) in code(source).match_indices("failpoint::reach(") {
            let call = code(source)[place..].split_once(");").unwrap().0.to_owned();
            reached.extend(call.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    points.sort_unstable();
    reached.sort_unstable();
    assert_eq!(reached, points);
}

#[test]
fn there_is_no_unsafe_code() {
    // What is forbidden so cannot be allowed again further in.
    assert!(include_str!("../../Cargo.toml").contains("\nunsafe_code = \"forbid\"\n"));
}

#[test]
fn a_file_fits_a_reader() {
    let mut long = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        let lines = source.text.lines().count();
        if lines > MOST_LINES {
            long.push(format!("{}: {lines} lines", source.name));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.is_test && source.name != "main.rs" && !source.text.starts_with("//!"))
        .map(|source| source.name)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}

/// Folders of which files may import each other in a circle, and those files: a list that only gets shorter.
const CIRCLES: [(&str, &[&str]); 1] = [("store/writer", &["hold", "mailbox", "queue", "reply_head", "write"])];

/// The module of a file: `store/writer.rs` and `store/writer/queue.rs` are `store/writer` and `store/writer/queue`.
fn module_path(source: &Source) -> String {
    source.name.trim_end_matches(".rs").to_owned()
}

/// The modules that a file imports, as far as they are files: `crate::store::writer::queue::Queue` names `store/writer/queue`.
fn imported_files(source: &Source, modules: &HashSet<String>) -> HashSet<String> {
    let code = code(source);
    let own = module_path(source);
    let mut found = HashSet::new();
    for (place, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..place].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let mut rest = &code[place..];
        let mut base: Vec<&str> = Vec::new();
        if let Some(after) = rest.strip_prefix("crate::") {
            rest = after;
        } else {
            base = own.split('/').collect();
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
        }
        name_files(&base.join("/"), rest, modules, &mut found);
    }
    found
}

/// The files that a path names below a module; `rest` may begin a group in braces.
fn name_files(base: &str, rest: &str, modules: &HashSet<String>, found: &mut HashSet<String>) {
    if let Some(group) = rest.strip_prefix('{') {
        return items(group).iter().for_each(|item| name_files(base, item.trim(), modules, found));
    }
    let Some(word) = first_word(rest) else { return };
    let module = if base.is_empty() { word.clone() } else { format!("{base}/{word}") };
    match rest[word.len()..].strip_prefix("::") {
        _ if !modules.contains(&module) => drop(found.insert(base.to_owned())),
        Some(deeper) => name_files(&module, deeper, modules, found),
        None => drop(found.insert(module)),
    }
}

/// Files and subfolders of each folder, with what each imports of the others there.
fn imports_by_folder(sources: &[Source]) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let modules: HashSet<String> = sources.iter().map(module_path).collect();
    let mut folders: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for source in sources {
        let own = module_path(source);
        for imported in imported_files(source, &modules) {
            let mut folder = String::new();
            for (one, other) in own.split('/').zip(imported.split('/')) {
                if one != other {
                    folders.entry(folder).or_default().entry(one.to_owned()).or_default().insert(other.to_owned());
                    break;
                }
                folder = if folder.is_empty() { one.to_owned() } else { format!("{folder}/{one}") };
            }
        }
    }
    folders
}

/// What is left of a folder when files that import nothing of the rest, or that the rest does not import, are taken away.
fn circle(mut imports: BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    loop {
        let files: BTreeSet<String> = imports.keys().cloned().collect();
        let imported: BTreeSet<String> = imports.values().flatten().cloned().collect();
        let before = imports.len();
        imports.retain(|file, of| {
            of.retain(|other| files.contains(other));
            !of.is_empty() && imported.contains(file)
        });
        if imports.len() == before {
            return files;
        }
    }
}

#[test]
fn no_folder_contains_a_circle_of_files() {
    for (folder, imports) in imports_by_folder(&sources()) {
        let known = CIRCLES.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, files)| files);
        let found: Vec<String> = circle(imports).into_iter().collect();
        assert_eq!(found, known, "{folder}: these files import each other in a circle");
    }
}

#[test]
fn a_circle_of_files_is_found() {
    let source = |name: &str, text: &str| Source {
        name: name.into(),
        module: name.split('/').next().unwrap().trim_end_matches(".rs").into(),
        text: text.into(),
        is_test: false,
    };
    let circle_of = |one: &str, other: &str| {
        let sources =
            [source("a.rs", ""), source("a/x.rs", one), source("a/y.rs", other), source("a/z.rs", "use super::x::X;")];
        circle(imports_by_folder(&sources).remove("a").unwrap_or_default()).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(circle_of("use crate::a::{Top, y::{self, Y}};", "fn f() { super::x::g() }"), ["x", "y"]);
    assert!(circle_of("use super::y::Y;", "use super::Top;\n// use crate::a::x;").is_empty());
}
