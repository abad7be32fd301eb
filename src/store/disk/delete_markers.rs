//! Deletes since a checkpoint was made, noted beside the checkpoint.
//!
//! A delete stands for a definitive no. When a checkpoint replaces a corrupt database, later deletes are lost
//! with the database, and a no would become a yes. So each delete is also noted in a file of the newest
//! checkpoint, and applied to the checkpoint that takes over. The file is synced before the log of the
//! database, so it has every delete that the database has.
//!
//! An entry is a byte for the family, a byte for the key's length, the key, and four bytes of checksum. If it
//! is unknown what was deleted, every record of the deniable families is dropped: a miss costs a call to the
//! issuer, and a wrong yes must not happen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use super::layout::TOMBSTONES_FILE;
use crate::tiers::record::Family;

const CHECK_LENGTH: usize = 4;

/// The greatest length of the file, in bytes: some 400,000 deletes. More deletes than that stand for
/// everything.
const LIMIT: u64 = 16 * 1024 * 1024;

/// In place of a family: everything is deleted.
const EVERYTHING: u8 = 0xff;

/// The families whose records can be deleted by a definitive no.
pub(super) const DENIABLE: [Family; 2] = [Family::Verdicts, Family::Profiles];

/// The open file of the newest checkpoint.
#[derive(Debug)]
pub(super) struct DeleteMarkers {
    file: File,
    length: u64,
    unsynced: bool,
}

/// Which records.
type Keys = Vec<(Family, Vec<u8>)>;

/// The records to delete from a checkpoint that takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deleted {
    /// These records.
    These(Keys),
    /// It is unknown which.
    Unknown,
}

impl DeleteMarkers {
    /// Creates the empty file of a new checkpoint.
    pub(super) fn start(checkpoint: &Path) -> io::Result<()> {
        File::create(checkpoint.join(TOMBSTONES_FILE))?.sync_all()
    }

    /// Opens the file of a checkpoint to append to it. Removes an entry that a crash cut short.
    pub(super) fn of(checkpoint: &Path) -> io::Result<Self> {
        let path = checkpoint.join(TOMBSTONES_FILE);
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It is unknown what was deleted before. That fact must not be lost.
                let everything = everything();
                fs::write(&path, &everything)?;
                everything
            }
            content => content?,
        };
        let (entries, rest) = entries(&content);
        drop(entries);
        let file = OpenOptions::new().append(true).open(&path)?;
        let mut length = content.len() as u64;
        if !rest.is_empty() && is_cut_off(rest) {
            length -= rest.len() as u64;
            file.set_len(length)?;
        }
        Ok(Self { file, length, unsynced: false })
    }

    /// Notes deletes.
    pub(super) fn note<'a>(&mut self, deletes: impl Iterator<Item = (Family, &'a [u8])>) -> io::Result<()> {
        let mut text = Vec::new();
        for (family, key) in deletes {
            let entry = match u8::try_from(key.len()) {
                Ok(length) => [&[number(family), length], key].concat(),
                Err(_) => vec![EVERYTHING, 0],
            };
            text.extend_from_slice(&entry);
            text.extend_from_slice(&check(&entry));
        }
        if text.is_empty() || self.length > LIMIT {
            return Ok(());
        }
        if self.length + text.len() as u64 > LIMIT {
            text = everything();
            self.length = LIMIT;
        }
        self.file.write_all(&text)?;
        self.length += text.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// Copies the deletes noted beside the checkpoint `newer`, which is removed, to `older`, which stays.
    pub(super) fn carry(newer: &Path, older: &Path) -> io::Result<()> {
        let mut markers = Self::of(older)?;
        match Deleted::since(newer) {
            Deleted::These(keys) => {
                markers.note(keys.iter().map(|(family, key)| (*family, key.as_slice())))?;
            }
            Deleted::Unknown => {
                markers.file.write_all(&everything())?;
                markers.unsynced = true;
            }
        }
        markers.sync()
    }

    /// Syncs the noted deletes to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }
}

impl Deleted {
    /// The deletes noted beside a checkpoint.
    pub(super) fn since(checkpoint: &Path) -> Self {
        let Ok(content) = fs::read(checkpoint.join(TOMBSTONES_FILE)) else { return Self::Unknown };
        match entries(&content) {
            (Some(entries), rest) if rest.is_empty() || is_cut_off(rest) => Self::These(entries),
            _ => Self::Unknown,
        }
    }

    /// These deletes and those noted beside another checkpoint.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::These(mut these), Self::These(those)) => {
                these.extend(those);
                Self::These(these)
            }
            _ => Self::Unknown,
        }
    }
}

