//! The admin token: from the environment, or from a file that others must not be able to write.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::fault::{Fault, FileFault};
use super::file::{read_text, unopened};
use super::keys::{Draft, Settings};
use super::mistake::{Mistakes, Place};
use super::{AdminToken, Environment};
use crate::files::{self, Links};

/// A token is far shorter.
const FILE_BYTES: u64 = 4_096;

/// The token of `KEYTOLL_ADMIN_TOKEN`, else of the token file, and what should be said about that file. A relative path in
/// a configuration file is relative to that file. A bad token is a mistake that does not show it.
pub(super) fn read(
    settings: &Draft<Settings>,
    environment: &Environment,
    mistakes: &mut Mistakes,
) -> (Option<AdminToken>, Option<String>) {
    let (place, text) = if let Some(token) = environment.get("KEYTOLL_ADMIN_TOKEN") {
        let text = token.to_str().map(str::to_owned).ok_or(Fault::NotUtf8);
        (Place::Variable("KEYTOLL_ADMIN_TOKEN".to_owned()), text.map(|text| (text, None)))
    } else {
        let Some(path) = settings.parts.token_file.as_deref() else { return (None, None) };
        let place = settings.place("admin.token_file");
        let path = match &place {
            Place::Line { file, .. } => file.parent().unwrap_or(Path::new("")).join(path),
            Place::File(_) | Place::Variable(_) | Place::Flag(_) | Place::Nowhere => path.to_owned(),
        };
        (place, of_file(&path))
    };
    let token = text.and_then(|(text, warning)| {
        let text = text.trim_end_matches(['\r', '\n']);
        let fault = if text.len() < 16 { Fault::TokenTooShort } else { Fault::TokenCharacters };
        Ok((AdminToken::new(text).ok_or(fault)?, warning))
    });
    match token {
        Ok((token, warning)) => (Some(token), warning),
        Err(fault) => {
            mistakes.add(place, "admin.token_file", fault);
            (None, None)
        }
    }
}

/// The text of a token file, and a warning when others can read it.
fn of_file(path: &Path) -> Result<(String, Option<String>), Fault> {
    let file = files::open_regular(path, File::options().read(true), Links::Follow).map_err(unopened)?;
    // Of the file that was opened, wherever a link led.
    let mode = file.metadata().map_err(|error| Fault::Unreadable(error.kind()))?.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(Fault::File(FileFault::WritableByOthers { path: path.to_owned(), mode }));
    }
    refuse_open_directories(path)?;
    let warning = (mode & 0o044 != 0).then(|| {
        format!(
            "The admin token in {path} can be read by others (mode {mode:04o}): run chmod 600 {path}.",
            path = path.display()
        )
    });
    Ok((read_text(&file, FILE_BYTES)?, warning))
}

/// Refuses a file, or a link to one, in a directory where every user may put another in its place: one that all may write,
/// without the sticky bit.
fn refuse_open_directories(path: &Path) -> Result<(), Fault> {
    let resolved = fs::canonicalize(path).map_err(|error| Fault::Unreadable(error.kind()))?;
    for path in [path, &resolved] {
        let directory = files::directory_of(path);
        let mode = fs::metadata(directory).map_err(|error| Fault::Unreadable(error.kind()))?.mode();
        if mode & 0o1002 == 0o002 {
            return Err(Fault::File(FileFault::ReplaceableByOthers { directory: PathBuf::from(directory) }));
        }
    }
    Ok(())
}
