//! The cost of the stores, compared with lower bounds: a bare `quick_cache`, a bare RocksDB with the same
//! bytes, the bytes of the record itself. And how the cost of a lookup grows with the number of identities:
//! no faster than the floor's, which has to wait for main memory more often.
//!
//! **The floor of memory** is the payload, in the fewest bytes that it could have: the key that it is found
//! by, times of eight bytes, flags of one, and the texts. For an answer these are the header values that are
//! the identity's own and what route requirements may ask about; not the headers' names, which no entry
//! holds. Against it stands all that stays allocated when the stores are full, and what their tables use; not
//! what the allocator rounds up.
//!
//! Holdfast and floor take turns in the same process, and the median of the rounds counts; for the curve the
//! best one, since its points are measured minutes apart and must not tell what else ran then.
//! `HOLDFAST_BENCH_TEN_MILLION=1` adds the row of ten million identities, which takes five minutes more, 5 GB
//! under the temporary directory and 8 GB of memory.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has no result")]

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use aws_lc_rs::hmac;
use holdfast::answers::Answers;
use holdfast::clock::{Clock, Timestamp};
use holdfast::config::{Settings, Source};
use holdfast::decision::header_rule::HeaderRule;
use holdfast::decision::{ClaimsAsked, Pass};
use holdfast::identity::Identity;
use holdfast::revocation::{Checked, RevocationKey, RevocationSet};
use holdfast::store::archive::Archive;
use holdfast::store::disk::{DiskSettings, DiskStore};
use holdfast::store::open::SECRET_FILE;
use holdfast::store::stores::Stores;
use holdfast::telemetry::metrics::Metrics;
use holdfast::tiers::digest::{SubjectKey, TokenDigest, TokenDigester};
use holdfast::tiers::policy::{Plan, Policy, Serving};
use holdfast::tiers::record::{Family, IdentitySource, KeysRecord, ProfileRecord, Record as _};
use holdfast::tiers::seal::{OVERHEAD, Sealer};
use holdfast::tiers::secret::InstanceSecret;
use holdfast::tiers::table::{TierIndex, TierTable};
use holdfast::token::binding::Binding;
use holdfast::token::email::Email;
use holdfast::token::json;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 41;
/// Lookups of one side in one round.
const LOOKUPS: usize = 2_000;
const STARTS: usize = 7;
const MEBIBYTE: usize = 1024 * 1024;
/// What is not merely a busy machine: so many times the bound ends the run with an error.
const GROSS: f64 = 3.0;

