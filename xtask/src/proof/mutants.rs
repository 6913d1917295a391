//! Every small change that `cargo mutants` can think of in the core (a function
//! that returns at once, a comparison the other way round), one at a time: is
//! there a test that fails?
//!
//! All of them are in one build, each behind a switch ([`weave`]), and each is
//! run with those tests alone that come by it; that is what makes an hour of a
//! night. Guarantees: a mutant that lives fails the run, unless docs/proof.md has
//! an argument for it (`argued.txt`); before anything is believed, a small crate
//! is judged by cargo-mutants, too, and the verdicts have to agree ([`probe`]).

mod build;
mod list;
mod plan;
mod probe;
mod results;
mod trial;
mod weave;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use build::{Way, Workspace, count};
use list::Mutant;
use plan::{Plan, digest, in_parallel};
use results::{ARGUED, Results, argued};
use trial::{Court, Verdict};

use super::{Ask, Failure, Figures, Strength, root};
use crate::planted::copy::Copy;
use crate::sources::PACKAGES;

/// What is changed.
const CORE: &[&str] = &[
    "onepen/src/pen/*.rs",
    "onepen/src/pen/group/*.rs",
    "onepen/src/blocks/line.rs",
    "onepen/src/blocks/retry.rs",
    "onepen-lock/src/gate/queue.rs",
    "onepen-lock/src/gate/seat.rs",
    "onepen-lock/src/gate/layout.rs",
];

/// Programs of tests that are not asked: they take long, and are about what the
/// disk makes of it, not about whose turn it is, or have no line of the core in
/// them.
const NOT_ASKED: &[&str] = &[
    "onepen power",
    "onepen sweeps",
    "onepen kills",
    "onepen-lock gate_model",
];

/// What is asked of the run.
struct Wish {
    only: Option<String>,
    /// This one of so many.
    shard: (usize, usize),
    resume: bool,
    json: bool,
    jobs: usize,
}

impl Wish {
    fn of(words: &[String]) -> Result<Self, Failure> {
        let mut wish = Self {
            only: None,
            shard: (0, 1),
            resume: false,
            json: false,
            // Many a mutant only stands still.
            jobs: std::thread::available_parallelism().map_or(2, usize::from) + 1,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--only" => wish.only = Some(value()?),
                "--shard" => wish.shard = shard(&value()?)?,
                "--jobs" => wish.jobs = value()?.parse::<usize>()?.max(1),
                "--resume" => wish.resume = true,
                "--json" => wish.json = true,
                other => return Err(format!("`{other}` is not known here").into()),
            }
        }
        Ok(wish)
    }

    fn wants(&self, mutant: &Mutant) -> bool {
        let (this, all) = self.shard;
        mutant.number % all == this
            && self
                .only
                .as_ref()
                .is_none_or(|text| mutant.place().contains(text) || mutant.name.contains(text))
    }
}

fn shard(word: &str) -> Result<(usize, usize), Failure> {
    let numbers = word.split_once('/').and_then(|(this, all)| {
        let (this, all): (usize, usize) = (this.parse().ok()?, all.parse().ok()?);
        (this < all).then_some((this, all))
    });
    numbers.ok_or_else(|| format!("--shard {word}: K/N, with K from 0 to N-1").into())
}

/// `cargo xtask proof mutants`.
pub fn run(ask: &Ask) -> Result<Figures, Failure> {
    let wish = Wish::of(&ask.words)?;
    let home = root()
        .canonicalize()?
        .join("target")
        .join("proof")
        .join("mutants");
    if ask.strength == Strength::Quick {
        return Ok(Figures(vec![(
            "mutants of a small crate judged as by cargo-mutants",
            probe::run(&home)?.to_string(),
        )]));
    }
    let packages = PACKAGES.map(str::to_owned).to_vec();
    let digest = digest(&root(), &packages)?;
    let kept = home.join("plan.json");
    let saved = wish.resume.then(|| Plan::load(&kept)).flatten();
    let goes_on = saved.is_some();
    let plan = match saved {
        Some((plan, of)) => {
            if of != digest {
                eprintln!("mutants: of the sources as they were when the run began");
            }
            plan
        }
        None => {
            probe::run_once(&home)?;
            Copy::of(&root(), &home.join("copy"))?;
            Copy::of(&root(), &home.join("apart"))?;
            stand_apart(&home.join("apart"))?;
            let workspace = workspace(&home, "copy", &packages);
            let list = list::list(&root(), CORE)?;
            let asked = |program: &str| !NOT_ASKED.contains(&program);
            let plan = Plan::make(&workspace, list, &asked, wish.jobs)?;
            plan.save(&kept, digest)?;
            plan
        }
    };
    for (test, why) in &plan.left_out {
        eprintln!("mutants: not asked: {test}: {why}");
    }
    let (mut known, results) = Results::open(&home.join("results.jsonl"), goes_on)?;
    let judged = judge(&plan, &wish, &home, &mut known, &results);
    let _ = std::fs::remove_dir_all(scratch(""));
    judged?;
    report(&plan, &wish, &known)
}

