//! What was deleted since a checkpoint was made, written beside the checkpoint.
//!
//! A delete stands for a definitive no. When a checkpoint takes the place of a corrupt database, the deletes of the
//! meantime are lost with it, and the no would be a yes again. So each is noted in a file of the newest checkpoint as
//! well, and applied to whichever checkpoint takes over. The file is brought to the disk before the log of the database is,
//! so it lacks no delete that the database would have had.
//!
//! An entry is a byte for the family, a byte for the key's length, the key, and four bytes of checksum. If it cannot be
//! told what was deleted, all that a delete may be meant for is dropped: a miss costs a question, a wrong yes is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use super::layout::TOMBSTONES_FILE;
use crate::tiers::record::Family;

const CHECK_LENGTH: usize = 4;

/// How long the file may become, in bytes: some 400,000 deletes. What is more stands for everything.
const LIMIT: u64 = 16 * 1024 * 1024;

/// In place of a family: more than can be named.
const EVERYTHING: u8 = 0xff;

/// The families whose records a delete may be meant for.
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

/// What is to be deleted from a checkpoint that takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deleted {
    /// These records.
    These(Keys),
    /// Nobody knows which.
    Unknown,
}

impl DeleteMarkers {
    /// Starts the file of a checkpoint that is being made.
    pub(super) fn start(checkpoint: &Path) -> io::Result<()> {
        File::create(checkpoint.join(TOMBSTONES_FILE))?.sync_all()
    }

    /// Opens the file of a checkpoint to go on with it. An entry that a crash has cut off is removed.
    pub(super) fn of(checkpoint: &Path) -> io::Result<Self> {
        let path = checkpoint.join(TOMBSTONES_FILE);
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Nobody knows what was deleted before, and that must not be lost.
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

    /// Notes beside the checkpoint `older`, which stays, what was noted beside `newer`, which goes.
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

    /// Brings what was noted to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }
}

impl Deleted {
    /// What was noted beside a checkpoint.
    pub(super) fn since(checkpoint: &Path) -> Self {
        let Ok(content) = fs::read(checkpoint.join(TOMBSTONES_FILE)) else { return Self::Unknown };
        match entries(&content) {
            (Some(entries), rest) if rest.is_empty() || is_cut_off(rest) => Self::These(entries),
            _ => Self::Unknown,
        }
    }

    /// This and what was noted beside another one.
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

/// The entry that stands for more than can be named.
fn everything() -> Vec<u8> {
    let entry = [EVERYTHING, 0];
    [&entry[..], &check(&entry)].concat()
}

/// The entries that are whole, as far as the first that is not, and what follows; no entries if one stands for
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

/// The entry that `content` begins with, and what follows it.
fn entry(content: &[u8]) -> Option<(Option<Family>, &[u8], &[u8])> {
    let [first, length, ..] = content else { return None };
    let (entry, rest) = content.split_at_checked(2 + usize::from(*length))?;
    let (checked, rest) = rest.split_at_checked(CHECK_LENGTH)?;
    let family = Family::ALL.into_iter().find(|family| number(*family) == *first);
    let is_entry = checked == check(entry) && (family.is_some() || *first == EVERYTHING);
    is_entry.then_some((family, entry.get(2..)?, rest))
}

/// Whether a crash explains what follows the last whole entry: a part of one, or room that was never written to.
fn is_cut_off(rest: &[u8]) -> bool {
    let is_part = match rest {
        [_, length, ..] => rest.len() < 2 + usize::from(*length) + CHECK_LENGTH,
        _ => true,
    };
    is_part || rest.iter().all(|byte| *byte == 0)
}

/// No family's is zero, which is what a file system fills up with after a crash.
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