fn main() -> ExitCode {
    let mut table = Table::new();
    let disk = Disk::new(Clock::system());
    memory_hit(&mut table);
    footprint(&mut table);
    let mut curve = Vec::new();
    disk.grow_to(10_000);
    curve.push(disk.curve(10_000));
    disk.grow_to(100_000);
    curve.push(disk.curve(100_000));
    disk_hit(&disk, &mut table);
    disk.grow_to(1_000_000);
    curve.push(disk.curve(1_000_000));
    start(&disk, &mut table);
    written(&mut table);
    if std::env::var_os("HOLDFAST_BENCH_TEN_MILLION").is_some_and(|value| value == "1") {
        disk.grow_to(10_000_000);
        curve.push(disk.curve(10_000_000));
    }
    growth(&curve, &mut table);
    println!("\n{:>12} | {}", "identities", Point::COLUMNS.map(|name| format!("{name:>29}")).join(" | "));
    for point in curve {
        println!("{point}");
    }
    if table.gross { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A hit in memory through the whole walk: digest, look-up, and whether the answer still holds.
fn memory_hit(table: &mut Table) {
    const ENTRIES: usize = 100_000;
    let (walk, bare) = (Memory::with(ENTRIES), BareMemory::with(ENTRIES));
    let [ours, floor] =
        in_turns(ENTRIES, [&mut |numbers| walk.hit(numbers), &mut |numbers| bare.hit(numbers)]).map(median);
    table.row(
        "memory hit, whole walk / quick_cache get and HMAC",
        [micros(ours), micros(floor)],
        ours / floor,
        Bound { figure: (ours - floor) * 1e6, at_most: 2.0, unit: "µs above" },
    );
}

/// What an identity takes in memory, counted at the allocator, against the bytes that have to be kept.
fn footprint(table: &mut Table) {
    let (digester, rules, now) = (digester(), rules(), Clock::system().now());
    let resident = resident(
        |_, answers| answers.table_bytes(),
        |stores, answers, number| {
            let digest = digester.token(&token(number));
            answers.keep(digest, pass(number, &rules), checked(&digest), stores.epoch(&digest));
        },
        |_, answers, number| answers.get(&digester.token(&token(number))).is_some(),
    );
    let Identity { subject, email, verified_at, .. } = identity(7);
    let texts = [subject.as_str(), email.as_ref().map_or("", Email::as_str), "primary", "openid", "email"];
    let (served_from, served_until, tier, flags) = (verified_at, verified_at, 0_u8, 0_u8);
    let rest =
        size_of_val(&(verified_at, served_from, served_until)) + size_of_val(&tier) + size_of_val(&flags);
    let floor = 32 + rest + texts.map(str::len).iter().sum::<usize>();
    table.bytes("bytes of an answer in memory / its payload", resident, floor, 2.0);

    let resident = self::resident(
        |stores, _| stores.table_bytes(),
        |stores, _, number| {
            let key = key(&digester, number);
            stores.keep_profile(key, Arc::new(profile(number, now)), stores.epoch_of_profile(&key));
        },
        |stores, _, number| {
            let ever = Timestamp::from_secs(0)..=Timestamp::from_millis(u64::MAX);
            stores.profile_of(&key(&digester, number), &ever).is_some()
        },
    );
    let ProfileRecord { verified_at, email, email_verified: _, name, email_rules } = profile(7, now);
    let texts: usize = [email, name].iter().flatten().map(String::len).sum();
    let floor = 32 + size_of_val(&verified_at) + size_of_val(&flags) + size_of_val(&email_rules) + texts;
    table.bytes("bytes of a profile in memory / its payload", resident, floor, 2.0);
}

/// The bytes that each of many entries takes in full stores: what keeping them allocates, and their table.
fn resident(
    table: fn(&Stores, &Answers) -> usize,
    keep: impl Fn(&Stores, &Answers, usize),
    has: impl Fn(&Stores, &Answers, usize) -> bool,
) -> f64 {
    const ENTRIES: usize = 200_000;
    let bytes = 64 * MEBIBYTE as u64;
    let stores = Arc::new(stores(bytes));
    let answers = Answers::new(bytes, stores.clone(), nothing_revoked());
    let counted = measure(|| (0..ENTRIES).for_each(|number| keep(&stores, &answers, number)));
    let kept = (0..ENTRIES).filter(|number| has(&stores, &answers, *number)).count();
    assert!(kept < ENTRIES, "the stores have to be full, or their tables count for too much");
    (counted.bytes_current as f64 + table(&stores, &answers) as f64) / kept as f64
}

/// A hit whose blocks lie in the block cache: get, unseal, decode; against a bare get of the same bytes.
fn disk_hit(disk: &Disk, table: &mut Table) {
    let cache = 256 * MEBIBYTE;
    let count = disk.count();
    disk.copy_to_bare();
    let bare = disk.bare(cache);
    let archive = disk.open(cache);
    let keys: Vec<_> = (0..count).map(|number| key(&disk.digester, number)).collect();
    keys.iter().for_each(|key| disk.load(&archive, key)); // brings every block into the cache
    keys.iter().for_each(|key| assert!(bare.get(key.0).unwrap().is_some()));
    let [ours, floor] = in_turns(
        count,
        [
            &mut |numbers: &[usize]| {
                disk.runtime.block_on(async {
                    for number in numbers {
                        let record = archive.load::<ProfileRecord>(&keys[*number].0, &disk.policy).await;
                        black_box(record.unwrap());
                    }
                });
            },
            &mut |numbers: &[usize]| {
                for number in numbers {
                    black_box(bare.get(keys[*number].0).unwrap().unwrap());
                }
            },
        ],
    )
    .map(median);
    table.row(
        "disk hit from block cache, opened and decoded / RocksDB get",
        [micros(ours), micros(floor)],
        ours / floor,
        Bound::ratio(ours / floor, 1.5),
    );
}

/// From the start to the issuer's keys in memory, compared with a bare open of the same files.
fn start(disk: &Disk, table: &mut Table) {
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let archive = disk.open(DiskSettings::at("").block_cache);
        let keys: Option<KeysRecord> =
            disk.runtime.block_on(archive.load(ISSUER, &disk.policy)).map(|(record, _)| record);
        ours.push(started.elapsed().as_secs_f64());
        assert!(keys.is_some());
        drop(archive);

        let path = disk.path().join("db");
        let families = DB::list_cf(&Options::default(), &path).unwrap();
        let started = Instant::now();
        let db = DB::open_cf(&Options::default(), &path, &families).unwrap();
        bare.push(started.elapsed().as_secs_f64());
        drop(db);
    }
    let (ours, bare) = (median(ours), median(bare));
    table.row(
        &format!("start to ready with {} records / bare open", disk.count()),
        [format!("{:.1} ms", ours * 1e3), format!("{:.1} ms", bare * 1e3)],
        ours / bare,
        Bound::ratio(ours / bare, 3.0),
    );
}

/// What an identity in seven tiers costs on disk. Each is vouched for and kept, asked for in the last second
/// of every tier (after a restart, so that it has to come from the disk, and once more), and then vouched for
/// again. All that goes through the stores, as a request does; what is counted is what RocksDB has then, and
/// how often it was written to.
fn written(table: &mut Table) {
    const ENTRIES: usize = 50_000;
    const VOUCHED: usize = 2;
    let clock = Clock::held_at(Clock::system().now());
    let disk = Disk::new(clock.clone());
    let keys: Vec<_> = (0..ENTRIES).map(|number| key(&disk.digester, number)).collect();
    let keep = |stores: &Stores| {
        for (number, key) in keys.iter().enumerate() {
            stores.keep_profile(*key, Arc::new(profile(number, clock.now())), stores.epoch_of_profile(key));
        }
    };
    let before = written_by_this_process();
    let verified_at = clock.now();
    keep(&disk.stores());
    for (tier, row) in disk.policy.table().iter() {
        let last_second = verified_at.after(row.age).before(Duration::from_secs(1));
        clock.advance(last_second.since(clock.now()));
        let stores = disk.stores();
        for from in ["disk", "memory"] {
            for key in &keys {
                let (record, store) = disk.runtime.block_on(stores.profile(key)).unwrap();
                assert_eq!(store, from);
                let plan = disk.policy.before_asking(&record.known(None), clock.now(), None);
                let served = match plan {
                    Plan::Serve(tier) | Plan::ServeAndRevalidate(tier) => Some(tier),
                    Plan::Ask { stale } => stale,
                    Plan::Refuse => None,
                };
                assert_eq!(served, Some(tier));
            }
        }
    }
    keep(&disk.stores());
    disk.store().compact().unwrap();
    let bytes_written = (written_by_this_process() - before) as f64 / (ENTRIES * VOUCHED) as f64;
    let per_entry = |count: u64| count as f64 / ENTRIES as f64;
    let records = per_entry(disk.records_of_all_families());
    let writes = per_entry(disk.changes_ever()) / VOUCHED as f64;
    let sealed = disk.bytes_of_a_record() as f64;
    let kept = per_entry(bytes_in(&disk.path().join("db")));
    table.row(
        "records on disk for an identity that was in seven tiers",
        [format!("{records:.2}"), "1".to_owned()],
        records,
        Bound::ratio(records, 1.0),
    );
    table.row(
        "changes written to RocksDB, each time that it was vouched for",
        [format!("{writes:.2}"), "1".to_owned()],
        writes,
        Bound::ratio(writes, 1.0),
    );
    table.row(
        "bytes kept on disk for it / key and sealed record",
        [format!("{kept:.0} B"), format!("{sealed:.0} B")],
        kept / sealed,
        Bound::none(kept / sealed),
    );
    table.row(
        "bytes written each time: log, flushes, compactions / the same",
        [format!("{bytes_written:.0} B"), format!("{sealed:.0} B")],
        bytes_written / sealed,
        Bound::none(bytes_written / sealed),
    );
}

/// How much more a lookup costs against the floor with a hundred times as many identities, or a thousand
/// times.
fn growth(curve: &[Point], table: &mut Table) {
    let [first, .., last] = curve else { return };
    for (column, (first, last)) in first.columns.iter().zip(&last.columns).enumerate() {
        let (before, after) = (first[0] / first[1], last[0] / last[1]);
        table.row(
            &format!("{}: ratio to bare, most / fewest identities", Point::COLUMNS[column]),
            [format!("{after:.2}"), format!("{before:.2}")],
            after / before,
            Bound::ratio(after / before, 1.5),
        );
    }
}

/// Answers in memory.
struct Memory {
    answers: Arc<Answers>,
    digester: TokenDigester,
    clock: Clock,
}

impl Memory {
    fn with(entries: usize) -> Self {
        let stores = Arc::new(stores(8 << 30));
        let answers = Answers::new(8 << 30, stores.clone(), nothing_revoked());
        let (digester, rules) = (digester(), rules());
        for number in 0..entries {
            let digest = digester.token(&token(number));
            answers.keep(digest, pass(number, &rules), checked(&digest), stores.epoch(&digest));
        }
        Self { answers, digester, clock: Clock::system() }
    }

    /// What `server::auth` does to find a prepared answer.
    fn hit(&self, numbers: &[usize]) {
        for number in numbers {
            let now = self.clock.now();
            let digest: TokenDigest = self.digester.token(&token(*number));
            let pass = self.answers.get(&digest).filter(|pass| pass.holds_at(now));
            assert!(black_box(pass).is_some());
        }
    }
}

/// The floor: nothing but a `quick_cache` by the HMAC of a token.
struct BareMemory {
    cache: quick_cache::sync::Cache<[u8; 32], Arc<usize>>,
    key: hmac::Key,
}

impl BareMemory {
    fn with(entries: usize) -> Self {
        let cache = quick_cache::sync::Cache::new(2 * entries);
        let bare = Self { cache, key: hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]) };
        for number in 0..entries {
            bare.cache.insert(bare.digest(number), Arc::new(number));
        }
        bare
    }

    fn digest(&self, number: usize) -> [u8; 32] {
        hmac::sign(&self.key, &token(number)).as_ref().try_into().unwrap()
    }

    fn hit(&self, numbers: &[usize]) {
        for number in numbers {
            assert!(black_box(self.cache.get(&self.digest(*number))).is_some());
        }
    }
}

