//! The number of the newest generation, kept beside the generations: when the last of them is lost, the one before looks like the
//! newest, and nothing else would tell.
//!
//! It is written after a publish and without waiting for the disk, so it may lag behind; it never runs ahead. It names its own file,
//! because a backup that is taken while a server runs may copy it later than the generations: what was copied says nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::root::Root;

const FILE: &str = "_clientele/newest";

/// Where the number is kept.
#[derive(Debug)]
pub(crate) struct Highest(PathBuf);

impl Highest {
    /// That of a folder; a bucket loses no objects.
    pub(super) fn of(root: &Root) -> Option<Self> {
        root.location().folder().map(|folder| Self(folder.join(FILE)))
    }

    /// The number, when one was noted here.
    pub(crate) fn read(&self) -> Option<u64> {
        let file = File::open(&self.0).ok()?;
        let text = std::io::read_to_string(&file).ok()?;
        let mut words = text.split_whitespace();
        let (number, inode) = (words.next()?.parse().ok()?, words.next()?.parse::<u64>().ok()?);
        let is_whole = words.next()?.parse() == Ok(sum(number, inode));
        (is_whole && inode == file.metadata().ok()?.ino()).then_some(number)
    }

    /// Notes that a generation was published. What goes wrong here takes a check away and no data.
    pub(crate) fn note(&self, number: u64) {
        let written = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let file =
                options.write(true).create(true).truncate(false).mode(0o600).open(&self.0)?;
            let inode = file.metadata()?.ino();
            let text = format!("{number:020} {inode:020} {:010}\n", sum(number, inode));
            // In place and always as long: the file stays the same one.
            file.write_all_at(text.as_bytes(), 0)
        };
        if let Err(error) = written() {
            tracing::debug!(%error, "the newest generation could not be noted");
        }
    }
}

fn sum(number: u64, inode: u64) -> u32 {
    crc32fast::hash(format!("{number} {inode}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_or_a_torn_note_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let noted = Highest(dir.path().join("newest"));
        assert_eq!(noted.read(), None);
        noted.note(7);
        noted.note(12);
        assert_eq!(noted.read(), Some(12));
        let copy = Highest(dir.path().join("copy"));
        std::fs::copy(&noted.0, &copy.0).unwrap();
        assert_eq!(copy.read(), None);
        copy.note(3);
        assert_eq!(copy.read(), Some(3));
        let torn = std::fs::read_to_string(&noted.0).unwrap().replacen("12", "13", 1);
        std::fs::write(&noted.0, torn).unwrap();
        assert_eq!(noted.read(), None);
    }
}