/// The entry that stands for everything.
fn everything() -> Vec<u8> {
    let entry = [EVERYTHING, 0];
    [&entry[..], &check(&entry)].concat()
}

/// The whole entries up to the first damaged one, and the rest. `None` instead of entries if one stands for
/// everything.
fn entries(mut content: &[u8]) -> (Option<Keys>, &[u8]) {
    let mut entries = Some(Vec::new());
    while let Some((family, key, rest)) = entry(content) {
        match family {
            Some(family) => entries.iter_mut().for_each(|entries| entries.push((family, key.to_vec()))),
            None => entries = None,
        }
        content = rest;
    }
    (entries, content)
}

/// The entry at the start of `content`, and the rest.
fn entry(content: &[u8]) -> Option<(Option<Family>, &[u8], &[u8])> {
    let [first, length, ..] = content else { return None };
    let (entry, rest) = content.split_at_checked(2 + usize::from(*length))?;
    let (checked, rest) = rest.split_at_checked(CHECK_LENGTH)?;
    let family = Family::ALL.into_iter().find(|family| number(*family) == *first);
    let is_entry = checked == check(entry) && (family.is_some() || *first == EVERYTHING);
    is_entry.then_some((family, entry.get(2..)?, rest))
}

/// Whether a crash explains what follows the last whole entry: a part of an entry, or zeros from
/// preallocation.
fn is_cut_off(rest: &[u8]) -> bool {
    let is_part = match rest {
        [_, length, ..] => rest.len() < 2 + usize::from(*length) + CHECK_LENGTH,
        _ => true,
    };
    is_part || rest.iter().all(|byte| *byte == 0)
}

/// No number is zero, because a file system may fill the end of a file with zeros after a crash.
const fn number(family: Family) -> u8 {
    match family {
        Family::Verdicts => 1,
        Family::Profiles => 2,
        Family::Keys => 3,
        Family::Revocations => 4,
    }
}

fn check(entry: &[u8]) -> [u8; CHECK_LENGTH] {
    let digest = digest(&SHA256, entry);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these(keys: &[u8]) -> Deleted {
        Deleted::These(keys.iter().map(|key| (Family::Verdicts, vec![*key; 32])).collect())
    }

    fn note(directory: &Path, keys: &[u8]) {
        let keys: Vec<_> = keys.iter().map(|key| [*key; 32]).collect();
        let mut markers = DeleteMarkers::of(directory).unwrap();
        markers.note(keys.iter().map(|key| (Family::Verdicts, &key[..]))).unwrap();
        markers.sync().unwrap();
    }

    #[test]
    fn what_was_noted_is_found_again_also_behind_an_entry_that_a_crash_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOMBSTONES_FILE);
        assert_eq!(Deleted::since(directory.path()), Deleted::Unknown, "without the file nothing is known");
        note(directory.path(), &[1]);
        assert_eq!(Deleted::since(directory.path()), Deleted::Unknown, "nor by going on");
        DeleteMarkers::start(directory.path()).unwrap();
        assert_eq!(Deleted::since(directory.path()), these(&[]));
        note(directory.path(), &[1, 2]);
        let whole = fs::read(&path).unwrap();
        for cut in [vec![1], whole[..20].to_vec(), vec![0; 5000]] {
            fs::write(&path, [&whole[..], &cut].concat()).unwrap();
            assert_eq!(Deleted::since(directory.path()), these(&[1, 2]));
            note(directory.path(), &[3]);
            assert_eq!(Deleted::since(directory.path()), these(&[1, 2, 3]));
        }
    }

    #[test]
    fn what_is_damaged_or_too_much_stands_for_everything() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOMBSTONES_FILE);
        DeleteMarkers::start(directory.path()).unwrap();
        note(directory.path(), &[7; 20]);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[50] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(Deleted::since(directory.path()), Deleted::Unknown);
        note(directory.path(), &[8]);
        assert_eq!(Deleted::since(directory.path()), Deleted::Unknown);

        fs::write(&path, &whole).unwrap();
        let mut markers = DeleteMarkers::of(directory.path()).unwrap();
        markers.length = LIMIT - 10;
        markers.note([(Family::Profiles, &[9; 32][..])].into_iter()).unwrap();
        markers.note([(Family::Profiles, &[9; 32][..])].into_iter()).unwrap();
        assert_eq!(Deleted::since(directory.path()), Deleted::Unknown);
        assert!(fs::metadata(&path).unwrap().len() < whole.len() as u64 + 10);
    }
}