/// A data directory that grows: one profile for each identity, and the keys of one issuer.
struct Disk {
    directory: TempDir,
    sealer: Sealer,
    digester: TokenDigester,
    clock: Clock,
    policy: Policy,
    runtime: Runtime,
}

const ISSUER: &[u8] = b"https://tenant.example/";

impl Disk {
    fn new(clock: Clock) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join(SECRET_FILE), SECRET).unwrap();
        std::fs::set_permissions(data.join(SECRET_FILE), std::fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            directory,
            sealer: Sealer::new(&InstanceSecret::from_bytes(&SECRET)).unwrap(),
            digester: digester(),
            clock,
            policy: Policy::default(),
            runtime: Builder::new_current_thread().enable_time().build().unwrap(),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    fn settings(&self, block_cache: usize) -> DiskSettings {
        DiskSettings { block_cache, checkpoint_interval: Duration::ZERO, ..DiskSettings::at(self.path()) }
    }

    fn store(&self) -> DiskStore {
        let settings = DiskSettings { queue: 64 * MEBIBYTE, ..self.settings(256 * MEBIBYTE) };
        DiskStore::open(settings, self.clock.clone()).unwrap().store
    }

    fn open(&self, block_cache: usize) -> Archive {
        let metrics = Arc::new(Metrics::new().unwrap());
        Archive::open(self.settings(block_cache), None, self.clock.clone(), metrics).unwrap().0
    }

    /// The stores over this directory, in a process that has just started.
    fn stores(&self) -> Stores {
        let settings = DiskSettings { queue: 64 * MEBIBYTE, ..self.settings(64 * MEBIBYTE) };
        let metrics = Arc::new(Metrics::new().unwrap());
        let (archive, _) = Archive::open(settings, None, self.clock.clone(), metrics.clone()).unwrap();
        Stores::new(256 * MEBIBYTE as u64, Some(Arc::new(archive)), self.policy.clone(), metrics)
    }

    fn records_of_all_families(&self) -> u64 {
        let (store, mut records) = (self.store(), 0);
        for family in Family::ALL {
            store.scan(family, |_, _| records += 1).unwrap();
        }
        records
    }

    /// How many puts and deletes RocksDB was ever given: it numbers them.
    fn changes_ever(&self) -> u64 {
        let path = self.path().join("db");
        let families = DB::list_cf(&Options::default(), &path).unwrap();
        let db = DB::open_cf_for_read_only(&Options::default(), &path, &families, true).unwrap();
        db.latest_sequence_number()
    }

    fn records(&self, store: &DiskStore) -> usize {
        let mut records = 0;
        store.scan(Family::Profiles, |_, _| records += 1).unwrap();
        records
    }

    fn count(&self) -> usize {
        self.records(&self.store())
    }

    fn sealed(&self, number: usize) -> (SubjectKey, Vec<u8>) {
        let key = key(&self.digester, number);
        let later = self.clock.now().after(Duration::from_secs(365 * 24 * 3600));
        let sealed = profile(number, self.clock.now()).seal(&self.sealer, &key.0, later).unwrap();
        (key, sealed)
    }

    fn bytes_of_a_record(&self) -> usize {
        let (key, sealed) = self.sealed(7);
        assert!(sealed.len() > OVERHEAD);
        key.0.len() + sealed.len()
    }

    /// Writes records until there are `count`, and lets RocksDB put them where it wants them.
    fn grow_to(&self, count: usize) {
        let store = self.store();
        let later = self.clock.now().after(Duration::from_secs(365 * 24 * 3600));
        let keys =
            KeysRecord { verified_at: self.clock.now(), jwks: vec![b'k'; 4096], discovery: vec![b'd'; 2048] };
        assert!(store.put(Family::Keys, ISSUER, keys.seal(&self.sealer, ISSUER, later).unwrap()));
        for number in self.records(&store)..count {
            if number.is_multiple_of(1_000_000) {
                // Written at full speed, compaction would fall so far behind that RocksDB stops all writes.
                store.compact().unwrap();
            }
            let (key, sealed) = self.sealed(number);
            if !store.put(Family::Profiles, &key.0, sealed.clone()) {
                store.sync().unwrap();
                assert!(store.put(Family::Profiles, &key.0, sealed));
            }
        }
        store.sync().unwrap();
        store.compact().unwrap();
        assert!(!store.is_degraded());
    }

    /// A RocksDB with nothing around it.
    fn bare(&self, block_cache: usize) -> DB {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(block_cache));
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        DB::open(&options, self.directory.path().join("bare")).unwrap()
    }

    /// Puts the same bytes there.
    fn copy_to_bare(&self) {
        let bare = self.bare(MEBIBYTE);
        self.store().scan(Family::Profiles, |key, sealed| bare.put(key, sealed).unwrap()).unwrap();
        bare.flush().unwrap();
        bare.compact_range(None::<&[u8]>, None::<&[u8]>);
    }

    fn load(&self, archive: &Archive, key: &SubjectKey) {
        assert!(self.runtime.block_on(archive.load::<ProfileRecord>(&key.0, &self.policy)).is_some());
    }

    /// What a lookup costs with so many identities: in memory, and on disk three ways; each beside the
    /// floor's.
    fn curve(&self, count: usize) -> Point {
        const FEW_BLOCKS: usize = 128 * 1024;
        let in_memory = {
            let (walk, bare) = (Memory::with(count), BareMemory::with(count));
            in_turns(count, [&mut |numbers| walk.hit(numbers), &mut |numbers| bare.hit(numbers)]).map(best)
        };
        self.copy_to_bare();
        let all: Vec<_> = (0..count).collect();
        let others = |numbers: &[usize]| numbers.iter().map(|number| number + (1 << 40)).collect::<Vec<_>>();
        // All in the block cache.
        let cache = 64 * MEBIBYTE + count * 300;
        let (archive, bare) = (self.open(cache), self.bare(cache));
        self.look_up(&archive, &all, true);
        self.look_up_bare(&bare, &all, true);
        let cached = in_turns(
            count,
            [&mut |numbers| self.look_up(&archive, numbers, true), &mut |numbers| {
                self.look_up_bare(&bare, numbers, true);
            }],
        )
        .map(best);
        let absent = in_turns(
            count,
            [&mut |numbers| self.look_up(&archive, &others(numbers), false), &mut |numbers| {
                self.look_up_bare(&bare, &others(numbers), false);
            }],
        )
        .map(best);
        drop((archive, bare));
        // Filters and indexes in memory, records in files. The bare RocksDB keeps the former outside its
        // block cache.
        let (archive, bare) = (self.open(FEW_BLOCKS + count * 6), self.bare(FEW_BLOCKS));
        let files = in_turns(
            count,
            [&mut |numbers| self.look_up(&archive, numbers, true), &mut |numbers| {
                self.look_up_bare(&bare, numbers, true);
            }],
        )
        .map(best);
        Point { count, columns: [in_memory, cached, files, absent] }
    }

    fn look_up(&self, archive: &Archive, numbers: &[usize], there: bool) {
        self.runtime.block_on(async {
            for number in numbers {
                let key = key(&self.digester, *number);
                assert_eq!(archive.load::<ProfileRecord>(&key.0, &self.policy).await.is_some(), there);
            }
        });
    }

    fn look_up_bare(&self, bare: &DB, numbers: &[usize], there: bool) {
        for number in numbers {
            let found = bare.get(key(&self.digester, *number).0).unwrap();
            assert_eq!(black_box(found).is_some(), there);
        }
    }
}

