//! A recording, cut at every moment, and what each image of the disk is worth.
//!
//! Guarantees: the same recording, seed and number of images give the same images;
//! an image that breaks a promise is kept as it was before anybody opened it, with
//! what was told, so that it can be judged again (`ONEPEN_POWER_REPLAY`, see
//! `kept`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onepen::Options;

use crate::disk::{Disk, Image, Key, Names, Style};
use crate::kept;
use crate::ledger::{self, Kind, Ledger, Verdict, Violation};
use crate::random::Random;
use crate::recorder::Log;
use crate::told::Told;

/// Of all tests together, unless told otherwise.
const IMAGES: u64 = 20_000;

/// One in so many images is used by onepen after it was recovered.
const USED: usize = 16;

/// What is demanded of an image. In two steps, because many images are the same
/// and only what was told differs.
#[derive(Clone, Copy)]
pub struct Check {
    /// Under this one it is kept and replayed.
    pub name: &'static str,
    /// Opens it and reads it.
    pub recover: fn(&Path) -> Result<Found, Violation>,
    /// Holds what was told against what was found.
    pub judge: fn(&Found, &Told) -> Verdict,
}

/// What a recovered image holds.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub database: Option<Ledger>,
    /// What is found at the target of a copy.
    pub copy: Option<Ledger>,
}

/// A test: what is recorded, and what is demanded of the images.
pub struct Campaign {
    pub name: &'static str,
    /// Its share of all images.
    pub percent: u64,
    pub check: Check,
    /// Names of files in mapped memory that an image may have.
    pub volatile: &'static [&'static str],
    /// So many images of one recording; then it is recorded anew.
    pub per_recording: u64,
    /// How onepen opens what was recovered.
    pub options: fn() -> Options,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub images: u64,
    /// That differ from each other, whatever was told.
    pub distinct: u64,
    pub moments: u64,
    pub violations: BTreeMap<Kind, u64>,
    /// The first of each kind.
    pub first: BTreeMap<Kind, String>,
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// How many images all tests look at together.
pub fn images() -> u64 {
    number("ONEPEN_POWER_IMAGES").unwrap_or(IMAGES)
}

pub fn seed() -> u64 {
    number("ONEPEN_POWER_SEED").unwrap_or(1)
}

/// Where images lie while they are looked at: in memory, if there is such a place.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.unwrap()
}

impl Campaign {
    /// Records, and looks at this campaign's share of the images.
    pub fn run(&self, record: impl Fn(u64) -> Log) -> Findings {
        let began = Instant::now();
        let share = (images() * self.percent / 100).max(1);
        let (mut all, mut recordings) = (Findings::default(), 0);
        let mut told = Instant::now();
        while all.images < share {
            let seed = Random::of(&[seed(), recordings]).next();
            recordings += 1;
            let log = record(seed);
            let wanted = (share - all.images).min(self.per_recording);
            all.add(self.examine(&log, wanted, seed));
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                let percent = all.images * 100 / share;
                eprintln!("power: {}: {percent} %, {}", self.name, all.verdict());
            }
        }
        println!(
            "power: {}: {} images ({} distinct) of {} moments in {recordings} recordings, {:.1} s: {}",
            self.name,
            all.images,
            all.distinct,
            all.moments,
            began.elapsed().as_secs_f64(),
            all.verdict(),
        );
        all
    }

    /// Looks at so many images of one recording.
    pub fn examine(&self, log: &Log, images: u64, seed: u64) -> Findings {
        let first = log.began;
        let moments = log.events.len() - first + 1;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let chunk = moments.div_ceil(workers * 8).max(1);
        let next = AtomicUsize::new(0);
        let findings = Mutex::new(Findings::default());
        let seen = Mutex::new(HashSet::new());
        std::thread::scope(|scope| {
            for _ in 0..workers.min(moments) {
                scope.spawn(|| {
                    let mut worker = Worker::new(self, log, seed);
                    loop {
                        let from = next.fetch_add(chunk, Ordering::Relaxed);
                        if from >= moments {
                            break;
                        }
                        for moment in from..(from + chunk).min(moments) {
                            // Spread evenly, also when there are fewer images
                            // than moments.
                            let before = |moment: usize| moment as u64 * images / moments as u64;
                            let count = before(moment + 1) - before(moment);
                            worker.look(moment, count);
                        }
                    }
                    seen.lock().unwrap().extend(worker.recovered.into_keys());
                    findings.lock().unwrap().add(worker.findings);
                });
            }
        });
        let mut findings = findings.into_inner().unwrap();
        findings.distinct = seen.into_inner().unwrap().len() as u64;
        findings.moments = moments as u64;
        findings
    }
}