fn workspace(home: &Path, name: &str, packages: &[String]) -> Workspace {
    Workspace {
        root: home.join(name),
        target: home.join("build"),
        packages: packages.to_vec(),
        features: "onepen/tracing,onepen/metrics",
    }
}

/// Cargo tells the packages of two workspaces in one target directory apart by
/// name and version alone: without another version, what is built here would take
/// the place of the programs with the switches.
fn stand_apart(root: &Path) -> Result<(), Failure> {
    let manifest = root.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    let (as_copied, another) = ("+planted\"", "+apart\"");
    if !text.contains(as_copied) {
        return Err(format!(
            "{}: no version that ends so: {as_copied}",
            manifest.display()
        )
        .into());
    }
    Ok(std::fs::write(manifest, text.replace(as_copied, another))?)
}

/// Tries those that are wanted and not known yet.
fn judge(
    plan: &Plan,
    wish: &Wish,
    home: &Path,
    known: &mut BTreeMap<String, Verdict>,
    results: &Results,
) -> Result<(), Failure> {
    let wanted: Vec<&Mutant> = plan
        .mutants
        .iter()
        .filter(|mutant| wish.wants(mutant) && !known.contains_key(&mutant.name))
        .collect();
    let of = |way: Way| {
        wanted
            .iter()
            .copied()
            .filter(move |m| plan.ways[m.number] == way)
    };
    for mutant in of(Way::Unviable) {
        results.add(&mutant.name, &Verdict::Unviable)?;
        known.insert(mutant.name.clone(), Verdict::Unviable);
    }
    let switched: Vec<&Mutant> = of(Way::Switch).collect();
    let progress = Progress::of(switched.len());
    let verdicts = in_parallel(wish.jobs, &switched, |job, mutant| {
        let court = Court {
            programs: &plan.programs,
            scratch: scratch(&format!("{job}")),
        };
        let verdict = court.try_one(mutant.number, &plan.tests_of(mutant.number))?;
        results.add(&mutant.name, &verdict)?;
        progress.tell(mutant, &verdict);
        Ok(verdict)
    })?;
    for (mutant, verdict) in switched.iter().zip(verdicts) {
        known.insert(mutant.name.clone(), verdict);
    }
    let apart: Vec<&Mutant> = of(Way::Apart).collect();
    if !apart.is_empty() {
        eprintln!("mutants: {} that need a build of their own …", apart.len());
        let workspace = workspace(home, "apart", &PACKAGES.map(str::to_owned));
        let progress = Progress::of(apart.len());
        for mutant in apart {
            let verdict = alone(plan, mutant, &workspace)?;
            results.add(&mutant.name, &verdict)?;
            progress.tell(mutant, &verdict);
            known.insert(mutant.name.clone(), verdict);
        }
    }
    Ok(())
}

/// A mutant with a build of its own.
fn alone(plan: &Plan, mutant: &Mutant, workspace: &Workspace) -> Result<Verdict, Failure> {
    let original = workspace.plant(mutant)?;
    let built = workspace.tests();
    workspace.heal(mutant, &original)?;
    let Some(programs) = built? else {
        return Ok(Verdict::Unviable);
    };
    // In the order of the plan, by which the tests name them.
    let programs: Option<Vec<_>> = plan
        .programs
        .iter()
        .map(|one| {
            programs
                .iter()
                .find(|other| other.name == one.name)
                .cloned()
        })
        .collect();
    let court = Court {
        programs: &programs.ok_or("a program of tests is not built without switches")?,
        scratch: scratch("apart"),
    };
    court.try_one(0, &plan.tests_near(mutant))
}