/// A row of the curve: what a lookup takes and what the floor takes, in seconds.
struct Point {
    count: usize,
    columns: [[f64; 2]; 4],
}

impl Point {
    const COLUMNS: [&str; 4] = ["memory", "disk, all cached", "disk, files only", "disk, absent"];
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>12}", self.count)?;
        for [ours, bare] in self.columns {
            let text = format!("{} / {} = {:.2}", micros(ours), micros(bare), ours / bare);
            write!(f, " | {text:>29}")?;
        }
        Ok(())
    }
}

const SECRET: [u8; 32] = [7; 32];

fn digester() -> TokenDigester {
    TokenDigester::new(&InstanceSecret::from_bytes(&SECRET)).unwrap()
}

fn stores(bytes: u64) -> Stores {
    Stores::new(bytes, None, Policy::default(), Arc::new(Metrics::new().unwrap()))
}

/// As long as a small token, and another for each number.
fn token(number: usize) -> [u8; 700] {
    let mut token = [b'x'; 700];
    token[..8].copy_from_slice(&number.to_be_bytes());
    token
}

fn key(digester: &TokenDigester, number: usize) -> SubjectKey {
    digester.subject("https://tenant.example/", &format!("auth0|{number:024x}"))
}

fn profile(number: usize, verified_at: Timestamp) -> ProfileRecord {
    ProfileRecord {
        verified_at,
        email: Some(format!("user-{number:08}@example.com")),
        email_verified: Some(true),
        name: Some(format!("User Number {number:08}")),
        email_rules: [7; 4],
    }
}

