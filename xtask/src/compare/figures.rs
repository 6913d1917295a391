//! Medians, ratios, verdicts.

use serde_json::{Value, json};

use super::contender::Outcome;
use super::plan::{Goal, GoalKind, Section};

/// A section with all its rounds.
pub struct Measured {
    pub section: Section,
    /// Per contender, in the plan's order, one outcome per round.
    pub outcomes: Vec<Vec<Outcome>>,
    /// How many cores were busy with something else meanwhile.
    pub others: Option<f64>,
}

/// The middle, and how far the rounds lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// `None` when there is nothing to take the middle of.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

/// What became of a goal.
pub enum Verdict {
    Reached(Spread),
    Missed(Spread),
    NotMeasured(String),
}

impl Measured {
    pub fn new(section: Section) -> Self {
        let outcomes = section.contenders.iter().map(|_| Vec::new()).collect();
        Self {
            section,
            outcomes,
            others: None,
        }
    }

    /// Keeps how the contender at this place of the plan did in this round.
    pub fn add(&mut self, at: usize, outcome: Outcome) {
        self.outcomes[at].push(outcome);
    }

    /// The median of one figure of one contender. A wrong run counts: its row
    /// says so.
    pub fn figure(&self, at: usize, figure: &str) -> Option<Spread> {
        let values = self.outcomes[at]
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Ran(report) | Outcome::Wrong(report, _) => report[figure].as_f64(),
                Outcome::Skipped(_) => None,
            });
        Spread::of(values.collect())
    }

    /// Why the contender's figures must not be believed, or are not there.
    pub fn trouble(&self, at: usize) -> Option<String> {
        self.outcomes[at].iter().find_map(|outcome| match outcome {
            Outcome::Ran(_) => None,
            Outcome::Wrong(_, why) => Some(format!("WRONG: {}", in_one_line(why))),
            Outcome::Skipped(why) => Some(format!("skipped: {}", in_one_line(why))),
        })
    }

    /// Errors by class, over all rounds.
    pub fn errors(&self, at: usize) -> Vec<(String, u64)> {
        let mut sum = std::collections::BTreeMap::new();
        for outcome in &self.outcomes[at] {
            if let Outcome::Ran(report) | Outcome::Wrong(report, _) = outcome {
                for (class, count) in report["errors"].as_object().into_iter().flatten() {
                    *sum.entry(class.clone()).or_default() += count.as_u64().unwrap_or(0);
                }
            }
        }
        sum.into_iter().collect()
    }

    /// The median over the rounds of the ratio of two rates.
    pub fn ratio(&self, of: usize, to: usize) -> Option<Spread> {
        let pairs = self.outcomes[of].iter().zip(&self.outcomes[to]);
        Spread::of(
            pairs
                .filter_map(|(of, to)| Some(rate(of)? / rate(to)?))
                .collect(),
        )
    }

    fn place(&self, label: &str) -> usize {
        let place = self
            .section
            .contenders
            .iter()
            .position(|c| c.label == label);
        place.expect("a test pins that goals name contenders of their section")
    }

    /// Whether this goal was reached. A wrong contender reaches nothing.
    pub fn verdict(&self, goal: &Goal) -> Verdict {
        let of = self.place(&goal.of);
        let mut concerned = vec![of];
        let (spread, reached): (Option<Spread>, fn(f64, f64) -> bool) = match &goal.kind {
            GoalKind::Ratio { to, .. } => {
                let to = self.place(to);
                concerned.push(to);
                (self.ratio(of, to), |value, target| value >= target)
            }
            GoalKind::AtMost { figure, .. } => {
                (self.figure(of, figure), |value, target| value <= target)
            }
        };
        if let Some(why) = concerned.into_iter().find_map(|at| self.trouble(at)) {
            return Verdict::NotMeasured(why);
        }
        match spread {
            None => Verdict::NotMeasured("no figure".to_owned()),
            Some(spread) if reached(spread.median, goal.target()) => Verdict::Reached(spread),
            Some(spread) => Verdict::Missed(spread),
        }
    }

    /// Everything, for a program to read.
    pub fn to_json(&self) -> Value {
        let spread = |spread: Option<Spread>| match spread {
            Some(Spread {
                median,
                least,
                most,
            }) => {
                json!({"median": median, "least": least, "most": most})
            }
            None => Value::Null,
        };
        let contenders: Vec<Value> = (0..self.section.contenders.len())
            .map(|at| {
                let runs: Vec<&Value> = self.outcomes[at]
                    .iter()
                    .filter_map(|outcome| match outcome {
                        Outcome::Ran(report) | Outcome::Wrong(report, _) => Some(report),
                        Outcome::Skipped(_) => None,
                    })
                    .collect();
                json!({
                    "label": self.section.contenders[at].label,
                    "rate": spread(self.figure(at, "tx_per_s")),
                    "p50_us": spread(self.figure(at, "p50_us")),
                    "p99_us": spread(self.figure(at, "p99_us")),
                    "max_us": spread(self.figure(at, "max_us")),
                    "trouble": self.trouble(at),
                    "runs": runs,
                })
            })
            .collect();
        let goals: Vec<Value> = self
            .section
            .goals
            .iter()
            .map(|goal| {
                let (verdict, value) = match self.verdict(goal) {
                    Verdict::Reached(value) => ("reached", spread(Some(value))),
                    Verdict::Missed(value) => ("missed", spread(Some(value))),
                    Verdict::NotMeasured(why) => ("not measured", json!(why)),
                };
                json!({"goal": goal.to_string(), "target": goal.target(), "verdict": verdict, "value": value})
            })
            .collect();
        json!({
            "key": self.section.key,
            "title": self.section.title,
            "rounds": self.section.rounds,
            "warmup_s": self.section.warmup,
            "seconds": self.section.seconds,
            "unit": self.section.unit,
            "cores_used_by_others": self.others,
            "contenders": contenders,
            "goals": goals,
        })
    }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rate(outcome: &Outcome) -> Option<f64> {
    match outcome {
        Outcome::Ran(report) | Outcome::Wrong(report, _) => report["tx_per_s"].as_f64(),
        Outcome::Skipped(_) => None,
    }
}

