//! Opens the database, and replaces a corrupt one.

use std::fs;

use super::checkpoint::{self, Recovered};
use super::database;
use super::engine::Engine;
use super::error::DiskError;
use super::fault::Fault;
use super::kept;
use super::layout::Layout;
use super::settings::DiskSettings;
use crate::clock::Clock;

/// Opens the database at the start, and again after a fault of the disk.
pub(super) struct Opener {
    layout: Layout,
    settings: DiskSettings,
    clock: Clock,
}

impl Opener {
    pub(super) fn new(settings: DiskSettings, clock: Clock) -> Self {
        Self { layout: Layout::new(&settings.path), settings, clock }
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) const fn settings(&self) -> &DiskSettings {
        &self.settings
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Opens the database. Replaces a corrupt one first.
    pub(super) fn open(&self) -> Result<(Engine, Option<Recovered>), DiskError> {
        self.layout.prepare()?;
        self.layout.finish_restoring()?;
        let opened = match self.layout.has_database() {
            Ok(false) if kept::newest(&self.layout).is_some() => {
                Err(Fault::Corrupt("there is no database in db/ although there is a checkpoint".to_owned()))
            }
            Ok(there) => database::open(&self.layout, !there, &self.settings, &self.clock),
            Err(cause) => Err(Fault::Corrupt(cause)),
        };
        match opened {
            Ok(engine) => {
                database::note_progress(&self.layout)?;
                Ok((engine, None))
            }
            Err(Fault::Corrupt(cause)) => self.replace(cause),
            Err(fault) => Err(self.error(&fault)),
        }
    }

    /// Opens the database again after a fault; replaces it first if it is `corrupt`. A deleted data directory
    /// is made again, but not the directory above it: that may be a mount that comes back.
    pub(super) fn reopen(&self, corrupt: Option<String>) -> Result<(Engine, Option<Recovered>), DiskError> {
        let parent = self.layout.root().parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            fs::metadata(parent).map_err(|source| DiskError::FileSystem {
                doing: "looking for the directory that holds the data directory",
                path: parent.to_owned(),
                source,
            })?;
        }
        match corrupt {
            Some(cause) => self.replace(cause),
            None => self.open(),
        }
    }

    /// Replaces a corrupt database by the newest good checkpoint, or by an empty database, and opens that.
    fn replace(&self, cause: String) -> Result<(Engine, Option<Recovered>), DiskError> {
        if self.layout.database().exists()
            && let Err(fault @ Fault::Locked) =
                database::open(&self.layout, false, &self.settings, &self.clock)
        {
            return Err(self.error(&fault));
        }
        let recovered = checkpoint::recover(&self.layout, &self.settings, &self.clock, cause)?;
        // The note describes the database that was replaced.
        let create = recovered.restored_from.is_none();
        let engine = Engine::open(&self.layout.database(), create, &self.settings, &self.clock)
            .map_err(|fault| self.error(&fault))?;
        database::note_progress(&self.layout)?;
        Ok((engine, Some(recovered)))
    }

    fn error(&self, fault: &Fault) -> DiskError {
        match fault {
            Fault::Locked => DiskError::InUse { path: self.layout.database() },
            fault => DiskError::engine("opening the disk store", self.layout.root(), fault),
        }
    }
}