fn rules() -> Arc<[HeaderRule]> {
    let text = "[[issuer]]\nurl = \"https://tenant.example/\"\naudience = [\"https://api.example.com\"]\n";
    Settings::read(&Source::text("bench.toml", text)).unwrap().headers
}

fn identity(number: usize) -> Identity {
    Identity {
        issuer: "https://tenant.example/".into(),
        subject: format!("auth0|{number:024x}"),
        email: Email::parse(&format!("user-{number:08}@example.com")),
        email_verified: Some(true),
        email_not_allowed: false,
        source: IdentitySource::Claims,
        audience_checked: true,
        at_jwt: false,
        binding: Binding::Bearer,
        claims: json::object(br#"{"scope":"openid email"}"#).unwrap(),
        own_claims: true,
        name: None,
        verified_at: Clock::system().now(),
    }
}

/// An answer as the default configuration makes it.
fn pass(number: usize, rules: &[HeaderRule]) -> Pass {
    let identity = identity(number);
    let until = identity.verified_at.after(Duration::from_secs(4 * 3600));
    let serving = Serving { tier: TierIndex::YOUNGEST, stale: None, from: identity.verified_at, until };
    Pass::new(&identity, rules, (&TierTable::default(), serving), &ClaimsAsked::default()).unwrap()
}

/// Bytes handed to the system in `write` calls so far, `wchar` of proc(5).
fn written_by_this_process() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap()
}