impl Goal {
    /// The number to reach.
    pub fn target(&self) -> f64 {
        match self.kind {
            GoalKind::Ratio { at_least, .. } => at_least,
            GoalKind::AtMost { at_most, .. } => at_most,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            GoalKind::Ratio { to, at_least } => write!(f, "{} ≥ {at_least} × {to}", self.of),
            GoalKind::AtMost {
                words,
                at_most,
                unit,
                ..
            } => {
                write!(f, "{}: {words} ≤ {at_most} {unit}", self.of)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::{Contender, Program};

    fn measured(rates: [&[f64]; 2], at_least: f64) -> Measured {
        let contender = |label: &str| Contender {
            label: label.to_owned(),
            program: Program::Pgbench { clients: 1 },
        };
        let goal = Goal {
            of: "a".to_owned(),
            kind: GoalKind::Ratio {
                to: "b".to_owned(),
                at_least,
            },
        };
        let mut measured = Measured::new(Section {
            key: "async",
            title: String::new(),
            rounds: rates[0].len(),
            warmup: 0.0,
            seconds: 1.0,
            unit: "tx/s",
            contenders: vec![contender("a"), contender("b")],
            goals: vec![goal],
            note: "",
        });
        for (at, rates) in rates.into_iter().enumerate() {
            for rate in rates {
                measured.add(at, Outcome::Ran(json!({ "tx_per_s": rate })));
            }
        }
        measured
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_middle_two() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(vec![]), None);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine was twice as fast in the second round, for both.
        let measured = measured([&[10.0, 20.0, 10.0], &[5.0, 10.0, 4.0]], 2.0);
        let ratio = measured.ratio(0, 1).unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (2.0, 2.0, 2.5));
        assert!(matches!(
            measured.verdict(&measured.section.goals[0]),
            Verdict::Reached(_)
        ));
    }

    #[test]
    fn a_target_can_be_missed() {
        let measured = measured([&[9.9], &[5.0]], 2.0);
        assert!(matches!(
            measured.verdict(&measured.section.goals[0]),
            Verdict::Missed(_)
        ));
    }

    #[test]
    fn a_wrong_contender_reaches_nothing() {
        let mut measured = measured([&[10.0], &[5.0]], 2.0);
        measured.outcomes[0][0] = Outcome::Wrong(json!({"tx_per_s": 10.0}), "lost".to_owned());
        let goal = &measured.section.goals[0];
        assert!(
            matches!(measured.verdict(goal), Verdict::NotMeasured(why) if why.contains("lost"))
        );
    }
}
