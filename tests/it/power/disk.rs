//! A disk, followed step by step: what is sure to be on it, and what may be.
//!
//! A sync makes what was written to its file before sure, one of the directory the names that were made and taken
//! away. Of what came after the last one each sector of 512 bytes holds what it held at some moment since then, each
//! at another one, and so do the length of each file and the directory.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use fastrand::Rng;

use crate::harness::{Deed, Step};

const SECTOR: usize = 512;
/// Before the rest of its name.
const DATABASE: &str = "auth.db";

/// The files of one database, named as [`Step`] names them.
pub(super) struct Disk {
    files: Vec<File>,
    /// Which file has a name: for sure, and at the end.
    sure: HashMap<String, usize>,
    now: HashMap<String, usize>,
}

#[derive(Default)]
struct File {
    sure: Vec<u8>,
    since: Vec<Deed>,
}

impl Disk {
    /// What stands there now, all of it on the disk; the index in memory is no part of it.
    pub(super) fn of(directory: &Path) -> Disk {
        let (mut files, mut sure) = (Vec::new(), HashMap::new());
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().strip_prefix(DATABASE).unwrap().to_owned();
            if name != "-shm" {
                sure.insert(name, files.len());
                files.push(File { sure: fs::read(path).unwrap(), since: Vec::new() });
            }
        }
        Disk { files, now: sure.clone(), sure }
    }

    pub(super) fn follow(&mut self, step: Step) {
        match (step.file.as_str(), step.deed) {
            ("/", _) => self.sure = self.now.clone(),
            (_, Deed::Create) => {
                self.now.insert(step.file, self.files.len());
                self.files.push(File::default());
            }
            (_, Deed::Unlink) => {
                self.now.remove(&step.file);
            }
            (_, deed) => {
                let file = &mut self.files[self.now[&step.file]];
                match deed {
                    Deed::Sync => file.sync(),
                    deed => file.since.push(deed),
                }
            }
        }
    }

    /// Puts the files there as the disk may hold them when the power goes now.
    pub(super) fn cut(self, random: &mut Rng, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let mut names: Vec<&String> = self.sure.keys().chain(self.now.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let which = if random.bool() { &self.sure } else { &self.now };
            if let Some(file) = which.get(name) {
                let content = self.files[*file].cut(random);
                fs::write(directory.join(format!("{DATABASE}{name}")), content).unwrap();
            }
        }
    }
}

impl File {
    fn sync(&mut self) {
        for deed in std::mem::take(&mut self.since) {
            match deed {
                Deed::Write { place, data } => {
                    let end = place + data.len();
                    self.sure.resize(self.sure.len().max(end), 0);
                    self.sure[place..end].copy_from_slice(&data);
                }
                Deed::Truncate { length } => self.sure.resize(length, 0),
                Deed::Create | Deed::Unlink | Deed::Sync => unreachable!("not of a file's content"),
            }
        }
    }

    fn cut(&self, random: &mut Rng) -> Vec<u8> {
        let deeds = self.since.len();
        // Everything, but for a little; nothing; or any part: what a disk that is idle, far behind, or busy would hold.
        let manner = random.u8(..4);
        let mut moment = || match manner {
            0 => 0,
            1 if random.u8(..100) > 0 => deeds,
            _ => random.usize(..=deeds),
        };
        let length_at = moment();
        let mut moments: HashMap<usize, usize> = HashMap::new();
        let (mut content, mut length) = (self.sure.clone(), self.sure.len());
        for (number, deed) in self.since.iter().enumerate() {
            let mut is_done = |sector: usize| number < *moments.entry(sector).or_insert_with(&mut moment);
            let now = match deed {
                Deed::Write { place, data } => {
                    let end = place + data.len();
                    content.resize(content.len().max(end), 0);
                    for part in sectors(*place, end).filter(|part| is_done(part.start / SECTOR)) {
                        content[part.clone()].copy_from_slice(&data[part.start - place..part.end - place]);
                    }
                    length.max(end)
                }
                Deed::Truncate { length } => {
                    let parts = sectors(*length, content.len()).filter(|part| is_done(part.start / SECTOR));
                    parts.for_each(|part| content[part].fill(0));
                    *length
                }
                Deed::Create | Deed::Unlink | Deed::Sync => unreachable!("not of a file's content"),
            };
            if number < length_at {
                length = now;
            }
        }
        content.resize(length, 0);
        content
    }
}

/// The parts of a range that are in one sector each.
fn sectors(start: usize, end: usize) -> impl Iterator<Item = Range<usize>> {
    (start / SECTOR..end.div_ceil(SECTOR))
        .map(move |sector| (sector * SECTOR).max(start)..((sector + 1) * SECTOR).min(end))
        .filter(|part| !part.is_empty())
}
