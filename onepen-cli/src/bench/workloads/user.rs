//! The user's own script over a copy of the user's own database.
//!
//! Invariant: what the user says (`--invariant`, a query whose first value
//! must be the same before and after); what was acknowledged cannot be counted
//! in tables nobody here knows, so lost updates are not reported without it.

use std::sync::Arc;

use super::{Acknowledged, Draw, Job, Part, Sql, Value, Variables, Verdict, Work, Workload};
use crate::bench::random::{Random, mix};
use crate::bench::script::{Script, Step};
use crate::bench::sql::{Fault, Session};

/// The workload.
pub struct User {
    script: Arc<Script>,
    reader: Option<Arc<Script>>,
    invariant: Option<Sql>,
}

impl User {
    /// Writers run `script`, readers `reader`.
    pub fn new(script: Script, reader: Option<Script>, invariant: Option<String>) -> Self {
        Self {
            script: Arc::new(script),
            reader: reader.map(Arc::new),
            invariant: invariant.map(|text| Sql {
                sqlite: text.into(),
                postgres: "".into(),
            }),
        }
    }
}

impl Workload for User {
    fn load(&self) -> Vec<Sql> {
        Vec::new()
    }

    fn write(&self, draw: &mut Draw) -> Job {
        Job::User(UserJob::new(&self.script, draw))
    }

    fn read(&self, draw: &mut Draw) -> Option<Job> {
        let reader = self.reader.as_ref()?;
        Some(Job::User(UserJob::new(reader, draw)))
    }

    fn remember(&self, session: &mut dyn Session) -> Result<Option<Value>, Fault> {
        let Some(invariant) = &self.invariant else {
            return Ok(None);
        };
        let mut row = [Value::Null];
        if session.first(invariant, &[], &mut row)? {
            let [value] = row;
            Ok(Some(value))
        } else {
            Err(Fault::Workload(
                "the invariant's query answers no row".to_owned(),
            ))
        }
    }

    fn verify(
        &self,
        session: &mut dyn Session,
        before: Option<&Value>,
        _acknowledged: Acknowledged,
    ) -> Result<Verdict, Fault> {
        let mut verdict = Verdict::default();
        if let (Some(before), Some(after)) = (before, self.remember(session)?)
            && *before != after
        {
            verdict
                .violations
                .push("the invariant's query answers another value than before the run".to_owned());
        }
        Ok(verdict)
    }
}

/// One run of the script.
#[derive(Clone, Debug)]
pub struct UserJob {
    script: Arc<Script>,
    seed: u64,
    client: u32,
}

impl UserJob {
    fn new(script: &Arc<Script>, draw: &mut Draw) -> Self {
        Self {
            script: Arc::clone(script),
            seed: draw.random.bits(),
            client: draw.client,
        }
    }
}

impl Work for UserJob {
    fn parts(&self) -> usize {
        self.script.transactions.len()
    }

    fn part(&self, part: usize) -> Part {
        self.script.transactions[part].part
    }

    fn run(
        &self,
        part: usize,
        variables: &Variables,
        session: &mut dyn Session,
    ) -> Result<Variables, Fault> {
        let mut variables = if part == 0 {
            let mut variables = self.script.variables.clone();
            variables[self.script.client] = Value::Integer(i64::from(self.client));
            variables
        } else {
            variables.clone()
        };
        let mut random = Random::new(mix(self.seed.wrapping_add(part as u64)));
        for step in &self.script.transactions[part].steps {
            match step {
                Step::Set {
                    place,
                    expression,
                    line,
                } => {
                    variables[*place] = expression
                        .evaluate(&variables, &mut random)
                        .map_err(|why| Fault::Workload(format!("line {line}: {why}")))?;
                }
                Step::Statement {
                    sql,
                    parameters,
                    rows,
                    gset,
                    line,
                } => {
                    let parameters: Vec<_> = parameters
                        .iter()
                        .map(|place| variables[*place].clone())
                        .collect();
                    if !rows {
                        session.execute(sql, &parameters)?;
                        continue;
                    }
                    let mut row = vec![Value::Null; gset.len()];
                    let found = session.first(sql, &parameters, &mut row)?;
                    if !found && !gset.is_empty() {
                        return Err(Fault::Workload(format!(
                            "line {line}: \\gset of a query that found no row"
                        )));
                    }
                    for (place, value) in gset.iter().zip(row) {
                        variables[*place] = value;
                    }
                }
            }
        }
        Ok(variables)
    }

    fn effects(&self) -> u64 {
        0
    }
}