impl Findings {
    pub fn add(&mut self, other: Self) {
        self.images += other.images;
        self.distinct += other.distinct;
        self.moments += other.moments;
        for (kind, count) in other.violations {
            *self.violations.entry(kind).or_default() += count;
        }
        for (kind, what) in other.first {
            self.first.entry(kind).or_insert(what);
        }
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.violations.get(&kind).copied().unwrap_or(0)
    }

    fn verdict(&self) -> String {
        if self.violations.is_empty() {
            return "nothing found".to_owned();
        }
        let kinds: Vec<_> = self
            .violations
            .iter()
            .map(|(kind, count)| format!("{kind:?} {count}"))
            .collect();
        kinds.join(", ")
    }

    /// # Panics
    /// When a promise was broken, with the image that shows it.
    pub fn assert_clean(&self) {
        assert!(self.images > 0, "nothing was looked at");
        assert!(
            self.violations.is_empty(),
            "{}; {:#?}",
            self.verdict(),
            self.first
        );
    }
}

/// One of those who look.
struct Worker<'a> {
    campaign: &'a Campaign,
    log: &'a Log,
    seed: u64,
    disk: Disk,
    /// Events that `disk` has had.
    applied: usize,
    home: tempfile::TempDir,
    /// What became of images.
    recovered: HashMap<Key, Result<Found, Violation>>,
    findings: Findings,
}

impl<'a> Worker<'a> {
    fn new(campaign: &'a Campaign, log: &'a Log, seed: u64) -> Self {
        Self {
            campaign,
            log,
            seed,
            disk: Disk::default(),
            applied: 0,
            home: scratch(),
            recovered: HashMap::new(),
            findings: Findings::default(),
        }
    }

    /// Looks at `count` images of the moment after so many events.
    fn look(&mut self, moment: usize, count: u64) {
        let end = self.log.began + moment;
        for event in &self.log.events[self.applied..end] {
            self.disk.apply(event);
        }
        self.applied = end;
        for index in 0..count {
            let (names, style) = kind_of(moment, index, count);
            let mut random = Random::of(&[self.seed, moment as u64, index]);
            let mut image = self.disk.image(names, style, &mut random);
            let volatile = self.campaign.volatile;
            self.disk.add_volatile(&mut image, volatile, &mut random);
            self.findings.images += 1;
            if let Err(violation) = self.judge(&image) {
                let id = format!("{}-{:x}-{moment}-{index}", self.campaign.name, self.seed);
                self.found(violation, &id, &format!("{names:?} {style:?}"), &image);
            }
        }
    }

    fn judge(&mut self, image: &Image) -> Verdict {
        if !self.recovered.contains_key(&image.key) {
            let found = self.recover(image);
            self.recovered.insert(image.key, found);
        }
        let found = self.recovered[&image.key].as_ref();
        (self.campaign.check.judge)(found.map_err(Clone::clone)?, &self.disk.told)
    }

    fn recover(&self, image: &Image) -> Result<Found, Violation> {
        put(self.home.path(), image);
        let mut found = (self.campaign.check.recover)(self.home.path());
        if found.is_ok() && self.recovered.len().is_multiple_of(USED) {
            let used = ledger::check_is_usable(self.home.path(), (self.campaign.options)());
            found = used.and(found);
        }
        for entry in std::fs::read_dir(self.home.path()).unwrap().flatten() {
            std::fs::remove_file(entry.path()).unwrap();
        }
        found
    }

    fn found(&mut self, violation: Violation, id: &str, how: &str, image: &Image) {
        let Violation { kind, what } = violation;
        *self.findings.violations.entry(kind).or_default() += 1;
        if self.findings.first.contains_key(&kind) {
            return;
        }
        let kept = kept::keep(id, self.campaign.check.name, &self.disk.told, image);
        let said = format!("{what} ({how}); kept in {}", kept.display());
        self.findings.first.insert(kind, said);
    }
}

/// Which image of a moment it is. With room for it: both images without chance,
/// for either rule about names, and then chance.
fn kind_of(moment: usize, index: u64, count: u64) -> (Names, Style) {
    let index = index as usize;
    let turn = match (count >= 8, index) {
        (true, 0..4) => index,
        (true, _) => 4 + index % 4,
        (false, _) => (moment * 3 + index * 5) % 8,
    };
    (Names::EACH[turn % 2], Style::EACH[turn / 2])
}

/// Puts an image into an empty directory.
pub fn put(directory: &Path, image: &Image) {
    for (name, bytes) in &image.files {
        std::fs::write(directory.join(&**name), bytes).unwrap();
    }
}
