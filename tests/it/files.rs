//! Files: who may use those that Keytoll creates, and what those that it finds may be.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::harness::process::{Starting, program};
use crate::harness::{Api, Gateway, GatewayBuilder, Ground, Upstream, until};

/// A group that the tests' user is no member of.
const GROUP: u32 = 54_321;
/// The files of a gateway that runs, by what follows the database's path.
const FILES: [&str; 5] = ["", "-wal", "-shm", "-keytoll-1.lock", "-keytoll-usage.lock"];

pub(super) fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn gateway(directory: &Path, upstream: &Upstream) -> GatewayBuilder {
    Gateway::builder().api(Api::new("weather", upstream.address())).at(directory)
}

#[track_caller]
fn assert_access(directory: &Path, mode: u32, group: Option<u32>) {
    for suffix in FILES {
        let metadata = fs::symlink_metadata(directory.join(format!("auth.db{suffix}"))).unwrap();
        assert_eq!(format!("{:o}", metadata.mode() & 0o7777), format!("{mode:o}"), "auth.db{suffix}");
        assert!(group.is_none_or(|group| metadata.gid() == group), "auth.db{suffix}: group {}", metadata.gid());
    }
}

/// Whether these tests may give files to other groups.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_new_database_and_the_files_beside_it_have_the_mode_of_the_settings() {
    let upstream = Upstream::fine();
    for (text, mode) in [(None, 0o600), (Some("0666"), 0), (Some("0660"), 0o660), (Some("0640"), 0o640)] {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = gateway(directory.path(), &upstream);
        if let Some(text) = text {
            builder = builder.variable("KEYTOLL_DATABASE__FILE_MODE", text);
        }
        if mode == 0 {
            let output = builder.refused();
            assert_eq!(output.status.code(), Some(78));
            assert!(!directory.path().join("auth.db").exists());
            continue;
        }
        let process = builder.spawn();
        assert_access(directory.path(), mode, None);
        process.stop();
    }
    let desk = tempfile::tempdir().unwrap();
    let add = ["user", "add", "a@example.com", "--name", "A", "--create", "--database", "auth.db"];
    assert!(program().args(add).current_dir(desk.path()).output().unwrap().status.success());
    assert_eq!(fs::metadata(desk.path().join("auth.db")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn files_beside_an_existing_database_take_its_mode_and_not_that_of_the_settings() {
    let (ground, upstream) = (Ground::with_cents(1_000), Upstream::fine());
    fs::set_permissions(ground.file(""), Permissions::from_mode(0o644)).unwrap();
    let process = ground.gateway(upstream.address()).spawn();
    assert_access(&ground.data(), 0o644, None);
    // One that is put back, too.
    fs::remove_file(ground.file("-keytoll-1.lock")).unwrap();
    until("the lock file is put back", || ground.file("-keytoll-1.lock").exists());
    assert_access(&ground.data(), 0o644, None);
    process.stop();
}

#[test]
fn files_beside_a_database_take_its_group() {
    if !is_root() {
        return;
    }
    let upstream = Upstream::fine();
    // By a directory that gives its group to what is created in it, and by a database that was given to a group.
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), None, Some(GROUP)).unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o2770)).unwrap();
    let process = gateway(directory.path(), &upstream).variable("KEYTOLL_DATABASE__FILE_MODE", "0660").spawn();
    assert_access(directory.path(), 0o660, Some(GROUP));
    process.stop();

    let ground = Ground::with_cents(1_000);
    chown(ground.file(""), None, Some(GROUP)).unwrap();
    fs::set_permissions(ground.file(""), Permissions::from_mode(0o660)).unwrap();
    let process = ground.gateway(upstream.address()).spawn();
    assert_access(&ground.data(), 0o660, Some(GROUP));
    process.stop();
}

/// SQLite itself gives files to another group only when the superuser runs it.
#[test]
fn files_beside_a_database_take_its_group_when_an_ordinary_user_runs_the_gateway() {
    /// An ordinary user and group without rights of their own.
    const ORDINARY: u32 = 65_534;
    let Ok(found) = Command::new("setpriv").arg("--version").output() else { return };
    if !is_root() || !found.status.success() {
        return;
    }
    let (ground, directory) = (Ground::with_cents(1_000), tempfile::tempdir().unwrap());
    let binary = directory.path().join("keytoll");
    fs::copy(env!("CARGO_BIN_EXE_keytoll"), &binary).unwrap();
    for path in [directory.path(), &binary, ground.data().parent().unwrap()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    ground.database().leave_alone();
    for entry in fs::read_dir(ground.data()).unwrap() {
        chown(entry.unwrap().path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
    }
    chown(ground.data(), Some(ORDINARY), Some(ORDINARY)).unwrap();
    chown(ground.file(""), None, Some(GROUP)).unwrap();
    fs::set_permissions(ground.file(""), Permissions::from_mode(0o660)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--groups=54321"]).arg(&binary).arg("serve");
    command.args(["--upstream", "http://127.0.0.1:9", "--api", "weather", "--price", "1"]);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.arg("--database").arg(ground.file("")).env_clear().current_dir(directory.path());
    let starting = Starting::of(command, directory);
    until("it serves", || starting.has_said("keytoll serves"));
    assert_access(&ground.data(), 0o660, Some(GROUP));
    let (status, said) = starting.terminate();
    assert!(status.success(), "{said}");
}

#[test]
fn a_link_to_a_database_is_resolved_and_one_to_nothing_is_refused() {
    let (ground, upstream) = (Ground::with_cents(1_000), Upstream::fine());
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(ground.file(""), elsewhere.path().join("auth.db")).unwrap();
    let process = gateway(elsewhere.path(), &upstream).spawn();
    process.get("/").key(&ground.key).send().assert_receipt(10, 990);
    for suffix in ["-wal", "-keytoll-1.lock"] {
        assert!(ground.file(suffix).exists() && !elsewhere.path().join(format!("auth.db{suffix}")).exists());
    }
    process.stop();
    fs::remove_file(elsewhere.path().join("auth.db")).unwrap();
    symlink("nowhere.db", elsewhere.path().join("auth.db")).unwrap();
    let output = gateway(elsewhere.path(), &upstream).refused();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(66), "{said}");
    assert!(said.contains("a link to a file that does not exist"), "{said}");
    assert!(!elsewhere.path().join("nowhere.db").exists());
}

#[test]
fn what_is_no_regular_file_is_refused_as_a_database_and_not_waited_for() {
    let upstream = Upstream::fine();
    type Make = fn(&Path);
    let kinds: [(&str, Make, &str); 6] = [
        ("", fifo, "a FIFO"),
        ("", |path| symlink("/dev/null", path).unwrap(), "a character device"),
        ("", |path| drop(UnixListener::bind(path).unwrap()), "a socket"),
        ("", |path| fs::create_dir(path).unwrap(), "a directory"),
        ("-wal", fifo, "a FIFO"),
        ("-shm", |path| symlink("other", path).unwrap(), "a symbolic link"),
    ];
    for (suffix, make, kind) in kinds {
        let directory = tempfile::tempdir().unwrap();
        make(&directory.path().join(format!("auth.db{suffix}")));
        let output = gateway(directory.path(), &upstream).refused();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(66), "{kind}: {said}");
        assert!(said.contains(&format!("this is {kind}, and not a regular file")), "{said}");
        // Of commands as well.
        let output = program().args(["user", "list", "--database", "auth.db"]).current_dir(directory.path()).output();
        assert_eq!(output.unwrap().status.code(), Some(66), "{kind}");
    }
}
