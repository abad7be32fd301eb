//! Deletes and deny records since a checkpoint was made, noted beside the checkpoint.
//!
//! A delete stands for a definitive no. When a checkpoint replaces a corrupt database, later deletes are lost
//! with the database, and a no would become a yes. So each delete is also noted in a file of the newest
//! checkpoint, and applied to the checkpoint that takes over. The file is synced before the log of the
//! database, so it has every delete that the database has.
//!
//! A deny record (a revocation) stands for a no as well, and is noted in the same way.
//!
//! An entry of a delete is a byte for the family, a byte for the key's length, the key, and four bytes of
//! checksum. An entry of a deny record is a byte, two bytes for the length of what follows, a byte for the
//! key's length, the key, the sealed record, and the checksum. If it is unknown what was deleted, every
//! record of the deniable families is dropped: a miss costs a call to the issuer, and a wrong yes must not
//! happen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use super::engine::Change;
use super::layout::DELETE_MARKERS_FILE;
use crate::tiers::record::Family;

const CHECK_LENGTH: usize = 4;

/// The greatest length of the file, in bytes: some 400,000 deletes. More deletes than that stand for
/// everything.
const LIMIT: u64 = 16 * 1024 * 1024;

/// In place of a family: a deny record follows.
const DENIES: u8 = 5;

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

/// The deletes and deny records to apply to a checkpoint that takes over, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deleted {
    /// Exactly these.
    These(Vec<Change>),
    /// It is unknown which records were deleted.
    Unknown,
}

impl DeleteMarkers {
    /// Creates the empty file of a new checkpoint.
    pub(super) fn start(checkpoint: &Path) -> io::Result<()> {
        File::create(checkpoint.join(DELETE_MARKERS_FILE))?.sync_all()
    }

    /// Opens the file of a checkpoint to append to it. Removes an entry that a crash cut short.
    pub(super) fn of(checkpoint: &Path) -> io::Result<Self> {
        let path = checkpoint.join(DELETE_MARKERS_FILE);
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

    /// Notes deletes and deny records.
    pub(super) fn note<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> io::Result<()> {
        let mut text = Vec::new();
        for change in changes {
            let entry = encode(change).unwrap_or_else(|| vec![EVERYTHING, 0]);
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
            Deleted::These(changes) => markers.note(changes.iter())?,
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
        let Ok(content) = fs::read(checkpoint.join(DELETE_MARKERS_FILE)) else { return Self::Unknown };
        match entries(&content) {
            (Some(entries), rest) if rest.is_empty() || is_cut_off(rest) => Self::These(entries),
            _ => Self::Unknown,
        }
    }

    /// These and those noted beside a newer checkpoint.
    pub(super) fn and(self, newer: Self) -> Self {
        match (self, newer) {
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
fn entries(mut content: &[u8]) -> (Option<Vec<Change>>, &[u8]) {
    let mut entries = Some(Vec::new());
    while let Some((change, rest)) = entry(content) {
        match change {
            Some(change) => entries.iter_mut().for_each(|entries| entries.push(change.clone())),
            None => entries = None,
        }
        content = rest;
    }
    (entries, content)
}

/// The entry at the start of `content`, and the rest. `None` inside if it stands for everything.
fn entry(content: &[u8]) -> Option<(Option<Change>, &[u8])> {
    let (entry, rest) = content.split_at_checked(length(content)?)?;
    let (checked, rest) = rest.split_at_checked(CHECK_LENGTH)?;
    let change = match *entry {
        [EVERYTHING, ..] => None,
        [DENIES, _, _, key, ref record @ ..] => {
            let (key, value) = record.split_at_checked(usize::from(key))?;
            Some(Change::Put(Family::Revocations, key.to_vec(), value.to_vec()))
        }
        [first, _, ref key @ ..] => {
            let family = Family::ALL.into_iter().find(|family| number(*family) == first)?;
            Some(Change::Delete(family, key.to_vec()))
        }
        _ => return None,
    };
    (checked == check(entry)).then_some((change, rest))
}

/// The length of the entry at the start of `content`, without its checksum; `None` if too little of it is
/// there.
fn length(content: &[u8]) -> Option<usize> {
    match *content {
        [DENIES, high, low, ..] => Some(3 + usize::from(u16::from_be_bytes([high, low]))),
        [DENIES, ..] => None,
        [_, key, ..] => Some(2 + usize::from(key)),
        _ => None,
    }
}

/// The entry of a change, without its checksum; `None` if its key or value is too long for one.
fn encode(change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Delete(family, key) => {
            Some([&[number(*family), u8::try_from(key.len()).ok()?], key.as_slice()].concat())
        }
        Change::Put(_, key, value) => {
            let [high, low] = u16::try_from(1 + key.len() + value.len()).ok()?.to_be_bytes();
            Some([&[DENIES, high, low, u8::try_from(key.len()).ok()?], key.as_slice(), value].concat())
        }
    }
}

/// Whether a crash explains what follows the last whole entry: a part of an entry, or zeros from
/// preallocation.
fn is_cut_off(rest: &[u8]) -> bool {
    let is_part = length(rest).is_none_or(|length| rest.len() < length + CHECK_LENGTH);
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
        Deleted::These(keys.iter().map(|key| Change::Delete(Family::Verdicts, vec![*key; 32])).collect())
    }

    fn note(directory: &Path, keys: &[u8]) {
        let mut markers = DeleteMarkers::of(directory).unwrap();
        let Deleted::These(changes) = these(keys) else { unreachable!() };
        markers.note(changes.iter()).unwrap();
        markers.sync().unwrap();
    }

    #[test]
    fn what_was_noted_is_found_again_also_behind_an_entry_that_a_crash_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DELETE_MARKERS_FILE);
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
        let path = directory.path().join(DELETE_MARKERS_FILE);
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
        let change = Change::Delete(Family::Profiles, vec![9; 32]);
        markers.note([&change].into_iter()).unwrap();
        markers.note([&change].into_iter()).unwrap();
        assert_eq!(Deleted::since(directory.path()), Deleted::Unknown);
        assert!(fs::metadata(&path).unwrap().len() < whole.len() as u64 + 10);
    }
}
