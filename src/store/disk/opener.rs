//! Opens the database, and replaces one that is corrupt.

use super::checkpoint::{self, Recovered};
use super::engine::Engine;
use super::error::DiskError;
use super::fault::Fault;
use super::layout::Layout;
use super::settings::DiskSettings;
use crate::clock::Clock;

/// Opens the database, at the start and again after the disk failed.
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

    /// Opens the database; if it is corrupt, replaces it first.
    pub(super) fn open(&self) -> Result<(Engine, Option<Recovered>), DiskError> {
        self.layout.prepare()?;
        self.layout.finish_restoring()?;
        let opened = match self.layout.has_database() {
            Ok(there) => self.open_database(!there),
            Err(cause) => Err(Fault::Corrupt(cause)),
        };
        match opened {
            Ok(engine) => Ok((engine, None)),
            Err(Fault::Corrupt(cause)) => self.replace(cause),
            Err(fault) => Err(self.error(&fault)),
        }
    }

    /// Replaces a database that is corrupt by the newest good checkpoint, or by an empty one, and opens that.
    pub(super) fn replace(&self, cause: String) -> Result<(Engine, Option<Recovered>), DiskError> {
        if let Err(fault @ Fault::Locked) = self.open_database(false) {
            return Err(self.error(&fault));
        }
        let recovered = checkpoint::recover(&self.layout, &self.settings, &self.clock, cause)?;
        let engine =
            self.open_database(recovered.restored_from.is_none()).map_err(|fault| self.error(&fault))?;
        Ok((engine, Some(recovered)))
    }

    fn open_database(&self, create: bool) -> Result<Engine, Fault> {
        Engine::open(&self.layout.database(), create, &self.settings, &self.clock)
    }

    fn error(&self, fault: &Fault) -> DiskError {
        match fault {
            Fault::Locked => DiskError::InUse { path: self.layout.database() },
            fault => DiskError::engine("opening the disk store", self.layout.root(), fault),
        }
    }
}