fn bytes_in(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// What is done with numbers below the count of entries.
type Side<'a> = &'a mut dyn FnMut(&[usize]);

/// The times of one operation of each side, in seconds, in rounds in turns. Each side is given the same
/// numbers below `count`, spread evenly but in no order that a cache could like.
fn in_turns<const N: usize>(count: usize, mut sides: [Side<'_>; N]) -> [Vec<f64>; N] {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    let mut next = 1_usize;
    for _ in 0..ROUNDS {
        let mut number = || {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (next >> 33) % count
        };
        let numbers: Vec<_> = (0..LOOKUPS).map(|_| number()).collect();
        for (side, times) in sides.iter_mut().zip(&mut times) {
            let started = Instant::now();
            side(&numbers);
            times.push(started.elapsed().as_secs_f64() / LOOKUPS as f64);
        }
    }
    times
}

fn best(times: Vec<f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn micros(seconds: f64) -> String {
    format!("{:.2} µs", seconds * 1e6)
}

/// What is promised of a figure.
struct Bound {
    figure: f64,
    at_most: f64,
    unit: &'static str,
}

impl Bound {
    const fn ratio(figure: f64, at_most: f64) -> Self {
        Self { figure, at_most, unit: "×" }
    }

    const fn none(figure: f64) -> Self {
        Self { figure, at_most: f64::INFINITY, unit: "" }
    }
}

/// Prints a figure as soon as it is there.
struct Table {
    gross: bool,
}

impl Table {
    fn new() -> Self {
        println!("{:<66} {:>10} {:>10} {:>6}  {:<14} met", "", "holdfast", "floor", "ratio", "bound");
        Self { gross: false }
    }

    fn bytes(&mut self, what: &str, ours: f64, floor: usize, at_most: f64) {
        let ratio = ours / floor as f64;
        self.row(what, [format!("{ours:.0} B"), format!("{floor} B")], ratio, Bound::ratio(ratio, at_most));
    }

    fn row(&mut self, what: &str, [ours, floor]: [String; 2], ratio: f64, bound: Bound) {
        let Bound { figure, at_most, unit } = bound;
        let (promised, met) = match at_most.is_finite() {
            true => (format!("≤ {at_most} {unit}"), if figure <= at_most { "yes" } else { "no" }),
            false => (String::new(), ""),
        };
        println!("{what:<66} {ours:>10} {floor:>10} {ratio:>6.2}  {promised:<14} {met}");
        self.gross |= figure > GROSS * at_most;
    }
}

fn nothing_revoked() -> Arc<RevocationSet> {
    Arc::new(RevocationSet::new(Clock::system()))
}

/// The mark of an answer when nothing was revoked.
fn checked(token: &TokenDigest) -> Checked {
    static NOTHING: std::sync::OnceLock<Arc<RevocationSet>> = std::sync::OnceLock::new();
    NOTHING.get_or_init(nothing_revoked).mark(&RevocationKey::subject(&SubjectKey(token.0)), None)
}
