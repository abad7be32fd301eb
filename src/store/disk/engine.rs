//! RocksDB as this store uses it: its options, its four column families, and what its errors mean.
//!
//! Only this file and `checkpoint.rs` use RocksDB's types. Everything is bounded: block cache and memtables
//! by configuration, the write-ahead log by twice the memtables, RocksDB's own log by a few files of one
//! mebibyte.

use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{
    BlockBasedOptions, BlockBasedTablePinningTier, BottommostLevelCompaction, Cache, ColumnFamily,
    ColumnFamilyDescriptor, CompactOptions, CompactionDecision, DB, DBRecoveryMode, ErrorKind, LogLevel,
    LruCacheOptions, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions, properties,
};

use super::fault::Fault;
use super::settings::DiskSettings;
use crate::clock::{Clock, Ticks, Timestamp};
use crate::tiers::record::Family;
use crate::tiers::seal;

/// An open RocksDB.
pub(super) struct Engine {
    db: DB,
    in_memory: ReadOptions,
    writing: WriteOptions,
}

/// The result of a read that does not touch the disk.
pub(super) enum InMemory {
    /// The record, or that there is none.
    Known(Option<Vec<u8>>),
    /// Unknown: the disk has to be read.
    NeedsDisk,
}

/// Writes that are applied together.
#[derive(Default)]
pub(super) struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Keep this value.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Forget the key.
    Delete(Family, Vec<u8>),
}

impl Engine {
    /// Opens the database in `path`. Creates it if `create`.
    pub(super) fn open(
        path: &Path,
        create: bool,
        settings: &DiskSettings,
        clock: &Clock,
    ) -> Result<Self, Fault> {
        let options = database_options(create, settings);
        let cache = block_cache(settings);
        let expiry = ExpiryClock::new(clock);
        let names = Family::ALL.map(Family::name).into_iter().chain([rocksdb::DEFAULT_COLUMN_FAMILY_NAME]);
        let families = names
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(settings, &cache, expiry.clone())));
        let db = DB::open_cf_descriptors(&options, path, families).map_err(|error| Fault::from(&error))?;
        let mut in_memory = ReadOptions::default();
        in_memory.set_read_tier(ReadTier::BlockCache);
        let mut writing = WriteOptions::default();
        // A stall must not block the writer without limit: RocksDB returns an error instead.
        writing.set_no_slowdown(true);
        Ok(Self { db, in_memory, writing })
    }

    /// The value under `key`, from disk if necessary. May block.
    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.db.get_cf(self.family(family)?, key)?)
    }

    /// The value under `key` if memtables, filters and block cache have the answer. Never touches the disk.
    pub(super) fn get_in_memory(&self, family: Family, key: &[u8]) -> Result<InMemory, Fault> {
        match self.db.get_cf_opt(self.family(family)?, key, &self.in_memory) {
            Ok(value) => Ok(InMemory::Known(value)),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(InMemory::NeedsDisk),
            Err(error) => Err(Fault::from(&error)),
        }
    }

    /// Applies all changes of the batch or none. The operating system has them afterwards; they are on the
    /// disk after the next [`Engine::sync`].
    pub(super) fn write(&self, batch: &Batch) -> Result<(), Fault> {
        let mut changes = WriteBatch::default();
        for change in &batch.changes {
            match change {
                Change::Put(family, key, value) => changes.put_cf(self.family(*family)?, key, value),
                Change::Delete(family, key) => changes.delete_cf(self.family(*family)?, key),
            }
        }
        Ok(self.db.write_opt(changes, &self.writing)?)
    }

    /// As [`Engine::write`], with [`retry_while_stalled`].
    pub(super) fn write_with_retry(&self, batch: &Batch) -> Result<(), Fault> {
        retry_while_stalled(|| self.write(batch))
    }

    /// Syncs all writes to the disk.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Drops every record of the families and rewrites their files, so that the bytes are gone, too.
    pub(super) fn purge(&self, families: &[Family]) -> Result<(), Fault> {
        let mut whole = CompactOptions::default();
        whole.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for family in families {
            let handle = self.family(*family)?;
            self.db.delete_range_cf(handle, &b""[..], &LAST_KEY[..])?;
            self.db.delete_file_in_range_cf(handle, &b""[..], &LAST_KEY[..])?;
            self.db.flush_cf(handle)?;
            self.db.compact_range_cf_opt(handle, None::<&[u8]>, None::<&[u8]>, &whole);
        }
        self.sync()
    }

    /// Compacts every family now, which drops expired records.
    pub(super) fn compact(&self) -> Result<(), Fault> {
        let mut whole = CompactOptions::default();
        whole.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for family in Family::ALL {
            let handle = self.family(family)?;
            self.db.flush_cf(handle)?;
            self.db.compact_range_cf_opt(handle, None::<&[u8]>, None::<&[u8]>, &whole);
        }
        Ok(())
    }

    /// Passes every record of a family to `visit`, and checks the checksum of every block.
    pub(super) fn scan(&self, family: Family, visit: impl FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        self.scan_between(family, &[], None, visit)
    }

    /// The same for the keys from `first` up to but not including `end`, or up to the last one.
    pub(super) fn scan_between(
        &self,
        family: Family,
        first: &[u8],
        end: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Fault> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut records = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        records.seek(first);
        while let Some((key, value)) = records.item() {
            visit(key, value);
            records.next();
        }
        Ok(records.status()?)
    }

    /// Passes every readable record of a family to `visit`. Skips blocks with a wrong checksum and the keys
    /// within them. Stops when `visit` returns a fault.
    pub(super) fn scan_what_opens(
        &self,
        family: Family,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (mut from, mut step) = (Vec::new(), FIRST_STEP);
        loop {
            let mut options = ReadOptions::default();
            options.fill_cache(false);
            let mut records = self.db.raw_iterator_cf_opt(self.family(family)?, options);
            records.seek(&from);
            while let Some((key, value)) = records.item() {
                visit(key, value)?;
                from = [key, &[0]].concat();
                step = FIRST_STEP;
                records.next();
            }
            if records.status().is_ok() {
                return Ok(());
            }
            // RocksDB does not say where the next good block begins. Search for it with steps that double
            // each time. Keys are digests, spread evenly, so the search skips little more than what is lost.
            let Some(next) = leading(&from).checked_add(step) else { return Ok(()) };
            from = next.to_be_bytes().to_vec();
            step = step.saturating_mul(2);
        }
    }

    /// How many changes it has had, about; zero if nothing was ever written to it.
    pub(super) fn sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// About how many records a family has.
    pub(super) fn records(&self, family: Family) -> Option<u64> {
        let handle = self.db.cf_handle(family.name())?;
        self.db.property_int_value_cf(handle, properties::ESTIMATE_NUM_KEYS).ok()?
    }

    /// The database itself, for checkpoints.
    pub(super) const fn database(&self) -> &DB {
        &self.db
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, Fault> {
        let missing = || Fault::Corrupt(format!("the column family {} is not there", family.name()));
        self.db.cf_handle(family.name()).ok_or_else(missing)
    }
}

