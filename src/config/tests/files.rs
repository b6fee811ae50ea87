//! The configuration file and the token file as files: what they may be, and who may read and write them.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;

use super::super::AdminToken;
use super::*;

const TOKEN: &str = "a-token-of-some-length";
const WITH_TOKEN_FILE: &str = "[admin]\ntoken_file = \"token\"\n";

fn fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_file_mode_is_octal_and_keeps_the_owner_in_and_others_from_writing() {
    let only_of = |value: &str| only(&format!("[database]\nfile_mode = {value}\n{API}"));
    let mode_of = |value: &str| good(&format!("[database]\nfile_mode = {value}\n{API}")).database.file_mode;
    for (value, mode) in [("\"0600\"", 0o600), ("\"640\"", 0o640), ("\"0o660\"", 0o660), ("\"0664\"", 0o664)] {
        assert_eq!(mode_of(value), mode, "{value}");
    }
    assert_eq!(good(API).database.file_mode, 0o600);
    assert_eq!(only_of("600"), "2:13: database.file_mode: is an integer; write a text in quotes");
    for value in ["", "6", "0888", "0x600", "rw-------", "00600", "0700", "4600", "-600"] {
        assert!(only_of(&format!("{value:?}")).contains("is not a file mode"), "{value}");
    }
    for value in ["0400", "0060", "0200"] {
        assert!(only_of(&format!("{value:?}")).contains("keeps the owner from"), "{value}");
    }
    for value in ["0666", "0602"] {
        assert!(only_of(&format!("{value:?}")).contains("lets every user write"), "{value}");
    }
}

#[test]
fn a_token_file_that_others_can_read_is_a_warning_and_one_that_they_can_write_is_refused() {
    let (directory, environment) = with_file(&format!("{WITH_TOKEN_FILE}{API}"), &[]);
    let file = directory.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let loaded = || load(&Overrides::default(), &environment);
    for (mode, is_said) in [(0o400, false), (0o600, false), (0o440, true), (0o604, true), (0o644, true)] {
        set_mode(&file, mode);
        let config = loaded().unwrap().config;
        assert_eq!(config.admin.token.as_ref().map(AdminToken::expose), Some(TOKEN), "{mode:o}");
        let warning = format!(
            "The admin token in {path} can be read by others (mode {mode:04o}): run chmod 600 {path}.",
            path = file.display()
        );
        assert_eq!(config.warnings.contains(&warning), is_said, "{mode:o}: {:?}", config.warnings);
    }
    for mode in [0o620, 0o602, 0o666] {
        set_mode(&file, mode);
        let refused = loaded().unwrap_err().to_string();
        let remedy = format!("(mode {mode:04o}), who could replace the token; run chmod 600 {}", file.display());
        assert!(refused.contains("keytoll.toml:2:14: admin.token_file: ") && refused.ends_with(&remedy), "{refused}");
        assert!(!refused.contains(TOKEN));
    }
}

#[test]
fn a_token_file_may_be_a_link_as_a_mounted_secret_is() {
    let (directory, environment) = with_file(&format!("{WITH_TOKEN_FILE}{API}"), &[]);
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..2026_11_27")).unwrap();
    fs::write(at("..2026_11_27/token"), TOKEN).unwrap();
    set_mode(&at("..2026_11_27/token"), 0o644);
    symlink("..2026_11_27", at("..data")).unwrap();
    symlink("..data/token", at("token")).unwrap();
    let loaded = || load(&Overrides::default(), &environment);
    // Such a mount has the sticky bit: everyone may create files in it and replace only their own.
    set_mode(directory.path(), 0o1777);
    let config = loaded().unwrap().config;
    assert_eq!(config.admin.token.as_ref().map(AdminToken::expose), Some(TOKEN));
    assert!(config.warnings.iter().any(|line| line.contains("can be read by others")), "{:?}", config.warnings);
    for open in [directory.path(), &at("..2026_11_27")] {
        set_mode(open, 0o777);
        let refused = loaded().unwrap_err().to_string();
        assert!(refused.contains("anyone can replace files in the directory"), "{refused}");
        set_mode(open, 0o755);
    }
}

#[test]
fn a_token_file_that_is_no_regular_file_is_refused_without_waiting_for_it() {
    let (directory, environment) = with_file(&format!("{WITH_TOKEN_FILE}{API}"), &[]);
    let file = directory.path().join("token");
    fifo(&file);
    let refused = || load(&Overrides::default(), &environment).unwrap_err().to_string();
    assert!(
        refused().ends_with("keytoll.toml:2:14: admin.token_file: is a FIFO; name a regular file"),
        "{}",
        refused()
    );
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(refused().ends_with("is a directory; name a regular file"), "{}", refused());
}

#[test]
fn a_configuration_file_that_was_named_may_be_a_pipe_and_a_default_one_may_not() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("keytoll.toml");
    fifo(&file);
    let by_default = Environment::of([("A", "b")]).with_files(vec![file.clone()]);
    let refused = load(&Overrides::default(), &by_default).unwrap_err().to_string();
    assert!(refused.ends_with("keytoll.toml: is a FIFO; name a regular file"), "{refused}");

    let writer = thread::spawn({
        let file = file.clone();
        move || fs::File::options().write(true).open(file).unwrap().write_all(API.as_bytes()).unwrap()
    });
    let named = Overrides { config: Some(file), ..Overrides::default() };
    assert_eq!(&*load(&named, &Environment::of([("A", "b")])).unwrap().config.apis[0].name, "a");
    writer.join().unwrap();
    let named = Overrides { config: Some(directory.path().into()), ..Overrides::default() };
    let refused = load(&named, &Environment::of([("A", "b")])).unwrap_err().to_string();
    assert!(refused.ends_with(": is a directory; name a regular file"), "{refused}");
}