struct Progress {
    began: Instant,
    all: usize,
    done: AtomicUsize,
    lived: AtomicUsize,
}

impl Progress {
    fn of(all: usize) -> Self {
        Self {
            began: Instant::now(),
            all,
            done: AtomicUsize::new(0),
            lived: AtomicUsize::new(0),
        }
    }

    fn tell(&self, mutant: &Mutant, verdict: &Verdict) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Verdict::Lives(tests) = verdict {
            self.lived.fetch_add(1, Ordering::Relaxed);
            eprintln!("mutants: lives ({tests} tests): {}", mutant.place());
        }
        if done.is_multiple_of(20) || done == self.all {
            let left = self
                .began
                .elapsed()
                .mul_f64((self.all - done) as f64 / done as f64);
            eprintln!(
                "mutants: {done} of {}, {} live, {} min to go",
                self.all,
                self.lived.load(Ordering::Relaxed),
                left.as_secs().div_ceil(60),
            );
        }
    }
}

/// Says what became of those that were wanted; an error when one lives that is
/// not argued.
fn report(plan: &Plan, wish: &Wish, known: &BTreeMap<String, Verdict>) -> Result<Figures, Failure> {
    let argued = argued(ARGUED)?;
    let of = plan.mutants.iter().filter(|mutant| wish.wants(mutant));
    let judged: Vec<(&Mutant, &Verdict)> = of
        .filter_map(|mutant| Some((mutant, known.get(&mutant.name)?)))
        .collect();
    if wish.json {
        for (mutant, verdict) in &judged {
            let line = serde_json::json!({
                "mutant": mutant.name, "place": mutant.place(), "verdict": verdict.word(),
                "detail": verdict.detail(), "argued": argued.get(&*mutant.name),
            });
            println!("{line}");
        }
    } else {
        print_table(&judged, &argued);
    }
    for mutant in argued.keys() {
        if plan.mutants.iter().all(|known| known.name != *mutant) {
            return Err(format!("argued, but not there: {mutant}").into());
        }
    }
    let counted = |word: &str| judged.iter().filter(|(_, v)| v.word() == word).count();
    let unargued = judged
        .iter()
        .filter(|(m, v)| matches!(v, Verdict::Lives(_)) && !argued.contains_key(&*m.name))
        .count();
    if unargued > 0 {
        return Err(format!("{unargued} mutants live and are not argued").into());
    }
    Ok(Figures(vec![
        ("mutants", judged.len().to_string()),
        ("unviable", counted("unviable").to_string()),
        ("failed a test", counted("noticed").to_string()),
        ("stood still", counted("hung").to_string()),
        ("died", counted("died").to_string()),
        ("failed a test now and then", counted("shaky").to_string()),
        ("live and are argued", counted("lives").to_string()),
        ("by switches", count(&plan.ways, Way::Switch).to_string()),
    ]))
}

fn print_table(judged: &[(&Mutant, &Verdict)], argued: &BTreeMap<&str, &str>) {
    println!("| mutant | | |\n|---|---|---|");
    for (mutant, verdict) in judged {
        let heading = argued.get(&*mutant.name);
        let note = match (verdict, heading) {
            (Verdict::Lives(_), None) => "not argued".to_owned(),
            (Verdict::Lives(_), Some(heading)) => format!("argued: {heading}"),
            (_, Some(heading)) => format!("argued ({heading}), and yet: {}", verdict.detail()),
            (Verdict::Shaky(by), None) => format!("only now and then by {by}"),
            _ => continue,
        };
        println!("| {} | {} | {note} |", mutant.place(), verdict.word());
    }
    println!();
}

/// Where tests put their files, thousands of times: in memory, if there is such
/// a place. What becomes of a flush is not what they look at.
fn scratch(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let place = match memory.is_dir() {
        true => memory.to_path_buf(),
        false => std::env::temp_dir(),
    };
    place
        .join(format!("mutants-{}", std::process::id()))
        .join(name)
}