impl Batch {
    /// Adds a change.
    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push(change);
    }

    /// How many changes it has.
    pub(super) const fn len(&self) -> usize {
        self.changes.len()
    }

    /// How many bytes of keys and values it has.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys that it deletes.
    pub(super) fn deletes(&self) -> impl Iterator<Item = (Family, &[u8])> {
        self.changes.iter().filter_map(|change| match change {
            Change::Delete(family, key) => Some((*family, key.as_slice())),
            Change::Put(..) => None,
        })
    }

    /// The changes that stand for a definitive no: deletes and deny records.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &Change> {
        let is_refusal =
            |change: &&Change| matches!(change, Change::Delete(..) | Change::Put(Family::Revocations, ..));
        self.changes.iter().filter(is_refusal)
    }

    /// The changes, for use when they could not be applied.
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

impl FromIterator<Change> for Batch {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        let mut batch = Self::default();
        changes.into_iter().for_each(|change| batch.push(change));
        batch
    }
}

impl Change {
    /// The bytes of its key and value.
    pub(super) const fn bytes(&self) -> usize {
        match self {
            Self::Put(_, key, value) => key.len() + value.len(),
            Self::Delete(_, key) => key.len(),
        }
    }
}

/// How long RocksDB may stall writes before that counts as a fault of the disk.
const MAX_STALL: Duration = Duration::from_secs(10);

/// Retries an action for a while if RocksDB rejects it because it would have to wait.
pub(super) fn retry_while_stalled(action: impl Fn() -> Result<(), Fault>) -> Result<(), Fault> {
    let started = Instant::now();
    loop {
        match action() {
            Err(Fault::Stalled) if started.elapsed() < MAX_STALL => {
                std::thread::sleep(Duration::from_millis(10))
            }
            done => return done,
        }
    }
}

/// Above every key in use: digests have 32 bytes, other keys are text, and no byte of text is 0xff.
const LAST_KEY: [u8; 33] = [0xff; 33];

const MEBIBYTE: usize = 1024 * 1024;

/// The first step of the search for a good block, added to the first eight bytes of a key.
const FIRST_STEP: u64 = 1 << 32;

/// A key's first eight bytes as a number.
fn leading(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(key).for_each(|(byte, of_key)| *byte = *of_key);
    u64::from_be_bytes(bytes)
}

fn database_options(create: bool, settings: &DiskSettings) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(true);
    // Entries before a torn or damaged part of the log are kept; entries after it are not trusted.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_db_write_buffer_size(settings.memtables);
    // Otherwise a family with few writes would keep every log since its last write.
    options.set_max_total_wal_size(2 * settings.memtables as u64);
    options.set_max_background_jobs(2);
    // RocksDB's own threads delete files, never a thread that only reads.
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_skip_stats_update_on_db_open(true);
    options.set_manifest_preallocation_size(64 * 1024);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MEBIBYTE);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn block_cache(settings: &DiskSettings) -> Cache {
    let mut options = LruCacheOptions::default();
    options.set_capacity(settings.block_cache);
    // Few shards, because few threads use them. A block has to fit into its shard. RocksDB's default of 64
    // shards leaves too little room for the index of a table file, which would then be read from the disk
    // each time.
    options.set_num_shard_bits(2);
    Cache::new_lru_cache_opts(&options)
}

fn family_options(settings: &DiskSettings, cache: &Cache, expiry: ExpiryClock) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    // Filters and indexes count against the one bound on memory.
    table.set_cache_index_and_filter_blocks(true);
    // They stay in memory, about 6 bytes a record, so that a lookup of a missing key never needs the disk.
    table.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::All);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(settings.memtables / Family::ALL.len());
    // Small, so that the index and filter of one file are a small part of the block cache.
    options.set_target_file_size_base(16 * MEBIBYTE as u64);
    // Sealed records look random and do not compress.
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_compaction_filter_factory(expiry);
    // Every file passes the filter once a day, so no record outlives its expiry by more than a day.
    options.set_periodic_compaction_seconds(24 * 60 * 60);
    options
}

/// The time that is used for dropping expired records. It does not trust the wall clock at once: a clock that
/// is ahead, and is corrected later, must not empty the store meanwhile.
///
/// - During the first [`ExpiryClock::SETTLING`] nothing is dropped. A machine that starts with a wrong clock
///   has corrected it by then.
/// - After that it is the wall time, but at most [`ExpiryClock::STEP`] plus twice the monotonic time since
///   then. So a jump ahead by a year while holdfast runs drops nothing for half a year. It also catches up
///   with the wall time after the machine slept.
#[derive(Clone)]
struct ExpiryClock {
    clock: Clock,
    opened: Ticks,
    settled: Arc<OnceLock<(Timestamp, Ticks)>>,
}

impl ExpiryClock {
    /// How long a clock may be wrong after the start without harm.
    const SETTLING: Duration = Duration::from_secs(60 * 60);

    /// How far wall time may be ahead of monotonic time and still be trusted.
    const STEP: Duration = Duration::from_secs(60 * 60);

    fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), opened: clock.ticks(), settled: Arc::default() }
    }

    fn now(&self) -> Timestamp {
        let ticks = self.clock.ticks();
        if ticks.since(self.opened) < Self::SETTLING {
            return Timestamp::EPOCH;
        }
        let (settled, since) = *self.settled.get_or_init(|| (self.clock.now(), ticks));
        let elapsed = ticks.since(since);
        self.clock.now().min(settled.after(elapsed).after(elapsed).after(Self::STEP))
    }
}

impl CompactionFilterFactory for ExpiryClock {
    type Filter = ExpiryFilter;

    fn create(&mut self, _: CompactionFilterContext) -> ExpiryFilter {
        ExpiryFilter { now: self.now() }
    }

    fn name(&self) -> &CStr {
        c"holdfast-expiry"
    }
}

/// Drops records that are expired by their clear prefix, or too short to have one.
struct ExpiryFilter {
    now: Timestamp,
}

impl CompactionFilter for ExpiryFilter {
    fn filter(&mut self, _: u32, _: &[u8], value: &[u8]) -> CompactionDecision {
        match seal::useless_from(value) {
            Some(useless_from) if useless_from > self.now => CompactionDecision::Keep,
            Some(_) | None => CompactionDecision::Remove,
        }
    }

    fn name(&self) -> &CStr {
        c"holdfast-expiry"
    }
}
